"""An instance that reads and writes sealed documents without a pause until its standard input ends.

Prints a line every ``REPORT_EVERY`` rounds and in the end, as JSON, how many it did and what went wrong.
"""

import asyncio
import json
import os
import random
import sys
import threading
from collections import Counter

from common.clock import SystemClock
from common.crypto.setup import open_sealing
from common.ids import random_id
from common.stores.documents import Body, open_documents, update
from common.stores.sealed import SealedDocuments, segment
from common.vault import Vault

ACCOUNTS = 24
REPORT_EVERY = 50


class Gone(Exception):
    """A document that must be there is not, or one that must not be there is."""


def store(token_keys: str, documents_url: str, *, max_held: int = 4_096) -> tuple[Vault, SealedDocuments]:
    """A vault, and documents of which ``tokens/<account id>`` are accounts'."""
    sealing = open_sealing(token_keys=token_keys, documents_url=documents_url)
    vault = Vault(sealing.keys, sealing.wrapper, SystemClock(), max_held=max_held)
    inner = open_documents(documents_url)
    return vault, SealedDocuments(inner, vault, sealing.keyset, accounts={"tokens": segment(1)})


async def _round(vault: Vault, documents: SealedDocuments) -> None:
    def one_more(body: Body) -> Body:
        return {"count": body["count"] + 1}

    number = random.randrange(ACCOUNTS)
    for key in (f"tokens/acc_{number}", f"identities/{number}"):
        if await update(documents, key, one_more, attempts=1_000) is None:
            raise Gone
    if number == 0:
        await _come_and_go(vault, documents, f"acc_{random_id()}")


async def _come_and_go(vault: Vault, documents: SealedDocuments, account_id: str) -> None:
    key = f"tokens/{account_id}"
    await vault.create(account_id, "mybmw", "somebody")
    await documents.create(key, {})
    if await documents.get(key) is None:
        raise Gone
    await vault.shred(account_id)
    if await documents.get(key) is not None:
        raise Gone
    await documents.delete(key)


def _set_at_the_end_of_input(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


async def _main() -> None:
    # So few keys are held that most rounds load theirs, under whichever master key it is by then.
    vault, documents = store(os.environ["TOKEN_KEYS"], os.environ["DOCUMENTS_URL"], max_held=2)
    ended = threading.Event()
    threading.Thread(target=_set_at_the_end_of_input, args=(ended,), daemon=True).start()
    rounds, failures = 0, Counter[str]()
    while not ended.is_set():
        try:
            await _round(vault, documents)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
            failures[type(error).__name__] += 1
        rounds += 1
        if rounds % REPORT_EVERY == 0:
            print(rounds, flush=True)
    await documents.aclose()
    print(json.dumps({"rounds": rounds, "failures": failures}), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
