"""A rotation of master keys that kills itself after so many operations of the stores."""

import asyncio
import os
import signal
import sys

from common.clock import SystemClock
from common.crypto.setup import open_sealing
from common.stores.documents import open_documents
from common.vault import Vault
from ops.keys_rotation import Rotation
from tests.support.tapped_documents import TappedDocuments, When


async def _main(killed_after: int) -> None:
    done = 0

    async def tap(when: When, _operation: str, _key: str) -> None:
        nonlocal done
        done += when is When.AFTER
        if done == killed_after:
            os.kill(os.getpid(), signal.SIGKILL)

    url = os.environ["DOCUMENTS_URL"]
    sealing = open_sealing(token_keys=os.environ["TOKEN_KEYS"], documents_url=url)
    keys = TappedDocuments(sealing.keys, tap)
    rotation = Rotation(
        vault=Vault(keys, sealing.wrapper, SystemClock()),
        keys=keys,
        inner=TappedDocuments(open_documents(url), tap),
        keyset=sealing.keyset,
        plain=frozenset({"audit"}),
        say=lambda _: None,
    )
    await rotation.run(sealing.keyset.active)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
