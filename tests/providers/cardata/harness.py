"""What the tests of CarData's provider share: the provider with everything around it, and signals by hand."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from common.clock import ManualClock
from common.stores.documents import Documents
from functions.providers.cardata.provider import CarData
from functions.providers.cardata.signals import Signal, Signals, Via, merge
from functions.providers.port import Account, Region, Vehicle
from functions.tokens import TokenKeeper, TokenSet
from sandbox.cardata_process import RunningCarData

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
"""A Monday; where the sandbox's clock and the provider's begin."""
X1, I4, X3 = (f"WBA00000000DEMO{number}" for number in (11, 12, 13))


@dataclass
class Bench:
    """The provider under test and everything around it; both clocks move together."""

    cardata: CarData
    sandbox: RunningCarData
    keeper: TokenKeeper
    documents: Documents
    clock: ManualClock
    requests: list[tuple[str, str, float]]
    """What the transport told its observer."""
    account: Account = field(default_factory=lambda: Account("acc_1", "cardata", Region.REST_OF_WORLD))

    async def link(self, gcid: str | None = None, account: Account | None = None) -> TokenSet:
        """Store tokens of a customer for an account, without a device flow."""
        customer = self.sandbox.demo if gcid is None else self.sandbox.control("GET", f"customers/{gcid}")
        issued = self.sandbox.issue_tokens(customer["gcid"])
        tokens = TokenSet(
            issued["access_token"],
            issued["refresh_token"],
            self.clock.utc() + timedelta(seconds=issued["expires_in"]),
            {"gcid": customer["gcid"], "client_id": customer["client_id"], "id_token": issued["id_token"]},
        )
        await self.keeper.save((account or self.account).id, tokens)
        return tokens

    def advance(self, seconds: float) -> None:
        """Let time pass, here and at BMW."""
        self.clock.advance(seconds)
        self.sandbox.advance(seconds)

    def used(self) -> int:
        """What the demo customer has used of his day, says BMW."""
        used: int = self.sandbox.stats()["quota_used"].get(self.sandbox.demo["gcid"], 0)
        return used

    async def vehicle(self, vin: str) -> Vehicle:
        return next(one for one in await self.cardata.vehicles.list_vehicles(self.account) if one.vin == vin)


def said(
    value: Any,
    unit: str | None = None,
    *,
    at: datetime | None = NOON,
    received_at: datetime = NOON,
    via: Via = "rest",
) -> Signal:
    """One signal."""
    return Signal(value, unit, at, received_at, via)


def signals(values: Mapping[str, Any], *, at: datetime | None = NOON, received_at: datetime = NOON) -> Signals:
    """Signals of one moment, merged as the store would; a value is bare, a (value, unit), or a signal."""
    incoming = {}
    for name, value in values.items():
        if isinstance(value, Signal):
            incoming[name] = value
        else:
            raw, unit = value if isinstance(value, tuple) else (value, None)
            incoming[name] = said(raw, unit, at=at, received_at=received_at)
    return merge({}, incoming)


def car(drivetrain: str = "PLUGIN_HYBRID", **profile: Any) -> Vehicle:
    """A car of the list."""
    return Vehicle("WBA00000000DEMO13", "BMW", "X3 30e xDrive", drivetrain, {"countryCode": "DE", **profile})
