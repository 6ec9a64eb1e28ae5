"""Deletes what has expired from the document store, for stores that follow no rules of their own: SQLite files.

``python -m ops.sweep [--dry-run]`` works on the stores that the service's own settings name, beside the service, and is
made for a daily cron job; docs/deployment.md says what goes when. A document that was changed since it was read is
left, and so is one that does not open or does not say how old it is. Exits with 0 when all is well, with 1 where a
document does not open or a store cannot be reached, with 2 and one line where it is asked for what cannot be done.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from common.clock import Clock, SystemClock
from common.crypto.errors import SealBroken
from common.errors import StoreUnavailable
from common.settings import SettingsError, load
from common.stores.documents import Documents, VersionConflict
from ops.backup_stores import check_file, opened
from ops.keys_command import Parser, Refused
from ops.retention import SWEPT, Swept

_PAGE: Final = 500
_AT_ONCE: Final = 16


@dataclass
class Outcome:
    """What became of the documents that may leave."""

    deleted: Counter[str] = field(default_factory=Counter)
    """By collection; in a dry run those that would be."""
    kept: int = 0
    """Not old enough, or changed meanwhile."""
    undated: int = 0
    """They do not say how old they are."""
    gone: int = 0
    """Their account has no data key here, so nobody can tell how old they are."""
    broken: dict[str, str] = field(default_factory=dict)
    """Those that do not open, and why."""


class Sweep:
    """One sweep of ``documents``, as the service has them; ``stored`` are the same as they are stored, sealed."""

    def __init__(self, documents: Documents, stored: Documents, now: datetime, *, dry_run: bool = False) -> None:
        self._documents = documents
        self._stored = stored
        self._now = now
        self._dry_run = dry_run
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self.outcome = Outcome()

    async def run(self) -> Outcome:
        """Look at everything that may leave. Raises StoreUnavailable; what is done by then stays done."""
        for row in SWEPT:
            after: str | None = None
            while page := await self._stored.list(row.collection, limit=_PAGE, after=after):
                await asyncio.gather(*(self._look_at(row, key) for key in page))
                after = page[-1]
        return self.outcome

    async def _look_at(self, row: Swept, key: str) -> None:
        async with self._turns:
            try:
                document = await self._documents.get(key)
            except SealBroken as broken:
                self.outcome.broken[key] = broken.reason
                return
            if document is None:
                # Not deleted: with another deployment's KEYS_URL this would be every document of every account.
                # Asked for first: `+=` would lose what others count meanwhile.
                is_there = await self._stored.get(key) is not None
                self.outcome.gone += is_there
            elif row.has_ended(document.body, self._now):
                await self._delete(row, key, document.version)
            else:
                self.outcome.kept += 1
                self.outcome.undated += row.last_moment(document.body) is None

    async def _delete(self, row: Swept, key: str, version: str) -> None:
        try:
            if self._dry_run or await self._stored.delete(key, version):
                self.outcome.deleted[row.collection] += 1
        except VersionConflict:
            self.outcome.kept += 1


def _report(outcome: Outcome, *, dry_run: bool) -> int:
    counts = ", ".join(f"{count} {name}" for name, count in sorted(outcome.deleted.items())) or "nothing"
    print(f"{'would delete' if dry_run else 'deleted'}: {counts}")
    print(f"kept: {outcome.kept}")
    if outcome.undated:
        print(f"of these, without a date: {outcome.undated}")
    if outcome.gone:
        print(f"left, of accounts without a data key: {outcome.gone}")
    for key, reason in sorted(outcome.broken.items()):
        print(f"BROKEN  {key}: {reason}")
    return 1 if outcome.broken else 0


async def _run(environ: Mapping[str, str], clock: Clock, *, dry_run: bool) -> int:
    settings = load(environ)
    check_file(settings.documents_url)
    async with opened(settings, clock) as stores:
        outcome = await Sweep(stores.sealed, stores.inner, clock.utc(), dry_run=dry_run).run()
    return _report(outcome, dry_run=dry_run)


def main(argv: list[str] | None = None, environ: Mapping[str, str] = os.environ, *, clock: Clock | None = None) -> int:
    """Returns the exit status: 0 all is well, 1 damage or no store, 2 refused."""
    parser = Parser(prog="ops.sweep", description="Delete from DOCUMENTS_URL what has expired.")
    parser.add_argument("--dry-run", action="store_true", help="only count what would be deleted")
    asked = parser.parse_args(argv)
    try:
        return asyncio.run(_run(environ, clock or SystemClock(), dry_run=asked.dry_run))
    except (Refused, SettingsError) as refused:
        print(refused, file=sys.stderr)
    except StoreUnavailable as unavailable:
        print(f"{unavailable} Start again.", file=sys.stderr)
        return 1
    return 2


if __name__ == "__main__":
    sys.exit(main())
