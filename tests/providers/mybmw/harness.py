"""What the tests of BMW's provider share: the provider with everything around it, recorded cars, a permit."""

import asyncio
import itertools
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from bimmer_connected.tests import ALL_CHARGING_SETTINGS, ALL_PROFILES, ALL_STATES

from common.clock import ManualClock
from common.errors import AccountNotFound, ApiError
from functions.providers.mybmw.mapping import to_snapshot, to_vehicle
from functions.providers.mybmw.provider import build
from functions.providers.port import (
    Account,
    Command,
    CommandName,
    Credentials,
    LogIn,
    Outcome,
    Progress,
    Provider,
    ReadImages,
    Receipt,
    Region,
    SendCommands,
    Vehicle,
)
from functions.snapshot import Snapshot
from functions.tokens import TokenKeeper, TokenSet
from sandbox.process import RunningSandbox

IMPATIENT = pytest.mark.parametrize("request_timeout_s", [1.0], ids=["impatient"])
"""For tests in which BMW does not answer."""

FETCHED_AT = datetime(2024, 1, 20, 12, 0, tzinfo=UTC)
USER = "demo@example.com"
PASSWORD = "demo-password"
IX = "WBA00000000DEMO01"
"""The car that can do everything."""
_captchas = itertools.count()


class PermitSpentError(ApiError):
    """What this test's permit raises when there is nothing left to spend."""

    code, status = "SPENT", 400


@dataclass
class Permit:
    """Leave to send ``left`` requests; ``log`` tells what the transport did with it."""

    left: int = 1
    log: list[str] = field(default_factory=list)
    ended: bool = False
    """The account has ended since the command was begun."""

    async def recheck(self) -> None:
        if self.ended:
            raise AccountNotFound

    def take(self) -> None:
        self.log.append("take")
        if self.left < 1:
            raise PermitSpentError
        self.left -= 1

    def refused(self) -> None:
        self.log.append("refused")
        self.left += 1


@dataclass
class Bmw:
    """The provider under test and everything around it."""

    provider: Provider
    sandbox: RunningSandbox
    keeper: TokenKeeper
    clock: ManualClock
    requests: list[tuple[str, str, float]]
    """What the transport told its observer."""
    account: Account = field(default_factory=lambda: Account("acc_1", "mybmw", Region.REST_OF_WORLD))

    @property
    def logins(self) -> LogIn:
        assert self.provider.log_in is not None
        return self.provider.log_in

    @property
    def commands(self) -> SendCommands:
        assert self.provider.commands is not None
        return self.provider.commands

    @property
    def images(self) -> ReadImages:
        assert self.provider.images is not None
        return self.provider.images

    async def link(self, user: str = USER, *, region: str = "row", lives_s: float = 3600.0) -> TokenSet:
        """Store tokens of a user for the account, without the ceremony of a login."""
        issued = self.sandbox.issue_tokens(user, region)
        tokens = TokenSet(
            issued["access_token"],
            issued["refresh_token"],
            self.clock.utc() + timedelta(seconds=lives_s),
            {"gcid": issued["gcid"], "session_id": "a-session"},
        )
        await self.keeper.save(self.account.id, tokens)
        self.sandbox.zero_stats()
        return tokens

    async def until_met(self, fault: str) -> None:
        """Return once a request has met a fault of that kind; TimeoutError where none does."""
        async with asyncio.timeout(20):
            while not self.sandbox.stats()["faults_injected"].get(fault):  # noqa: ASYNC110 - it is met in another process
                await asyncio.sleep(0.01)

    async def send(self, name: CommandName, /, vin: str = IX, permit: Permit | None = None, **params: Any) -> Receipt:
        return await self.commands.send(self.account, vehicle(vin), Command(name, params), permit or Permit())

    async def poll(self, name: CommandName, event_id: str | None, /, vin: str = IX, **params: Any) -> Progress:
        assert event_id is not None
        return await self.commands.poll(self.account, vehicle(vin), Command(name, params), event_id)

    async def poll_to_the_end(
        self, name: CommandName, event_id: str | None, /, vin: str = IX, **params: Any
    ) -> Progress:
        """With the sandbox's default of these tests each poll advances a command one stage."""
        while True:
            progress = await self.poll(name, event_id, vin, **params)
            if progress.outcome in (Outcome.EXECUTED, Outcome.FAILED):
                return progress

    def asked(self, part: str) -> int:
        """How many requests the sandbox has seen whose route has ``part`` in it, answered or not."""
        return sum(count for route, count in self.sandbox.stats()["requests"].items() if part in route)


def vehicle(vin: str = IX) -> Vehicle:
    """An entry of the recorded accounts."""
    profile = dict(ALL_PROFILES[vin])
    profile.pop("vin")
    return to_vehicle(vin, profile)


def credentials(username: str = USER, password: str = PASSWORD, region: Region = Region.REST_OF_WORLD) -> Credentials:
    """A login with a captcha token that nobody has used before."""
    return Credentials(username, password, region, f"captcha-{next(_captchas)}")


def snapshot_of(vin: str, region: Region = Region.REST_OF_WORLD, **changes: Any) -> Snapshot:
    """The snapshot of a recorded car; ``changes`` replace parts of what was recorded."""
    data = {**ALL_STATES[vin], "charging_settings": ALL_CHARGING_SETTINGS.get(vin), **changes}
    return to_snapshot(vehicle(vin), data, fetched_at=FETCHED_AT, region=region)


async def body_of(bmw: Bmw, command: Command, vin: str = IX) -> Any:
    """What the command's request carries, as it goes over the wire; everything else is the sandbox's."""
    seen: list[bytes] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        length = request.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
        body = await reader.readexactly(int(length or 0))
        if request.startswith(b"POST"):
            seen.append(body)
        url = httpx.URL(bmw.sandbox.origin)
        above, below = await asyncio.open_connection(url.host, url.port)
        below.write(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + body)
        writer.write(await above.read())
        below.close()
        writer.close()

    listening = await asyncio.start_server(relay, "127.0.0.1", 0)
    origin = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    provider = build(tokens=bmw.keeper, clock=bmw.clock, origin=origin)
    assert provider.commands is not None
    async with listening:
        await provider.commands.send(bmw.account, vehicle(vin), command, Permit())
    await provider.close()
    [body] = seen
    return json.loads(body)
