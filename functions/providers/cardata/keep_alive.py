"""Keeps every link alive: ``python -m functions.providers.cardata.keep_alive``, which a scheduler runs daily.

A refresh token dies 14 days after it was given, and each renewal gives a new one. The stream worker renews hourly; this
is for links whose stream is not served. Exits with 1 where a link could not be looked after and is not dead.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from common.clock import Clock, SystemClock
from common.errors import ApiError, RelinkRequired
from common.logs import EventLog, configure
from common.settings import VERSION, Settings, SettingsError, load
from functions.providers.cardata.auth_manager import AuthManager, ends_soon, is_keep_alive_due
from functions.providers.cardata.provider import NAME, assemble
from functions.providers.cardata.stream_index import StreamIndex
from functions.providers.cardata.stream_settings import StreamSettings, load_stream
from functions.providers.port import Account, Region
from functions.storage import open_storage
from functions.tokens import TokenKeeper

_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Kept:
    """How many links there were of each kind."""

    renewed: int = 0
    not_due: int = 0
    dead: int = 0
    """Their owners must link them again."""
    failed: int = 0
    """To be tried again."""


class KeepAlive:
    """Renews the tokens of each account that were not renewed today."""

    def __init__(
        self, index: StreamIndex, auth: AuthManager, tokens: TokenKeeper, clock: Clock, events: EventLog
    ) -> None:
        self._index = index
        self._auth = auth
        self._tokens = tokens
        self._clock = clock
        self._events = events

    async def run(self) -> Kept:
        """Look after every link once. Raises StoreUnavailable where they cannot even be listed."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def look_after(account_id: str) -> str:
            async with turns:
                return await self._look_after(account_id)

        outcomes = await asyncio.gather(*[look_after(account_id) for account_id in await self._index.accounts()])
        return Kept(*[outcomes.count(outcome) for outcome in ("renewed", "not_due", "dead", "failed")])

    async def _look_after(self, account_id: str) -> str:
        try:
            health = await self._tokens.health(account_id)
            if health is None or health.needs_relink:
                return "dead"
            now = self._clock.utc()
            if ends_soon(health, now):
                self._events.emit("link_ends_soon", "WARNING", account=account_id, provider=NAME)
            if not is_keep_alive_due(health, now):
                return "not_due"
            await self._auth.keep_alive(Account(account_id, NAME, Region.REST_OF_WORLD))
        except RelinkRequired:
            self._events.emit("link_has_ended", "WARNING", account=account_id, provider=NAME)
            return "dead"
        except ApiError as error:
            self._events.emit("link_not_renewed", "WARNING", account=account_id, code=error.code)
            return "failed"
        return "renewed"


async def keep_alive(settings: Settings, stream: StreamSettings, clock: Clock) -> Kept:
    """One round, from the settings. Raises ValueError, StoreUnavailable."""
    output = configure(
        level=settings.log_level,
        project_id=settings.google_cloud_project,
        environment=settings.environment,
        service="draiv-cardata-keep-alive",
        version=VERSION,
        revision=settings.k_revision,
    )
    events = EventLog(output, clock, strict=settings.environment == "development")
    documents, _ = open_storage(settings, clock)
    tokens = TokenKeeper(documents, clock)
    cardata = assemble(tokens=tokens, documents=documents, clock=clock, auth_origin=stream.auth_origin)
    try:
        kept = await KeepAlive(StreamIndex(documents), cardata.auth, tokens, clock, events).run()
    finally:
        await tokens.aclose()
        await cardata.provider.close()
        await documents.aclose()
    for outcome, count in (("renewed", kept.renewed), ("dead", kept.dead), ("failed", kept.failed)):
        events.emit("links_kept_alive", provider=NAME, outcome=outcome, count=count)
    return kept


def main(environ: Mapping[str, str]) -> int:
    """The exit status."""
    try:
        kept = asyncio.run(keep_alive(load(environ), load_stream(environ), SystemClock()))
    except (SettingsError, ValueError, ApiError) as bad:
        sys.stderr.write(f"cardata keep-alive: {bad}\n")
        return 2
    return 1 if kept.failed else 0


if __name__ == "__main__":
    sys.exit(main(os.environ))
