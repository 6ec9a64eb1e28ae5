"""A day of CarData: two cars, 200 reads an hour, a charge of three hours a car; what it costs and whether it is true.

``python -m scorecard.cardata_day`` runs some days and prints the figures; it exits with 1 where one falls short. The
whole service runs in this process against the simulated CarData, over HTTP; both live by one clock.
"""

import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import httpx

from common.clock import ManualClock
from common.loops import LoopThread
from common.settings import Settings
from functions.app import App, build
from functions.wire import RawRequest
from ops.stack import master_key
from sandbox.cardata import create_app
from scorecard.cardata_truth import Wrong, compare
from scorecard.row import Finding, Say

MOST_REQUESTS: Final = 50
RESERVE: Final = 5
MOST_MEDIAN_MIN: Final = 20.0
CHARGE_S: Final = 3 * 3600
EVERY_S: Final = 18
"""200 reads an hour."""
_DAY_S: Final = 86_400
_MONDAY: Final = datetime(2026, 1, 5, tzinfo=UTC)
_CARS: Final = {"WBA00000000DEMO21": ("i4", 100.0), "WBA00000000DEMO22": ("x3", 30.0)}
"""Model, and how far each of the day's two drives goes: more than a charge brings, so that a charge lasts."""
_ACTIONS: Final = (
    *("status", "fuel", "charging", "lock_status", "fuel", "location", "charging", "tires", "fuel", "service"),
    *("charging", "climate_status", "fuel", "check_control", "mileage", "is_locked"),
)
_BATTERY: Final = {"status": "fuel_and_battery.battery_level", "fuel": "battery_level", "charging": "battery_level"}
"""Where an action's reply dates the state of charge."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A day: when each car's charge begins, hours after midnight; whether the account is linked that very day."""

    charges_from_h: tuple[float, float]
    is_linking_day: bool = False
    every_s: float = EVERY_S
    """Between two reads of the customer's, the cars in turn."""


