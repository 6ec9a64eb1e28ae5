"""Linked accounts by the hundred, stored as a login would store them, without its scrypt and its round trips."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from common.clock import SystemClock
from common.passwords import hash_password
from common.settings import Settings
from functions.links import Link, LinkBook, identity_of, mask
from functions.providers.port import Account, Region
from functions.storage import open_storage
from functions.tokens import TokenKeeper, TokenSet
from sandbox.mybmw_accounts import PASSWORD
from sandbox.process import RunningSandbox

_PROVIDER, _REGION = "mybmw", Region.REST_OF_WORLD


@dataclass(frozen=True, slots=True)
class Linked:
    """An account of the simulated maker that a caller may use."""

    email: str
    account: str


async def link_all(settings: Settings, maker: RunningSandbox, principal: str, emails: Sequence[str]) -> list[Linked]:
    """Link each of ``emails`` for one caller, in the store of a service with these settings."""
    clock = SystemClock()
    documents, keys = open_storage(settings, clock)
    links, tokens = LinkBook(documents), TokenKeeper(documents, clock)
    password_hash = hash_password(PASSWORD)
    made = []
    try:
        for email in emails:
            identity = identity_of(principal, _PROVIDER, _REGION, email)
            account = Account(await links.account_id_for(identity), _PROVIDER, _REGION)
            given = maker.issue_tokens(email)
            ends = clock.utc() + timedelta(seconds=given["expires_in"])
            await keys.create(account.id, _PROVIDER, principal)
            session = TokenSet(given["access_token"], given["refresh_token"], ends, {"gcid": given["gcid"]})
            await tokens.save(account.id, session)
            await links.put(Link(account, principal, identity, mask(email), clock.utc(), password_hash))
            made.append(Linked(email, account.id))
    finally:
        await documents.aclose()
    return made
