"""What the owner's guide says of failures, of records and of idle links, held against the whole service."""

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from common.clock import ManualClock
from functions.providers.cardata.keep_alive import Kept, keep_alive
from functions.providers.cardata.stream_index import StreamIndex
from functions.providers.cardata.stream_settings import load_stream
from sandbox.cardata_process import RunningCarData, running_cardata
from tests.integration.conftest import Answered, Api, MakeApi

BEGAN = datetime(2026, 1, 5, 12, tzinfo=UTC)
I4, X3 = "WBA00000000DEMO12", "WBA00000000DEMO13"
DAY_S = 86_400
GUIDE = (Path(__file__).parents[2] / "docs/cardata.md").read_text()
ROWS = [(said.split(", "), told) for said, told in re.findall(r"^\| ([^|]+) \| (\d{3} [^|]+) \|", GUIDE, re.MULTILINE)]
WHILE_LINKING = [(said, told) for names, told in ROWS for said in names if not said.startswith("CU-")]
WHILE_READING = [(said, told) for names, told in ROWS for said in names if said.startswith("CU-")]


@pytest.fixture(scope="module")
def bmw() -> Iterator[RunningCarData]:
    with running_cardata(frozen_at=BEGAN.isoformat().replace("+00:00", "Z")) as sandbox:
        yield sandbox


@pytest.fixture
def cardata(bmw: RunningCarData) -> RunningCarData:
    bmw.reset()
    return bmw


@pytest.fixture
def noon() -> ManualClock:
    return ManualClock(wall=BEGAN)


@pytest.fixture
def app(make_api: MakeApi, cardata: RunningCarData, noon: ManualClock) -> Api:
    return make_api(noon, cardata_auth_origin=cardata.origin, cardata_api_origin=cardata.origin)


class Owner:
    """A customer of CarData's who uses the service; both clocks move together."""

    def __init__(self, app: Api, cardata: RunningCarData, noon: ManualClock) -> None:
        self.app = app
        self.cardata = cardata
        self._noon = noon
        self.account = ""

    def wait(self, seconds: float) -> None:
        self.cardata.advance(seconds)
        self._noon.advance(seconds)

    def begin(self) -> Any:
        return self.app.post(
            action="connect", params={"provider": "cardata", "client_id": self.cardata.demo["client_id"]}
        ).result

    def ask(self, begun: Any) -> Answered:
        self.wait(5)
        return self.app.post(action="connect_status", params={"connect_id": begun["connect_id"]})

    def link(self) -> None:
        begun = self.begin()
        self.cardata.decide(begun["user_code"], approve=True)
        self.account = self.ask(begun).result["account"]

    def do(self, action: str, vin: str = I4, **fields: Any) -> Answered:
        return self.app.post(action=action, account=self.account, vin=vin, **fields)

    def spent(self) -> int:
        return int(self.cardata.stats()["quota_used"].get(self.cardata.demo["gcid"], 0))


@pytest.fixture
def owner(app: Api, cardata: RunningCarData, noon: ManualClock) -> Owner:
    return Owner(app, cardata, noon)


@pytest.fixture
def linked(owner: Owner) -> Owner:
    owner.link()
    return owner


def as_told(answered: Answered, told: str) -> bool:
    """Whether a reply is what the guide's cell says: a status, and a code where it fails."""
    code = re.search(r"`(\w+)`", told)
    if answered.status != int(told[:3]):
        return False
    return bool(answered.json["success"]) if code is None else bool(answered.error["code"] == code[1])


def test_the_guide_has_a_row_for_each_word_of_bmws() -> None:
    assert {said for said, _ in WHILE_LINKING} == {
        *("authorization_pending", "slow_down", "access_denied", "invalid_client", "invalid_request"),
        *("invalid_grant", "expired_token", "500 Invalid Access Token"),
    }
    assert {int(said[3:]) for said, _ in WHILE_READING} == {
        *(100, 101, 102, 103, 104, 105, 120, 121, 122, 124, 125, 126, 127, 400, 401, 402, 403, 429, 500, 503)
    }


@pytest.mark.parametrize(("said", "told"), WHILE_LINKING)
def test_what_bmw_says_while_linking_is_answered_as_the_guide_says(owner: Owner, said: str, told: str) -> None:
    begun = owner.begin()
    rule: dict[str, Any] = {"fault": "oauth", "error": said} if "_" in said else {"fault": "burn"}
    owner.cardata.fault(match={"path": "oauth/token"}, times=1, **rule)

    answered = owner.ask(begun)

    assert as_told(answered, told), answered.json
    if "pending" in told:
        assert answered.result["status"] == "pending"
        owner.cardata.decide(begun["user_code"], approve=True)
        owner.wait(5)
        assert owner.ask(begun).result["status"] == "connected"