@dataclass
class Day:
    """What was seen of it."""

    reads: int = 0
    requests: int = 0
    """As BMW counts them."""
    remaining: int = 0
    """Of the customer's day, as the last reply says."""
    compared: int = 0
    wrong: list[Wrong] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Error codes."""
    ages_min: list[float] = field(default_factory=list)
    """Of each state of charge that was served while the car charged."""

    @property
    def median_min(self) -> float:
        """Median age of the state of charge while charging, minutes."""
        return statistics.median(self.ages_min)

    @property
    def passed(self) -> bool:
        """Whether it keeps every promise."""
        within = self.requests <= MOST_REQUESTS - RESERVE and self.remaining >= RESERVE
        return within and self.median_min <= MOST_MEDIAN_MIN and not self.wrong and not self.refused

    def __str__(self) -> str:
        return (
            f"{self.requests} requests for {self.reads} reads, {self.remaining} left; state of charge while charging: "
            f"median age {self.median_min:.1f} min; {self.compared} values compared, {len(self.wrong)} wrong"
            + "".join(f"\n  wrong: {one}" for one in self.wrong[:5])
            + (f"\n  refused: {self.refused[:5]}" if self.refused else "")
        )


class Truth:
    """Asks the simulator what was true of one car, each thing once."""

    def __init__(self, client: httpx.Client, vin: str) -> None:
        self._client = client
        self._vin = vin
        self._known: dict[tuple[str, str], Mapping[str, Any]] = {}

    def value(self, descriptor: str, at: str) -> Any:  # noqa: ANN401 - any JSON scalar
        """What was true at a time."""
        return self._at(descriptor, at)["value"]

    def said(self, descriptor: str, at: str) -> Any:  # noqa: ANN401 - any JSON scalar
        """What the car had said by then."""
        said = self._at(descriptor, at)["said"]
        return said and said["value"]

    def _at(self, descriptor: str, at: str) -> Mapping[str, Any]:
        if (descriptor, at) not in self._known:
            query = urlencode({"vin": self._vin, "descriptor": descriptor, "at": at})
            answer = self._client.get(f"/_sandbox/truth?{query}")
            answer.raise_for_status()
            self._known[descriptor, at] = answer.json()
        return self._known[descriptor, at]


class Owner:
    """A customer of the simulated CarData, and a caller of the service."""

    def __init__(self, app: App, bmw: httpx.Client, clock: ManualClock, cars: Sequence[Mapping[str, Any]]) -> None:
        self.app = app
        self.clock = clock
        self._bmw = bmw
        customer = self._control("customers", {"cars": cars})
        self._gcid, self._client_id = customer["gcid"], customer["client_id"]
        self.truths = {car["vin"]: Truth(bmw, car["vin"]) for car in cars}
        self._account = ""

    def link(self) -> None:
        """As an owner does, by a code."""
        begun = self._post(action="connect", params={"provider": "cardata", "client_id": self._client_id})["result"]
        self._control("devices", {"user_code": begun["user_code"], "approve": True})
        self.clock.advance(5)
        done = self._post(action="connect_status", params={"connect_id": begun["connect_id"]})
        self._account = done["result"]["account"]

    def read(self, action: str, vin: str) -> dict[str, Any]:
        """One read; the reply, whatever it says."""
        return self._post(action=action, account=self._account, vin=vin)

    def requests_today(self) -> int:
        """As BMW counts them."""
        used: int = self._bmw.get(f"/_sandbox/customers/{self._gcid}").json()["quota_used"]
        return used

    def _post(self, **fields: object) -> dict[str, Any]:
        request = RawRequest("POST", "/", {"content-type": "application/json"}, json.dumps(fields).encode())
        answer: dict[str, Any] = json.loads(self.app.loop.run(self.app.pipeline.handle(request)).body)
        return answer

    def _control(self, path: str, body: object) -> Any:  # noqa: ANN401 - any JSON
        answer = self._bmw.post(f"/_sandbox/{path}", json=body)
        answer.raise_for_status()
        return answer.json()


def live(plan: Plan) -> Day:
    """Live through a day."""
    clock = ManualClock(wall=_MONDAY - timedelta(seconds=0 if plan.is_linking_day else 3600))
    starts_s = dict(zip(_CARS, (hour * 3600 for hour in plan.charges_from_h), strict=True))
    cars = [{"vin": vin, "model": model, "script": script(starts_s[vin], km)} for vin, (model, km) in _CARS.items()]
    with _service(clock) as (app, bmw):
        owner = Owner(app, bmw, clock, cars)
        owner.link()
        if not plan.is_linking_day:
            for vin in _CARS:
                owner.read("status", vin)
            clock.advance((_MONDAY - clock.utc()).total_seconds())
        return _read_on(owner, starts_s, plan.every_s)


def _read_on(owner: Owner, starts_s: Mapping[str, float], every_s: float) -> Day:
    day = Day()
    asked = itertools.cycle(itertools.product(_ACTIONS, starts_s))
    while (at_s := (owner.clock.utc() - _MONDAY).total_seconds()) + every_s < _DAY_S:
        action, vin = next(asked)
        answer = owner.read(action, vin)
        day.reads += 1
        if answer["success"]:
            is_charging = starts_s[vin] <= at_s < starts_s[vin] + CHARGE_S
            _note(day, action, answer, owner.truths[vin], owner.clock.utc() if is_charging else None)
        else:
            day.refused.append(answer["error"]["code"])
        owner.clock.advance(every_s)
    day.requests = owner.requests_today()
    return day


def _note(day: Day, action: str, answer: Mapping[str, Any], truths: Truth, charging_at: datetime | None) -> None:
    count, wrong = compare(action, answer, truths)
    day.compared += count
    day.wrong += wrong
    day.remaining = answer["meta"]["quota"]["remaining"]
    if charging_at is not None and action in _BATTERY:
        measured_at = datetime.fromisoformat(answer["result"]["measured"][_BATTERY[action]])
        day.ages_min.append((charging_at - measured_at).total_seconds() / 60)


def script(charge_from_s: float, km: float) -> dict[str, Any]:
    """A car's day: a charge of three hours, two drives, and sleep for the rest but half an hour after each."""
    spans: list[tuple[str, float, float, float]] = [("charge", charge_from_s, charge_from_s + CHARGE_S, 0.0)]
    for hours_later in (5, 14):
        start_s = min((charge_from_s + hours_later * 3600) % _DAY_S, _DAY_S - 2700)
        spans.append(("drive", start_s, start_s + 2700, km))
    phases = [
        {"kind": kind, "start_s": start_s, "end_s": end_s, "km": distance} for kind, start_s, end_s, distance in spans
    ]
    for kind, start_s, _, _ in spans:
        if kind == "drive" and start_s >= 1200:
            phases.append({"kind": "climate", "start_s": start_s - 1200, "end_s": start_s - 300})
            phases.append({"kind": "unlocked", "start_s": start_s - 300, "end_s": start_s})
    awake = sorted((max(0.0, start_s - 1200), min(_DAY_S, end_s + 1800)) for _, start_s, end_s, _ in spans)
    edges = [0.0, *(edge for span in awake for edge in span), float(_DAY_S)]
    phases += [
        {"kind": "sleep", "start_s": start_s, "end_s": end_s}
        for start_s, end_s in zip(edges[::2], edges[1::2], strict=True)
        if start_s < end_s
    ]
    return {"period_s": _DAY_S, "phases": phases}


