"""Backups of the documents that the service keeps: docs/backup.md says what they are worth.

::

    python -m ops.backup create FILE
    python -m ops.backup verify FILE
    python -m ops.backup restore FILE [--into-live] [--without-accounts]

Each works on the stores that the service's own settings name; ``restore`` writes to ``DOCUMENTS_URL``, which must be
empty unless ``--into-live`` is said. What was found goes to standard output, progress to standard error. Exits with 0
when all is well, with 1 where something is damaged or a store cannot be reached, with 2 and one line where it is asked
for what cannot be done.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from common.clock import Clock, SystemClock
from common.errors import StoreUnavailable
from common.ids import random_id
from common.settings import Settings, SettingsError, load
from ops.backup_create import Created, create, new_file
from ops.backup_file import BackupWriter, Damaged, Foreign
from ops.backup_records import Records
from ops.backup_restore import Restore
from ops.backup_source import pages
from ops.backup_stores import Stores, check_file, opened
from ops.backup_survey import Backup, Survey
from ops.keys_command import Parser, Refused

_Run: TypeAlias = Callable[[argparse.Namespace, Settings, Clock], Awaitable[int]]


async def _create(asked: argparse.Namespace, settings: Settings, clock: Clock) -> int:
    check_file(settings.documents_url)
    async with opened(settings, clock) as stores:
        created_at = clock.utc().isoformat(timespec="seconds")
        backup_id = random_id()
        try:
            with new_file(asked.file) as file:
                writer = BackupWriter(file, stores.keyset, backup_id=backup_id, created_at=created_at)
                records = Records(stores.vault, stores.keyset, backup_id)
                source = settings.documents_url
                made = await create(pages(source, stores.inner), records, writer, source, _say)
                if made.broken and not made.documents:
                    raise Refused("nothing in DOCUMENTS_URL opens: are TOKEN_KEYS and KEYS_URL the service's own?")
        except FileExistsError as exists:
            raise Refused(f"there is a file {asked.file} already") from exists
    print(f"backup {backup_id} of {created_at}")
    return _report_created(made)


def _report_created(made: Created) -> int:
    print(f"documents: {_counts(made.documents)}")
    print(f"accounts: {len(made.accounts)}")
    if made.gone:
        print(f"left out, of accounts without a data key: {made.gone}")
    if made.short_lived:
        print(f"left out, short-lived: {made.short_lived}")
    for key, reason in sorted(made.broken.items()):
        print(f"BROKEN  {key}: {reason}")
    return 1 if made.broken else 0


async def _verify(asked: argparse.Namespace, settings: Settings, clock: Clock) -> int:
    async with opened(settings, clock) as stores:
        survey = await _surveyed(asked.file, stores)
    return _report_survey(survey)


def _report_survey(survey: Survey) -> int:
    print(f"backup {survey.header.id} of {survey.header.created_at}, under {survey.header.kid}: whole")
    print(f"from {survey.manifest.source}")
    print(f"documents that open: {_counts(survey.documents)}")
    print(f"accounts: {len(survey.accounts)} can be restored")
    for accounts, why in (
        (survey.gone, "their data key is gone"),
        (survey.ended, "their disconnect had begun"),
        (survey.linkless, "they had no link"),
    ):
        if accounts:
            print(f"accounts left out, for {why}: {len(accounts)}")
    if survey.broken:
        print(f"BROKEN  {survey.broken} documents do not open although their accounts have data keys")
    return 1 if survey.broken else 0


async def _restore(asked: argparse.Namespace, settings: Settings, clock: Clock) -> int:
    if asked.into_live:
        check_file(settings.documents_url)
    async with opened(settings, clock) as stores:
        survey = await _surveyed(asked.file, stores)
        if survey.gone and not (survey.accounts or survey.ended or asked.without_accounts):
            raise Refused(
                f"KEYS_URL has no data key of any of its {len(survey.gone)} accounts: name the keys of the deployment "
                "that it was made of (by default they are beside DOCUMENTS_URL), or say --without-accounts"
            )
        if not asked.into_live and await stores.inner.list("", limit=1):
            raise Refused("DOCUMENTS_URL is not empty: name an empty place, or say --into-live")
        backup = Backup(asked.file, stores.vault, stores.keyset)
        restore = Restore(backup, survey, stores.sealed, stores.keys, _say)
        await restore.run()
    status = _report_survey(survey)
    print(f"restored: {_counts(restore.done)}")
    for key, reason in sorted(restore.unreadable.items()):
        print(f"BROKEN  {key} of the store stays as it is: {reason}")
    if survey.documents["apikeys"] and not asked.into_live:
        print(f"API keys are as they were at {survey.header.created_at}: revoke again what was revoked since.")
    return 1 if restore.unreadable else status


async def _surveyed(path: Path, stores: Stores) -> Survey:
    _say(f"reading {path}")
    return await Backup(path, stores.vault, stores.keyset).survey()


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> Parser:
    parser = Parser(prog="ops.backup", description="Make, check and restore backups of what the service keeps.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    parsers = {}
    for name, run, text in (
        ("create", _create, "write a backup of DOCUMENTS_URL to a new file"),
        ("verify", _verify, "read a backup to its end and say what of it can be restored"),
        ("restore", _restore, "write a backup's documents to DOCUMENTS_URL, which is empty"),
    ):
        parsers[name] = commands.add_parser(name, help=text)
        parsers[name].add_argument("file", metavar="FILE", type=Path)
        parsers[name].set_defaults(run=run)
    parsers["restore"].add_argument(
        "--into-live", action="store_true", help="DOCUMENTS_URL is in use: add what it lacks, set nothing back"
    )
    parsers["restore"].add_argument(
        "--without-accounts", action="store_true", help="go on although no account's data key is left"
    )
    return parser


def main(argv: list[str] | None = None, environ: Mapping[str, str] = os.environ, *, clock: Clock | None = None) -> int:
    """Returns the exit status: 0 all is well, 1 damage or no store, 2 refused."""
    asked = _parser().parse_args(argv)
    run: _Run = asked.run

    async def work() -> int:
        return await run(asked, load(environ), clock or SystemClock())

    try:
        return asyncio.run(work())
    except Damaged as damaged:
        print(f"DAMAGED  {asked.file}: {damaged}")
        return 1
    except (Refused, SettingsError) as refused:
        print(refused, file=sys.stderr)
    except Foreign as foreign:
        print(f"{asked.file} cannot be opened: {foreign}", file=sys.stderr)
    except OSError as error:
        print(f"{error.filename or asked.file}: {error.strerror or error}", file=sys.stderr)
    except StoreUnavailable as unavailable:
        print(f"{unavailable} Start again.", file=sys.stderr)
        return 1
    return 2


if __name__ == "__main__":
    sys.exit(main())
