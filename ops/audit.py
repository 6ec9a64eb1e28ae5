"""The audit trail, read and proven: docs/audit.md says what that is worth.

``python -m ops.audit verify [--chain X] [--anchor FILE]`` proves every chain, or those whose name begins with ``X``,
and exits 1 where one is not proven. ``python -m ops.audit list [--vehicle VIN] [--since ISO]`` prints entries. Both
read the store and the key from the service's own settings, and neither writes to the store.
"""

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from common.errors import StoreUnavailable
from common.settings import Settings, SettingsError, load
from common.stores.documents import Documents, open_documents
from functions.audit import HEAD, ROOT, AuditKey, Head, entry_key, head_key
from ops.audit_proof import GARBLED, Examined, Finding, Stored, examine, span

_PAGE = 1000
_AT_ONCE = 16
_CHAIN = re.compile(r"[0-9a-f]{64}")
_SEQ = re.compile(r"[0-9]{12}")


class Reader:
    """Reads chains, also while they are being written to."""

    def __init__(self, documents: Documents, key: AuditKey) -> None:
        self._documents = documents
        self._key = key

    async def chains(self) -> dict[str, list[str]]:
        """Every chain's documents, by the names that they have in it. Raises ValueError behind a key that is none."""
        chains: dict[str, list[str]] = {}
        for path in await self._list(ROOT):
            chain, _, name = path.removeprefix(f"{ROOT}/").partition("/")
            chains.setdefault(chain, []).append(name)
        return chains

    async def read(self, chain: str, names: Iterable[str]) -> Stored:
        """A chain whose documents were listed."""
        if _CHAIN.fullmatch(chain) is None:
            return Stored(ascii(chain), {}, None, tuple(names))
        numbers = {int(name) for name in names if _is_number(name)}
        # After the entries were listed: whatever entry is there, the head was at the one before when it was made.
        head_body = await self._body(head_key(chain))
        head = self._key.unseal(Head, head_body)
        if head is not None and head.seq > max(numbers, default=0):
            late = await self._list(f"{ROOT}/{chain}", after=entry_key(chain, max(numbers, default=0)))
            listed = {int(name) for name in (path.rpartition("/")[2] for path in late) if _is_number(name)}
            numbers |= {number for number in listed if number <= head.seq}
        bodies: dict[int, object] = {}
        ordered = sorted(numbers)
        for start in range(0, len(ordered), _AT_ONCE):
            some = ordered[start : start + _AT_ONCE]
            read = await asyncio.gather(*(self._body(entry_key(chain, number)) for number in some))
            bodies |= {number: body for number, body in zip(some, read, strict=True) if body is not None}
        strays = tuple(name for name in names if name != HEAD and not _is_number(name))
        return Stored(chain, bodies, head_body, strays)

    async def _list(self, prefix: str, after: str | None = None) -> list[str]:
        paths: list[str] = []
        while page := await self._documents.list(prefix, limit=_PAGE, after=after):
            paths += page
            after = page[-1]
        return paths

    async def _body(self, path: str) -> object | None:
        try:
            document = await self._documents.get(path)
        except StoreUnavailable:
            await self._documents.ping()  # raises where it is the store and not the document
            return GARBLED
        if document is None:
            return None
        body: object = document.body
        return body if isinstance(body, dict) else GARBLED


def _is_number(name: str) -> bool:
    return _SEQ.fullmatch(name) is not None and int(name) > 0


