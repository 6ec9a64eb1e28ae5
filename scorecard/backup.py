"""Row 23: whatever backup is restored, deleted accounts stay deleted and no token goes back."""

import asyncio
import contextlib
import io
import tempfile
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.crypto.errors import KeyGone
from common.crypto.keyset import Keyset
from common.stores.documents import Body
from ops.backup import main as backup
from ops.backup_file import BackupReader
from ops.backup_records import Records
from ops.stack import master_key
from scorecard.row import Finding, Row, Say
from scorecard.service import Deployment, deployed
from scorecard.tokens_worker import Store

_ACCOUNTS = 8
_ROUNDS = 6


@dataclass
class _Found:
    """What went wrong, over all backups."""

    decryptable_bytes: int = 0
    """Of deleted accounts, in backups and in places that were restored from them."""
    rolled_back: int = 0
    restored_accounts: int = 0
    problems: list[str] = field(default_factory=list)


def _delete_then_restore(say: Say) -> Finding:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = Store(f"sqlite:///{folder}/live.db", f"sqlite:///{folder}/live.keys.db", master_key())
        with deployed(1, DOCUMENTS_URL=store.url, KEYS_URL=store.keys_url, TOKEN_KEYS=store.token_keys) as service:
            found, deleted = _measure(service, store, folder, say)
    measured = f"{_ROUNDS} backups, {deleted} accounts deleted between them, each restored to an empty and to the live "
    measured += f"place: {found.decryptable_bytes} decryptable bytes, {found.rolled_back} newer tokens rolled back"
    measured += "".join(f"; {problem}" for problem in found.problems)
    passed = not (found.decryptable_bytes or found.rolled_back or found.problems)
    # What restores nothing would pass all of that.
    return Finding(measured, passed and found.restored_accounts > 0 and deleted > 0)


def _measure(service: Deployment, store: Store, folder: Path, say: Say) -> tuple[_Found, int]:
    emails = {
        service.connect(f"user-{n}@example.com", f"row-23-{n}"): f"user-{n}@example.com" for n in range(_ACCOUNTS)
    }
    vins = {account: service.vehicles(account)[0] for account in emails}
    found, deleted, files = _Found(), set[str](), []
    for number in range(_ROUNDS):
        say(f"backup {number + 1}, then rotations, a command and a disconnect")
        files.append(folder / f"{number}.backup")
        _expect(0, ["create", str(files[-1])], store.environ(), found)
        living = [account for account in emails if account not in deleted]
        for account in living:
            _rotate(service, emails[account], account, vins[account], found)
        service.instances[0].post(action="lock", account=living[-1], vin=vins[living[-1]], wait_s=5)
        service.instances[0].post(action="disconnect", account=living[0]).raise_for_status()
        deleted.add(living[0])
    living = [account for account in emails if account not in deleted]
    newest = asyncio.run(_refresh_tokens(store, living))
    for number, file in enumerate(files):
        say(f"restoring backup {number + 1}")
        empty = Store(f"sqlite:///{folder}/empty-{number}.db", store.keys_url, store.token_keys)
        _expect(0, ["restore", str(file)], empty.environ(), found)
        asyncio.run(_look(file, empty, deleted, found))
        found.restored_accounts += len(asyncio.run(_refresh_tokens(empty, living)))
        _expect(0, ["restore", "--into-live", str(file)], store.environ(), found)
        asyncio.run(_look(file, store, deleted, found))
        now = asyncio.run(_refresh_tokens(store, living))
        found.rolled_back += sum(now.get(account) != newest[account] for account in living)
    for account in living:
        _rotate(service, emails[account], account, vins[account], found)
    return found, len(deleted)


def _expect(status: int, argv: list[str], environ: Mapping[str, str], found: _Found) -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        answered = backup(argv, environ)
    if answered != status:
        found.problems.append(f"{argv[0]} ended with {answered}: {said.getvalue().splitlines()[-1]}")


def _rotate(service: Deployment, email: str, account: str, vin: str, found: _Found) -> None:
    """Have the service trade the account's refresh token in."""
    service.maker.expire_access(email)
    answered = service.instances[0].post(action="status", account=account, vin=vin, fresh=True)
    if answered.status_code != 200:
        found.problems.append(f"a live account is answered {answered.status_code}")


async def _refresh_tokens(store: Store, accounts: list[str]) -> dict[str, str]:
    async with store.opened() as (documents, _):
        read = {account: await documents.get(f"tokens/{account}") for account in accounts}
    return {account: document.body["refresh_token"] for account, document in read.items() if document is not None}


async def _look(file: Path, place: Store, deleted: set[str], found: _Found) -> None:
    """Try to read what is of deleted accounts, with every key that is left."""
    keyset = Keyset.parse(place.token_keys)
    async with place.opened() as (documents, vault):
        with file.open("rb") as content:
            reader = BackupReader(content, keyset)
            records = Records(vault, keyset, reader.header.id)
            for record in reader.records():
                if record.account in deleted:
                    found.decryptable_bytes += await _readable_bytes(records.open(record))
                elif any(account.encode() in record.payload for account in deleted):
                    found.decryptable_bytes += len(record.payload)
        for key in await documents.list(""):
            document = await documents.get(key)
            text = f"{key} {document.body if document is not None else ''}"
            found.decryptable_bytes += len(text) if any(account in text for account in deleted) else 0


async def _readable_bytes(opening: Awaitable[tuple[str, Body]]) -> int:
    try:
        key, body = await opening
    except KeyGone:
        return 0
    return len(f"{key} {body}")


ROWS = (
    Row(
        23,
        "delete, then restore any backup",
        "0 decryptable bytes, 0 newer tokens rolled back",
        _delete_then_restore,
    ),
)