@pytest.mark.parametrize(("said", "told"), WHILE_READING)
def test_what_bmw_says_while_reading_is_answered_as_the_guide_says(linked: Owner, said: str, told: str) -> None:
    action, path, after = {
        "CU-124": ("status", "customers/containers$", 1),
        "CU-125": ("charging_history", "chargingHistory", 1),
        "CU-126": ("image", "image", 0),
    }.get(said, ("status", "telematicData", 0))
    linked.cardata.fault(match={"path": path}, fault="cu", code=said, times=1, after=after)

    answered = linked.do(action)

    assert as_told(answered, told), answered.json
    assert linked.cardata.faults()[0]["fired"] == 1
    if said == "CU-125":
        assert (answered.result["is_complete"], answered.result["count"]) == (False, 10)
        assert answered.result["note"]


# --- what is on record beside the car's state -------------------------------------------------------------------------


def test_past_charges_cost_a_request_for_each_ten_and_then_nothing(linked: Owner) -> None:
    linked.do("vehicles")
    before = linked.spent()
    charges = linked.do("charging_history")
    cost = linked.spent() - before
    assert cost == -(-charges.result["count"] // 10)
    newest = charges.result["sessions"][0]
    assert newest["start_percent"] < newest["end_percent"] == 80
    assert newest["energy"]["unit"] == "kWh"
    assert newest["place"]
    assert charges.meta["quota"]["used"] == linked.spent()
    again = linked.do("charging_history")
    assert (again.result, again.meta["cached"]) == (charges.result, True)
    assert linked.spent() - before == cost


def test_tyres_and_places_are_told_where_bmw_knows_them(linked: Owner) -> None:
    tyres = linked.do("tyre_diagnosis").result
    assert tyres["front_left"]["color"] in ("GREEN", "YELLOW")
    assert tyres["front_left"]["remaining_distance"]["unit"] == "km"
    never = linked.do("tyre_diagnosis", vin="WBA00000000DEMO11").result
    assert never["front_left"] is None
    assert "front_left" in never["unavailable"]
    (place,) = linked.do("charging_settings_by_place").result["places"]
    assert place["chargingMode"] == "IMMEDIATE_CHARGING"


def test_mybmw_has_none_of_these_and_says_so(app: Api) -> None:
    account = app.connect()
    for action in ("charging_history", "tyre_diagnosis", "charging_settings_by_place"):
        answered = app.post(action=action, account=account, vin="WBA00000000DEMO01")
        assert (answered.status, answered.error["code"]) == (501, "NOT_SUPPORTED")


# --- when each value was measured -------------------------------------------------------------------------------------


def test_each_value_says_when_the_car_measured_it(linked: Owner) -> None:
    result = linked.do("status").result
    measured = result["measured"]
    assert set(measured) & set(result["unavailable"]) == set()
    for name, descriptor in {
        "fuel_and_battery.battery_level": "vehicle.drivetrain.batteryManagement.header",
        "location.latitude": "vehicle.cabin.infotainment.navigation.currentLocation.latitude",
        "doors_and_windows.doors.left_front": "vehicle.cabin.door.row1.driver.isOpen",
        "tires.rear_left.pressure": "vehicle.chassis.axle.row2.wheel.left.tire.pressure",
    }.items():
        assert measured[name] == linked.cardata.truth(I4, descriptor)["said"]["timestamp"], name
    # The place was measured when the car last drove, the lock whenever it last spoke.
    assert measured["location.latitude"] < measured["doors_and_windows.lock_state"]


# --- idle links -------------------------------------------------------------------------------------------------------


def test_thirteen_idle_days_are_survived_with_a_warning_from_day_11(linked: Owner) -> None:
    for day in range(1, 14):
        linked.wait(DAY_S)
        (shown,) = linked.app.post(action="accounts").result["accounts"]
        assert bool(shown["warning"]) is (day >= 11), day
    assert linked.do("status").status == 200
    (shown,) = linked.app.post(action="accounts").result["accounts"]
    assert shown["warning"] is None


def test_after_fifteen_idle_days_the_owner_must_link_again_and_then_all_is_well(linked: Owner) -> None:
    linked.wait(15 * DAY_S)
    dead = linked.do("status")
    assert (dead.status, dead.error["code"]) == (401, "RELINK_REQUIRED")
    before = linked.account
    linked.link()
    assert linked.account == before
    assert linked.do("status").status == 200


def test_a_link_that_is_renewed_daily_never_ends(linked: Owner, noon: ManualClock) -> None:
    origin = linked.cardata.origin
    index = StreamIndex(linked.app.app.documents)
    gcid = linked.cardata.demo["gcid"]
    linked.app.app.loop.submit(index.add(linked.account, gcid)).result(5)
    stream = load_stream({"CARDATA_AUTH_ORIGIN": origin})
    linked.do("status")
    spent = []
    for _ in range(40):
        linked.wait(DAY_S)
        assert asyncio.run(keep_alive(linked.app.app.settings, stream, noon)) == Kept(renewed=1)
        spent.append(linked.spent())
    assert set(spent) == {0}
    (shown,) = linked.app.post(action="accounts").result["accounts"]
    assert (shown["status"], shown["warning"]) == ("connected", None)
    assert linked.do("status").status == 200
