"""API keys for tests, made as an operator makes them."""

import asyncio
from collections.abc import Mapping

from common.callers import ALL_SCOPES, Scope
from common.clock import SystemClock
from common.settings import Environment, load
from ops.keys_book import KeyBook
from ops.keys_command import open_store


def issued_key(environ: Mapping[str, str], environment: Environment | None = None, *scopes: Scope) -> str:
    """A new key for a new principal in the store of a service with these variables; by default for everything."""

    async def issue() -> str:
        store = open_store(load(environ, environment))
        try:
            issued = await KeyBook(store, SystemClock()).issue("test", frozenset(scopes) or ALL_SCOPES)
        finally:
            await store.aclose()
        return issued.text

    return asyncio.run(issue())
