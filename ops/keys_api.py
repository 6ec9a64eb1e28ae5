"""The commands on API keys: ``new``, ``list``, ``revoke``, ``renew``."""

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from common.api_keys import TTL_S, KeyRecord
from common.callers import Scope
from ops.keys_book import Issued, KeyBook, Unreadable
from ops.keys_command import Subparsers, Tools

_UNITS: Final = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_DURATION = re.compile(r"([0-9]{1,5})([mhd])")
_COLUMNS = ("id", "name", "scopes", "created", "expires", "state", "principal")


def register(subparsers: Subparsers) -> None:
    """Add the commands."""
    new = subparsers.add_parser("new", help="make a key and print it, once")
    new.add_argument("name", metavar="NAME", help="what people call it")
    new.add_argument(
        "--scopes",
        type=_scopes,
        default=frozenset({Scope.READ}),
        metavar="LIST",
        help=f"what its holder may do: {', '.join(Scope)}; comma-separated, only `read` if not said",
    )
    new.add_argument("--expires", type=_lifetime, metavar="90d", help="how long it is valid; for ever if not said")
    new.add_argument("--principal", metavar="P", help="whose it is, as `list` shows it; somebody new's if not said")
    new.set_defaults(run=_new)
    subparsers.add_parser("list", help="show every key, without its secret").set_defaults(run=_list)
    revoke = subparsers.add_parser("revoke", help=f"end a key for good, everywhere within {TTL_S:.0f} s")
    revoke.add_argument("id", metavar="ID")
    revoke.set_defaults(run=_revoke)
    renew = subparsers.add_parser("renew", help="make a key like another one, which ends when the overlap is over")
    renew.add_argument("id", metavar="ID")
    renew.add_argument("--overlap", type=_duration, default=timedelta(days=7), metavar="7d", help="0d to end it now")
    renew.add_argument("--expires", type=_lifetime, metavar="90d", help="as long as the old one's if not said")
    renew.set_defaults(run=_renew)


async def _new(asked: argparse.Namespace, tools: Tools) -> int:
    async with tools.documents() as documents:
        book = KeyBook(documents, tools.clock)
        issued = await book.issue(asked.name, asked.scopes, valid_for=asked.expires, principal=asked.principal)
    _hand_over(issued)
    return 0


async def _list(_asked: argparse.Namespace, tools: Tools) -> int:
    async with tools.documents() as documents:
        keys = await KeyBook(documents, tools.clock).all()
    now = tools.clock.utc()
    rows = [_COLUMNS, *(_row(key, now) for key in keys)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_COLUMNS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if not keys:
        _say(f"There are no keys in {tools.settings.documents_url}.")
    return 0


async def _revoke(asked: argparse.Namespace, tools: Tools) -> int:
    async with tools.documents() as documents:
        record = await KeyBook(documents, tools.clock).revoke(asked.id)
    _say(f"The key {record.id} ({record.name}) is revoked. Within {TTL_S:.0f} s it is refused everywhere.")
    if record.replaced_by is not None:
        _say(f"The key that replaced it, {record.replaced_by}, still works.")
    return 0


async def _renew(asked: argparse.Namespace, tools: Tools) -> int:
    async with tools.documents() as documents:
        book = KeyBook(documents, tools.clock)
        issued, old = await book.renew(asked.id, overlap=asked.overlap, valid_for=asked.expires)
    _say(f"The key {old.id} ends at {_time(old.expires_at)} UTC.")
    _hand_over(issued)
    return 0


def _hand_over(issued: Issued) -> None:
    """Print the key, last: whoever cannot read it knows by then which one to revoke."""
    record = issued.record
    _say(f"The key {record.id} ({record.name}) of {record.principal}. It will not be shown again:")
    print(issued.text, flush=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _row(key: KeyRecord | Unreadable, now: datetime) -> Sequence[str]:
    if isinstance(key, Unreadable):
        return (key.id, "", "", "", "", "unreadable", "")
    scopes = ",".join(scope for scope in Scope if scope in key.scopes)
    return (key.id, key.name, scopes, _time(key.created_at), _time(key.expires_at), key.state(now), key.principal)


def _time(at: datetime | None) -> str:
    return "never" if at is None else f"{at:%Y-%m-%d %H:%M}"


def _scopes(text: str) -> frozenset[Scope]:
    names = text.split(",")
    if not set(names) <= {scope.value for scope in Scope}:
        raise argparse.ArgumentTypeError(f"scopes are some of {','.join(Scope)}")
    return frozenset(map(Scope, names))


def _duration(text: str) -> timedelta:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError("a duration is a number and m, h or d, like 90d")
    return int(found[1]) * _UNITS[found[2]]


def _lifetime(text: str) -> timedelta:
    duration = _duration(text)
    if not duration:
        raise argparse.ArgumentTypeError("a key must be valid for some time")
    return duration