class Anchor:
    """The last entries of an earlier proof, in a file kept where those who can write to the store cannot."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            last: dict[str, tuple[int, str]] = json.loads(path.read_text()) if path.exists() else {}
            self._last = {chain: (int(seq), str(digest)) for chain, (seq, digest) in last.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no anchor") from error

    def findings(self, prefix: str, examined: Mapping[str, Examined]) -> list[Finding]:
        """What was proven then and is not there now."""
        found = []
        for chain, (seq, digest) in self._last.items():
            if chain not in examined and chain.startswith(prefix):
                found.append(Finding(chain, span(1, seq), "the whole chain was removed"))
            elif chain in examined:
                entry = examined[chain].entries.get(seq)
                if entry is None or entry.hash != digest:
                    found.append(Finding(chain, f"entry {seq}", "is not the one that was anchored"))
        return found

    def save(self, examined: Mapping[str, Examined]) -> None:
        """Take over what was proven now."""
        proven = {name: one.entries[max(one.entries)] for name, one in examined.items() if one.entries}
        last = self._last | {chain: (entry.seq, entry.hash) for chain, entry in proven.items()}
        fresh = self._path.with_name(f"{self._path.name}.new")
        fresh.write_text(json.dumps(last, indent=1, sort_keys=True) + "\n")
        fresh.replace(self._path)


async def _examine_all(documents: Documents, key: AuditKey, prefix: str) -> dict[str, Examined]:
    reader = Reader(documents, key)
    chains = {chain: names for chain, names in (await reader.chains()).items() if chain.startswith(prefix)}
    return {chain: examine(key, await reader.read(chain, names)) for chain, names in chains.items()}


def _verify(examined: Mapping[str, Examined], prefix: str, anchor: Anchor | None, *, is_keyed: bool) -> bool:
    """Print what was found; whether everything is proven."""
    findings = [finding for one in examined.values() for finding in one.findings]
    findings += anchor.findings(prefix, examined) if anchor is not None else []
    for finding in findings:
        print(finding)
    for one in examined.values():
        if one.was_interrupted and not one.findings:
            print(f"note    chain {one.chain}  entry {max(one.entries)}: the writer was stopped right after it")
    if prefix and not examined and not findings:
        print(f"There is no chain whose name begins with {prefix}.", file=sys.stderr)
        return False
    entries = sum(len(one.entries) for one in examined.values())
    verdict = f"NOT PROVEN, problems: {len(findings)}" if findings else "all proven"
    print(f"chains: {len(examined)}, entries: {entries}; {verdict}")
    if findings and not entries:
        print("Not one entry fits: is AUDIT_KEY the key under which they were written?", file=sys.stderr)
    if not is_keyed:
        print(
            "AUDIT_KEY is not set: this proves order and integrity only against those who cannot rewrite a whole chain."
        )
    if anchor is not None and not findings:
        anchor.save(examined)
    return not findings


_COLUMNS = ("at", "event", "operation", "state", "command", "caller", "account", "vehicle", "seq")


def _list(examined: Mapping[str, Examined], since: str) -> bool:
    """Print entries, oldest first; whether the chains they come from are proven."""
    entries = [entry for one in examined.values() for entry in one.entries.values() if entry.at >= since]
    entries.sort(key=lambda entry: (entry.at, entry.vehicle, entry.seq))
    rows = [[str(getattr(entry, name)) for name in _COLUMNS] for entry in entries]
    # Hashes in short: enough to tell apart, and `verify --chain` takes the beginning of a name.
    rows = [[cell[:12] if len(cell) == 64 else cell for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in [list(_COLUMNS), *rows]) for at in range(len(_COLUMNS))]
    for row in [list(_COLUMNS), *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    broken = [one.chain for one in examined.values() if one.findings]
    if broken:
        print(f"Not proven, see `verify`: {', '.join(broken)}", file=sys.stderr)
    return not broken


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ops.audit", description="Read and prove the audit trail.")
    commands = parser.add_subparsers(dest="command", required=True)
    verify = commands.add_parser("verify", help="prove the chains; exit 1 where one is not proven")
    verify.add_argument("--chain", default="", help="only chains whose name begins so")
    verify.add_argument("--anchor", type=Path, help="also prove that nothing is gone since FILE was written; renew it")
    shown = commands.add_parser("list", help="print entries, oldest first")
    shown.add_argument("--vehicle", metavar="VIN", help="only this vehicle's")
    shown.add_argument("--since", type=_utc, metavar="ISO", help="only from this time on; UTC if not said")
    return parser.parse_args(argv)


def _utc(text: str) -> str:
    """A time as entries hold it, so that the two can be compared as text."""
    at = datetime.fromisoformat(text)
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return at.isoformat(timespec="microseconds")


def _check_file(url: str) -> None:
    """Raise where there is no file: opening would make an empty one, of which everything is proven."""
    path = url.removeprefix("sqlite:///")
    if path != url and not Path(path).is_file():
        raise ValueError(f"there is no file {path}")


async def _run(asked: argparse.Namespace, settings: Settings) -> bool:
    key = AuditKey(settings.audit_key.encode() if settings.audit_key else None)
    documents = open_documents(settings.documents_url, gcs_endpoint=settings.gcs_endpoint)
    try:
        if asked.command == "list":
            prefix = key.pseudonym("vehicle", asked.vehicle) if asked.vehicle else ""
            return _list(await _examine_all(documents, key, prefix), asked.since or "")
        anchor = Anchor(asked.anchor) if asked.anchor is not None else None
        examined = await _examine_all(documents, key, asked.chain)
        return _verify(examined, asked.chain, anchor, is_keyed=settings.audit_key is not None)
    finally:
        await documents.aclose()


def main(argv: list[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Returns the exit status: 0 proven, 1 not, or not to be told."""
    asked = _arguments(argv)
    try:
        settings = load(environ)
        _check_file(settings.documents_url)
        return 0 if asyncio.run(_run(asked, settings)) else 1
    except (SettingsError, StoreUnavailable, ValueError, OSError) as problem:
        print(f"The trail cannot be read: {problem}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
