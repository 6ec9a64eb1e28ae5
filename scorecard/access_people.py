"""Callers of whom each has a key, an account and a car that no one else has, and what a reply shows of them."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from common.callers import ALL_SCOPES, Scope
from common.clock import Clock, SystemClock
from common.passwords import hash_password
from common.settings import Settings
from functions.links import Link, LinkBook, identity_of, mask
from functions.providers.port import Account, Region
from functions.storage import open_storage
from functions.tokens import TokenKeeper, TokenSet
from ops.keys_book import KeyBook
from ops.stack import master_key
from sandbox.mybmw_accounts import PASSWORD
from sandbox.process import RunningSandbox

DEMO_VINS = ("WBA00000000DEMO01", "WBA00000000DEMO02", "WBA00000000DEMO03")
"""Cars of each ``user-<n>``: many callers own a car of the same VIN, which must still be another car."""
NOBODYS_ACCOUNT = "acc_" + "N" * 22
NOBODYS_VIN = "WBA0000000NOBODY1"
_PROVIDER, _REGION = "mybmw", Region.REST_OF_WORLD
_SHOWN = re.compile(
    r"acc_[A-Za-z0-9]{22}|cmd_[A-Za-z0-9]{22}_[A-Za-z0-9]{22}|key\|[A-Za-z0-9]{22}|draiv_\w{22}"
    r"|\bW(?:BA|BY|MW|Z1)[A-Z0-9]{14}\b|Car of caller \d+|\b4\d\.\d{4}7\b|[\w-]+@example\.com|\w\*\*\*@\w\*\*\*\.com"
)
"""Whatever names somebody or something of his: ids, VINs, a car's name, its latitude, an address, a label."""


@dataclass(frozen=True, slots=True)
class Person:
    """A caller and what is his alone."""

    key: str = field(repr=False)
    principal: str
    scopes: frozenset[Scope]
    email: str
    account: str
    vins: tuple[str, ...]
    """The cars that he asks about; those were marked as his."""
    all_vins: frozenset[str]
    """What the maker lists for him."""
    name_of_car: str
    latitude: float

    @property
    def headers(self) -> dict[str, str]:
        """What he proves himself by."""
        return {"x-api-key": self.key}

    @property
    def own(self) -> frozenset[str]:
        """What a reply may show him, apart from his commands' ids."""
        marks = {self.account, self.principal, self.email, mask(self.email), self.name_of_car, str(self.latitude)}
        return self.all_vins | marks


def shown(reply: bytes) -> set[str]:
    """Everything in a reply that names somebody or something of his."""
    return set(_SHOWN.findall(reply.decode("utf-8", "replace")))


async def enrol(
    settings: Settings,
    maker: RunningSandbox,
    scopes: Sequence[frozenset[Scope]],
    *,
    fleets: int = 0,
    first: int = 0,
    clock: Clock | None = None,
) -> list[Person]:
    """A key and a linked account for each of ``scopes``, stored as a login would store them, without its scrypt.

    The first ``fleets`` own cars of VINs of their own, all others share those of ``user-<n>``. ``first`` numbers them.
    """
    clock = clock or SystemClock()
    documents, account_keys = open_storage(settings, clock)
    book, links, tokens = KeyBook(documents, clock), LinkBook(documents), TokenKeeper(documents, clock)
    password_hash = hash_password(PASSWORD)
    people = []
    try:
        for number, granted in enumerate(scopes, first):
            email = (
                f"fleet-{number - first + 1}@example.com" if number - first < fleets else f"user-{number}@example.com"
            )
            issued = await book.issue(f"caller {number}", granted)
            principal = issued.record.principal
            identity = identity_of(principal, _PROVIDER, _REGION, email)
            account = Account(await links.account_id_for(identity), _PROVIDER, _REGION)
            given = maker.issue_tokens(email)
            ends = clock.utc() + timedelta(seconds=given["expires_in"])
            await account_keys.create(account.id, _PROVIDER, principal)
            gave = TokenSet(given["access_token"], given["refresh_token"], ends, {"gcid": given["gcid"]})
            await tokens.save(account.id, gave)
            await links.put(Link(account, principal, identity, mask(email), clock.utc(), password_hash))
            people.append(_person(issued.text, principal, granted, email, account.id, number))
    finally:
        await documents.aclose()
    return people


async def with_scopes(settings: Settings, person: Person, scopes: Sequence[frozenset[Scope]]) -> list[Person]:
    """The same person with other keys: what is his stays his, what he may do is the key's."""
    documents, _ = open_storage(settings, SystemClock())
    try:
        book = KeyBook(documents, SystemClock())
        keys = [await book.issue("another key", granted, principal=person.principal) for granted in scopes]
    finally:
        await documents.aclose()
    return [replace(person, key=key.text, scopes=key.record.scopes) for key in keys]


def mark_cars(maker: RunningSandbox, people: Iterable[Person]) -> None:
    """Give each person's cars a name and a place that no other car has."""
    for person in people:
        place = {"coordinates": {"latitude": person.latitude, "longitude": 11.5}, "heading": 0}
        for vin in person.vins:
            sections: dict[str, object] = {"profile": {"model": person.name_of_car}, "state": {"location": place}}
            maker.patch_car(person.email, vin, **sections)


@contextmanager
def a_store() -> Iterator[dict[str, str]]:
    """The environment variables of a store of its own, gone afterwards."""
    with TemporaryDirectory() as folder:
        yield {"TOKEN_KEYS": master_key(), "DOCUMENTS_URL": f"sqlite:///{Path(folder)}/documents.db"}


def everybody(count: int) -> list[frozenset[Scope]]:
    """Scopes for ``count`` callers who may do everything."""
    return [ALL_SCOPES] * count


def _person(key: str, principal: str, scopes: frozenset[Scope], email: str, account: str, number: int) -> Person:
    size = int(email.removeprefix("fleet-").partition("@")[0]) if email.startswith("fleet-") else 0
    fleet = tuple(f"WBA00000000D{index:05d}" for index in range(1, size + 1))
    recorded = {*DEMO_VINS, *(f"WBA00000000DEMO0{index}" for index in (4, 5))}
    recorded |= {"WBY00000000REXI01", "WBY000000NOREXI01", "WBA00000000000F31", "WZ100000000000J29"}
    return Person(
        key=key,
        principal=principal,
        scopes=scopes,
        email=email,
        account=account,
        vins=(fleet[-1],) if fleet else (DEMO_VINS[number % len(DEMO_VINS)],),
        all_vins=frozenset(fleet or recorded),
        name_of_car=f"Car of caller {number}",
        latitude=round(40 + number * 1e-4 + 7e-5, 5),
    )