@contextmanager
def _service(clock: ManualClock) -> Iterator[tuple[App, httpx.Client]]:
    loop = LoopThread("simulated-bmw")
    sandbox = create_app(clock=clock)
    origin = loop.submit(sandbox.start("127.0.0.1", 0, 0)).result(10)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            httpx.Client(base_url=origin, trust_env=False, timeout=10) as bmw,
        ):
            app = build(_settings(origin, Path(folder)), clock=clock)
            try:
                yield app, bmw
            finally:
                app.close()
    finally:
        loop.submit(sandbox.stop()).result(10)
        loop.close()


def _settings(origin: str, folder: Path) -> Settings:
    return Settings(
        environment="development",
        callers=("open",),
        token_keys=master_key(),
        documents_url=f"sqlite:///{folder}/documents.db",
        cardata_auth_origin=origin,
        cardata_api_origin=origin,
        log_level="ERROR",
        **{name: "" for name in Settings.model_fields if name.startswith("limit_")},  # type: ignore[arg-type]  # all are text
    )


PLANS: Final = (
    Plan((21.0, 2.0)),
    Plan((8.5, 9.0)),
    Plan((13.0, 20.9)),
    Plan((1.0, 1.2), is_linking_day=True),
    Plan((12.0, 21.0), is_linking_day=True),
    Plan((20.9, 20.9), is_linking_day=True),
)


def measure(say: Say, plans: Sequence[Plan] = PLANS) -> Finding:
    """Live through all of ``plans``."""
    days = []
    for plan in plans:
        days.append(live(plan))
        say(f"charges from {plan.charges_from_h} h{', linked that day' if plan.is_linking_day else ''}: {days[-1]}")
    measured = (
        f"{len(days)} days: {max(day.requests for day in days)} requests at most, "
        f"median age of state of charge while charging {max(day.median_min for day in days):.1f} min at worst, "
        f"{sum(len(day.wrong) for day in days)} of {sum(day.compared for day in days)} values wrong"
    )
    return Finding(measured, all(day.passed for day in days))


def main() -> int:
    """Returns the exit status."""
    finding = measure(lambda text: print(text, flush=True))
    print(finding.measured)
    return 0 if finding.passed else 1


if __name__ == "__main__":
    sys.exit(main())
