"""A car maker in memory, by hand, for unit tests: it counts what it is asked and fails when told.

It mirrors :mod:`functions.providers.port`. What it does over HTTP is the sandbox's business, not this one's.
"""

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from common.clock import Clock
from common.errors import AuthenticationFailed, CaptchaRequired, NotSupported, ProviderError, VehicleNotFound
from common.loops import needs_loop
from functions.providers.port import (
    Account,
    Command,
    CommandName,
    Credentials,
    Outcome,
    Progress,
    Provider,
    Receipt,
    SendPermit,
    Vehicle,
)
from functions.snapshot import Capabilities, FuelAndBattery, Openings, Snapshot, VehicleInfo
from functions.tokens import TokenSet

FIRST = "WBA00000000DEMO01"
SECOND = "WBA00000000DEMO02"
UNKNOWN_VIN = "WBA00000000DEMO99"
USERNAME = "owner@example.com"
PASSWORD = "planted-password-7Qx"
PNG = b"\x89PNG\r\n\x1a\n"

Hook = Callable[[], Awaitable[None]]
Send = Callable[[SendPermit], Receipt]


def vehicle(vin: str = FIRST) -> Vehicle:
    """An entry of the maker's list."""
    return Vehicle(vin, "BMW", "iX xDrive50", "ELECTRIC", {"year": 2022})


def bare_snapshot(vin: str = FIRST, at: datetime | None = None) -> Snapshot:
    """A car that says as little as a snapshot allows."""
    epoch = at or datetime.fromisoformat("2026-01-01T12:00:00+00:00")
    return Snapshot(VehicleInfo(vin, "BMW", "iX xDrive50", "ELECTRIC"), fetched_at=epoch, measured_at=None)


@dataclass
class FakeCar:
    """One car, whose state a test changes by assigning a new snapshot."""

    vehicle: Vehicle
    snapshot: Snapshot
    measured_at: datetime | None = None
    """When the car last measured; None: at the moment of each read."""


def fake_car(vin: str = FIRST) -> FakeCar:
    """A locked car that takes every command."""
    snapshot = replace(
        bare_snapshot(vin),
        openings=Openings(lock_state="LOCKED"),
        fuel_and_battery=FuelAndBattery(battery_percent=70),
        mileage_km=100,
        capabilities=Capabilities(commands={name.value: True for name in CommandName}),
    )
    return FakeCar(vehicle(vin), snapshot)


class Refused(ProviderError):
    """The base of this maker's failures."""


@dataclass
class FakeMaker:
    """One maker with one account and its cars."""

    clock: Clock
    cars: list[FakeCar] = field(default_factory=lambda: [fake_car()])
    passwords: dict[str, str] = field(default_factory=lambda: {USERNAME: PASSWORD})
    calls: Counter[str] = field(default_factory=Counter)
    before: dict[str, Hook] = field(default_factory=dict)
    """Run when a call has been counted and before it is answered."""
    captchas: list[str] = field(default_factory=list)
    """Those that have been spent."""
    sent: list[tuple[CommandName, Mapping[str, Any]]] = field(default_factory=list)
    """Commands that the maker has received."""
    permits: list[SendPermit] = field(default_factory=list)
    """Those that commands came with."""
    script: dict[str, deque[Any]] = field(default_factory=dict)

    def then(self, call: str, *answers: Any) -> None:
        """Answer the next calls with these: exceptions are raised, functions called, all else returned."""
        self.script.setdefault(call, deque()).extend(answers)

    def locks(self, state: str) -> None:
        """Have the first car say how it is locked."""
        car = self.cars[0]
        car.snapshot = replace(car.snapshot, openings=Openings(lock_state=state))

    def provider(self, name: str = "mybmw") -> Provider:
        """The bundle, with every capability."""
        return Provider(
            name=name,
            error=Refused,
            reads=self,
            log_in=self,
            images=self,
            image_views=("front_side",),
            commands=self,
            close=self._close,
        )

    async def log_in(self, credentials: Credentials) -> TokenSet:
        """Needs the right password and a captcha token that was never used."""
        scripted = await self._called("log_in")
        if scripted is not None:
            tokens: TokenSet = scripted
            return tokens
        if credentials.captcha_token is None:
            raise CaptchaRequired
        if credentials.captcha_token in self.captchas:
            raise AuthenticationFailed
        self.captchas.append(credentials.captcha_token)
        if self.passwords.get(credentials.username) != credentials.password:
            raise AuthenticationFailed
        number = self.calls["log_in"]
        return TokenSet(f"access-{number}", f"refresh-{number}", self.clock.utc() + timedelta(hours=1))

    async def forget(self, account_id: str) -> None:
        """Nothing is held."""
        await self._called("forget")

    async def list_vehicles(self, account: Account, *, forced: bool = False) -> tuple[Vehicle, ...]:
        """The cars, in order."""
        self.calls["list_vehicles, forced"] += forced
        scripted = await self._called("list_vehicles")
        return scripted if scripted is not None else tuple(car.vehicle for car in self.cars)

    async def read_vehicle(self, account: Account, vehicle: Vehicle, *, forced: bool = False) -> Snapshot:
        """A car's state, read now."""
        scripted = await self._called("read_vehicle")
        if scripted is not None:
            snapshot: Snapshot = scripted
            return snapshot
        car = self.car(vehicle.vin)
        now = self.clock.utc()
        return replace(car.snapshot, fetched_at=now, measured_at=car.measured_at or now)

    async def read_image(self, account: Account, vehicle: Vehicle, view: str) -> bytes:
        """The smallest thing that begins like a PNG, and the view."""
        scripted = await self._called("read_image")
        return scripted if scripted is not None else PNG + view.encode()

    def check(self, command: Command, snapshot: Snapshot) -> None:
        """By the car's capabilities."""
        if not snapshot.capabilities.commands.get(command.name.value):
            raise NotSupported

    async def send(self, account: Account, vehicle: Vehicle, command: Command, permit: SendPermit) -> Receipt:
        """Take the permit, count the command, accept it. A scripted function gets the permit instead."""
        self.permits.append(permit)
        scripted = await self._called("send")
        if callable(scripted):
            receipt: Receipt = scripted(permit)
            self.sent.append((command.name, command.params))
            return receipt
        await permit.recheck()
        permit.take()
        self.sent.append((command.name, command.params))
        return scripted if scripted is not None else Receipt(Outcome.ACCEPTED, "event-1")

    async def poll(self, account: Account, vehicle: Vehicle, command: Command, event_id: str) -> Progress:
        """Executed, unless the script says otherwise."""
        scripted = await self._called("poll")
        return scripted if scripted is not None else Progress(Outcome.EXECUTED)

    def car(self, vin: str) -> FakeCar:
        """The car with this VIN; raises VehicleNotFound."""
        found = next((car for car in self.cars if car.vehicle.vin == vin), None)
        if found is None:
            raise VehicleNotFound
        return found

    async def _called(self, call: str) -> Any:
        await needs_loop()
        self.calls[call] += 1
        if call in self.before:
            await self.before[call]()
        queue = self.script.get(call)
        answer = queue.popleft() if queue else None
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _close(self) -> None:
        await self._called("close")
