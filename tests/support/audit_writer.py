"""A process that writes to the audit trail, and what tests of the trail share.

``python -m tests.support.audit_writer URL NAME TIMES [MOMENT OPERATION KEY]``: enters ``TIMES`` commands (0: without
end) with intent and outcome and prints ``NAME.NUMBER`` when both are acknowledged; or kills itself with SIGKILL
before or after the first operation on a key that ends so.
"""

import asyncio
import hashlib
import os
import signal
import sys
from dataclasses import replace
from datetime import UTC, datetime

from common.clock import SystemClock
from common.ids import random_id
from common.stores.documents import open_documents
from functions.audit import AuditTrail
from functions.command_record import Record
from functions.providers.port import Command, CommandName
from tests.support.tapped_documents import TappedDocuments, When

KEY = "the audit key of these tests, 1234"
VIN = "WBA00000000DEMO01"
OTHER_VIN = "WBA00000000DEMO02"
PRINCIPAL = "issuer|owner@example.com"
ACCOUNT = "acc_" + "Q" * 22
PARAMS = {"latitude": 48.176912, "longitude": 11.559321, "name": "Summer house"}


def record(number: str = "", *, vin: str = VIN, account: str = ACCOUNT, state: str = "accepted") -> Record:
    """A command; ``number`` is the end of its id."""
    at = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
    return Record(
        id=f"cmd_{account.removeprefix('acc_')}_{(number or random_id()).rjust(22, '0')}",
        principal=PRINCIPAL,
        account_id=account,
        vin=vin,
        vehicle=hashlib.sha256(vin.encode()).hexdigest()[:32],
        command=Command(CommandName.SEND_POI, PARAMS),
        fingerprint="f" * 64,
        created_at=at,
        expires_at=at,
        updated_at=at,
        key_digest="d" * 64,
        state=state,
    )


async def enter(trail: AuditTrail, command: Record) -> None:
    """What is entered of a command that goes well."""
    await trail.intent(command, idempotency_key_digest=command.key_digest)
    await trail.outcome(replace(command, state="executed"))


async def _main(url: str, name: str, times: int, *fatal: str) -> None:
    async def die(when: When, operation: str, key: str) -> None:
        if (when.value, operation) == fatal[:2] and key.endswith(fatal[2]):
            os.kill(os.getpid(), signal.SIGKILL)

    documents = open_documents(url)
    trail = AuditTrail(TappedDocuments(documents, die) if fatal else documents, SystemClock(), key=KEY.encode())
    print("ready", flush=True)  # noqa: T201 - how a process speaks
    await asyncio.to_thread(sys.stdin.readline)
    number = 0
    while times == 0 or number < times:
        await enter(trail, record(f"{name}.{number}"))
        print(f"{name}.{number}", flush=True)  # noqa: T201 - how a process speaks
        number += 1
    await documents.aclose()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:]))
