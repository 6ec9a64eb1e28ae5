"""The planner on live facts: looks up what :mod:`.planner` decides on, and spends nothing."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from common.clock import Clock
from common.loops import needs_loop
from functions.providers.cardata import descriptors as d
from functions.providers.cardata.auth_manager import AuthManager
from functions.providers.cardata.garage_store import GarageBook
from functions.providers.cardata.planner import Situation, decide
from functions.providers.cardata.quota import QuotaLedger
from functions.providers.cardata.signal_store import StreamWatch
from functions.providers.cardata.signals import Signals, SignalStore
from functions.providers.cardata.values import Nothing, word
from functions.providers.cardata.vehicle_manager import recalled
from functions.providers.port import Account, ReadPlan, Vehicle
from functions.snapshot import Snapshot

LOOKED_UP_FOR_S: Final = 5.0
"""How long a situation is trusted that says to wait: reads that come in a row need not look it up each."""
SILENT_WHILE_CHARGING: Final = timedelta(minutes=30)
"""A stream that has not told a charging car's state of charge for so long is not bringing it."""
_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_MAX_REMEMBERED: Final = 10_000
_MAYBE_CHARGING: Final = frozenset({d.CHARGING_ACTIVE, "INITIALIZATION"})


@dataclass(frozen=True, slots=True)
class _Remembered:
    situation: Situation
    until_s: float


class Planner:
    """Implements :class:`functions.providers.port.PlanReads`."""

    def __init__(
        self,
        auth: AuthManager,
        ledger: QuotaLedger,
        garages: GarageBook,
        signals: SignalStore,
        streams: StreamWatch,
        clock: Clock,
    ) -> None:
        self._auth = auth
        self._ledger = ledger
        self._garages = garages
        self._signals = signals
        self._streams = streams
        self._clock = clock
        self._remembered: OrderedDict[tuple[str, str], _Remembered] = OrderedDict()

    async def plan(
        self,
        account: Account,
        vehicle: Vehicle,
        held: Snapshot | None,  # noqa: ARG002 - the port's; what counts is when a request was last made, by anybody
        *,
        forced: bool,
    ) -> ReadPlan:
        """What a read should do now. Raises RelinkRequired, StoreUnavailable.

        Neither ``cache`` nor ``stream`` promises that anything is held: the day may end before the first reading.
        """
        remembered = self._remembered.get((account.id, vehicle.vin))
        if remembered is not None and not forced and self._clock.monotonic() < remembered.until_s:
            plan = decide(replace(remembered.situation, now=self._clock.utc()), forced=False)
            if plan.source != "poll":
                return plan
        await needs_loop()
        situation = await self._situation(account, vehicle)
        self._remember((account.id, vehicle.vin), situation)
        return decide(situation, forced=forced)

    async def recall(self, account: Account, vehicle: Vehicle) -> Snapshot | None:
        """The newest that is known from requests and from the stream, for nothing."""
        await needs_loop()
        return recalled(vehicle, await self._signals.load(account.id, vehicle.vin))

    async def quota(self, account: Account) -> Mapping[str, Any]:
        """``{"limit", "used", "remaining", "reserved", "resets_at"}`` of the customer's day."""
        await needs_loop()
        spending = await self._ledger.look(await self._auth.gcid(account))
        return spending.shown(self._clock.utc())

    def spent(self, account: Account, vehicle: Vehicle) -> None:
        """A request has been made: what is remembered is not true any more, for none of the customer's cars."""
        self._remembered.pop((account.id, vehicle.vin), None)

    async def _situation(self, account: Account, vehicle: Vehicle) -> Situation:
        # Not with usable tokens: while BMW's login is down, what is known must go on being served.
        gcid = await self._auth.gcid(account)
        spending, garage, signals, streams_until = await asyncio.gather(
            self._ledger.look(gcid),
            self._garages.load(account.id),
            self._signals.load(account.id, vehicle.vin),
            self._streams.until(account.id),
        )
        others = await asyncio.gather(
            *[self._signals.load(account.id, vin) for vin in garage.vins if vin != vehicle.vin]
        )
        now = self._clock.utc()
        read_at, failed_at = _since(signals, d.READ), _since(signals, d.FAILED)
        return Situation(
            now=now,
            spending=spending,
            cars=1 + len(others),
            read_at=read_at,
            is_charging=_is_charging(signals),
            will_hardly_charge=_will_hardly_charge(signals, now),
            others_charging=sum(map(_is_charging, others)),
            others_hardly=sum(_will_hardly_charge(other, now) for other in others),
            streams_until=streams_until if _is_streamed(signals, now) else None,
            failed_at=failed_at if failed_at and (read_at is None or failed_at > read_at) else None,
        )

    def _remember(self, key: tuple[str, str], situation: Situation) -> None:
        self._remembered[key] = _Remembered(situation, self._clock.monotonic() + LOOKED_UP_FOR_S)
        self._remembered.move_to_end(key)
        while len(self._remembered) > _MAX_REMEMBERED:
            self._remembered.popitem(last=False)


def _since(signals: Signals, name: str) -> datetime | None:
    signal = signals.get(name)
    return None if signal is None else signal.counts_from


def _is_charging(signals: Signals) -> bool:
    status = word(signals.get(d.CHARGING_STATUS))
    return status.nothing is not Nothing.ABSENT and status.value in _MAYBE_CHARGING


def _will_hardly_charge(signals: Signals, now: datetime) -> bool:
    """Whether it has charged today and has ended, or was read and said nothing of a battery."""
    if _is_charging(signals):
        return False
    ended = _since(signals, d.CHARGE_ENDED)
    if ended is not None and ended.date() == now.date():
        return True
    return d.READ in signals and not any(name in signals for name in (*d.SOC, d.CHARGING_STATUS))


def _is_streamed(signals: Signals, now: datetime) -> bool:
    """Whether the stream brings what matters most: the state of charge of a car that has one.

    The owner chooses what is streamed; a stream without it must not keep a reading from being made, nor one whose
    latest word was overtaken by a request. A car that charges has more to say every few minutes.
    """
    matters = [signals[name] for name in d.SOC if name in signals]
    if not matters:
        others = [signals[d.CHARGING_STATUS]] if d.CHARGING_STATUS in signals else signals.values()
        return any(signal.via == "stream" for signal in others)
    newest = max(matters, key=lambda signal: (signal.counts_from or _NEVER, signal.via == "stream"))
    return newest.via == "stream" and (not _is_charging(signals) or now - newest.received_at < SILENT_WHILE_CHARGING)
