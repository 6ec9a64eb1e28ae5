"""BMW CarData through the same endpoint: linked by a code, read within its ration, never commanded."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from common.clock import ManualClock
from functions.providers.cardata.stream_index import StreamIndex
from sandbox.cardata_process import RunningCarData, running_cardata
from tests.integration.conftest import Answered, Api, MakeApi

BEGAN = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def bmw() -> Iterator[RunningCarData]:
    with running_cardata(frozen_at=BEGAN.isoformat().replace("+00:00", "Z")) as sandbox:
        yield sandbox


@pytest.fixture
def cardata(bmw: RunningCarData) -> RunningCarData:
    """The simulated CarData as new, at noon."""
    bmw.reset()
    return bmw


@pytest.fixture
def noon() -> ManualClock:
    """Our clock, which shows what BMW's shows."""
    return ManualClock(wall=BEGAN)


@pytest.fixture
def app(make_api: MakeApi, cardata: RunningCarData, noon: ManualClock) -> Api:
    return make_api(noon, cardata_auth_origin=cardata.origin, cardata_api_origin=cardata.origin)


def begin(app: Api, cardata: RunningCarData) -> Answered:
    return app.post(action="connect", params={"provider": "cardata", "client_id": cardata.demo["client_id"]})


def ask(app: Api, connect_id: str) -> Answered:
    return app.post(action="connect_status", params={"connect_id": connect_id})


def pass_time(app: Api, cardata: RunningCarData, noon: ManualClock, seconds: float) -> None:
    cardata.advance(seconds)
    noon.advance(seconds)


def linked(app: Api, cardata: RunningCarData, noon: ManualClock) -> str:
    begun = begin(app, cardata).result
    cardata.decide(begun["user_code"], approve=True)
    pass_time(app, cardata, noon, 5)
    account: str = ask(app, begun["connect_id"]).result["account"]
    return account


def a_car(cardata: RunningCarData) -> str:
    vin: str = next(iter(cardata.demo["cars"]))
    return vin


def requests(cardata: RunningCarData) -> int:
    return sum(count for route, count in cardata.stats()["requests"].items() if "/customers/" in route)


def test_an_owner_links_his_account_by_a_code(app: Api, cardata: RunningCarData, noon: ManualClock) -> None:
    begun = begin(app, cardata)
    assert begun.status == 202
    shown = begun.result
    assert (shown["status"], shown["provider"]) == ("pending", "cardata")
    assert shown["user_code"]
    assert shown["verification_uri"].startswith("http")
    pass_time(app, cardata, noon, 5)
    assert ask(app, shown["connect_id"]).status == 202
    cardata.decide(shown["user_code"], approve=True)
    pass_time(app, cardata, noon, 5)
    done = ask(app, shown["connect_id"])
    assert (done.status, done.result["status"], done.result["provider"]) == (200, "connected", "cardata")
    assert app.post(action="accounts").result["count"] == 1
    # Whoever missed the answer may ask again.
    assert ask(app, shown["connect_id"]).result == done.result
    app.post(action="disconnect", account=done.result["account"])
    assert ask(app, shown["connect_id"]).error["code"] == "CONNECT_NOT_FOUND"


def test_bmws_interval_is_kept_however_often_somebody_asks(
    app: Api, cardata: RunningCarData, noon: ManualClock
) -> None:
    begun = begin(app, cardata).result
    before = cardata.stats()["requests_total"]
    for _ in range(10):
        assert ask(app, begun["connect_id"]).status == 202
    assert cardata.stats()["requests_total"] == before
    pass_time(app, cardata, noon, 5)
    for _ in range(10):
        ask(app, begun["connect_id"])
    assert cardata.stats()["requests_total"] == before + 1


def test_a_code_that_is_refused_or_too_old_links_nothing(app: Api, cardata: RunningCarData, noon: ManualClock) -> None:
    refused = begin(app, cardata).result
    cardata.decide(refused["user_code"], approve=False)
    pass_time(app, cardata, noon, 5)
    assert ask(app, refused["connect_id"]).error["code"] == "AUTHENTICATION_ERROR"
    late = begin(app, cardata).result
    pass_time(app, cardata, noon, 301)
    assert ask(app, late["connect_id"]).error["code"] == "RELINK_REQUIRED"
    assert app.post(action="accounts").result["count"] == 0


def test_a_client_id_that_is_none_never_reaches_bmw(app: Api, cardata: RunningCarData) -> None:
    before = cardata.stats()["requests_total"]
    for params in (
        {"provider": "cardata"},
        {"provider": "cardata", "client_id": "x"},
        {"client_id": cardata.demo["client_id"]},
        {"provider": "audi"},
    ):
        assert app.post(action="connect", params=params).status == 400
    assert cardata.stats()["requests_total"] == before


def test_the_same_actions_answer_from_it_with_its_ration(app: Api, cardata: RunningCarData, noon: ManualClock) -> None:
    account = linked(app, cardata, noon)
    vehicles = app.post(action="vehicles", account=account).result["vehicles"]
    assert {vehicle["vin"] for vehicle in vehicles} == set(cardata.demo["cars"])
    for vehicle in vehicles:
        for action in ("status", "fuel", "location", "mileage", "lock_status", "is_locked", "charging", "tires"):
            answered = app.post(action=action, account=account, vin=vehicle["vin"])
            assert answered.status == 200, answered.json
            assert answered.meta["provider"] == "cardata"
            assert answered.meta["quota"]["limit"] == 50
            assert answered.meta["quota"]["used"] == requests(cardata) or answered.meta["cached"]
    truth = cardata.truth(vehicles[0]["vin"], "vehicle.vehicle.travelledDistance")
    assert truth is not None


def test_reads_in_a_row_cost_one_request(app: Api, cardata: RunningCarData, noon: ManualClock) -> None:
    account = linked(app, cardata, noon)
    vin = a_car(cardata)
    app.post(action="status", account=account, vin=vin)
    before = requests(cardata)
    for minute in range(30):
        pass_time(app, cardata, noon, 60)
        answered = app.post(action="fuel", account=account, vin=vin)
        assert answered.status == 200, (minute, answered.json)
        assert answered.meta["age_s"] >= 60 * minute
    assert requests(cardata) - before <= 1


def test_explaining_spends_nothing(app: Api, cardata: RunningCarData, noon: ManualClock) -> None:
    account = linked(app, cardata, noon)
    vin = a_car(cardata)
    app.post(action="vehicles", account=account)
    before = requests(cardata)
    cold = app.post(action="status", account=account, vin=vin, params={"explain": True}).result["explain"]
    assert (cold["source"], cold["cost"]) == ("poll", 1)
    assert cold["why"]
    assert requests(cardata) == before
    app.post(action="status", account=account, vin=vin)
    warm = app.post(action="status", account=account, vin=vin, params={"explain": True}).result["explain"]
    assert (warm["source"], warm["cost"]) == ("cache", 0)


def test_commands_say_why_not_and_what_to_do_instead(app: Api, cardata: RunningCarData, noon: ManualClock) -> None:
    account = linked(app, cardata, noon)
    refused = app.post(action="unlock", account=account, vin=a_car(cardata))
    assert (refused.status, refused.error["code"]) == (501, "NOT_SUPPORTED")
    assert "read-only" in refused.error["message"]
    assert "My BMW" in refused.error["message"]


def test_when_the_day_is_used_up_what_is_known_is_served_and_a_forced_read_says_so(
    app: Api, cardata: RunningCarData, noon: ManualClock
) -> None:
    account = linked(app, cardata, noon)
    vin = a_car(cardata)
    app.post(action="status", account=account, vin=vin)
    cardata.change_customer(cardata.demo["gcid"], quota_used=50)
    refused = app.post(action="status", account=account, vin=vin, fresh=True)
    assert (refused.status, refused.error["code"]) == (429, "QUOTA_LIMIT_EXCEEDED")
    known = app.post(action="fuel", account=account, vin=vin)
    assert (known.status, known.meta["cached"]) == (200, True)
    # Nobody else's circuit is opened by one customer's ration.
    assert app.get("/health").json["checks"]["providers"]["cardata"]["breaker"] == "closed"


def test_while_bmws_login_is_down_what_is_known_is_served(
    app: Api, make_api: MakeApi, cardata: RunningCarData, noon: ManualClock
) -> None:
    account = linked(app, cardata, noon)
    vin = a_car(cardata)
    pass_time(app, cardata, noon, 3_500)
    app.post(action="status", account=account, vin=vin)
    cardata.fault(match={"path": "/gcdm/oauth/token"}, fault="status", status=503)
    pass_time(app, cardata, noon, 200)
    held = app.post(action="fuel", account=account, vin=vin, cache_only=True)
    assert (held.status, held.meta["quota"]["limit"]) == (200, 50)
    pass_time(app, cardata, noon, 5 * 3_600)
    origins = {"cardata_auth_origin": cardata.origin, "cardata_api_origin": cardata.origin}
    cold = make_api(noon, **origins)
    for _ in range(8):
        answered = cold.post(action="status", account=account, vin=vin)
        assert (answered.status, answered.meta["fetched_at"]) == (200, held.meta["fetched_at"])
    refused = cold.post(action="status", account=account, vin=vin, fresh=True)
    assert refused.status in (502, 503)


def test_who_links_anew_is_shown_the_cars_that_he_has_now(app: Api, cardata: RunningCarData, noon: ManualClock) -> None:
    account = linked(app, cardata, noon)
    app.post(action="vehicles", account=account)
    before = requests(cardata)
    app.post(action="vehicles", account=account)
    assert requests(cardata) == before
    assert linked(app, cardata, noon) == account
    app.post(action="vehicles", account=account)
    assert requests(cardata) == before + 1
    app.post(action="vehicles", account=account, fresh=True)
    assert requests(cardata) == before + 2


def test_an_idle_link_warns_before_it_ends(app: Api, cardata: RunningCarData, noon: ManualClock) -> None:
    account = linked(app, cardata, noon)
    (fresh,) = app.post(action="accounts").result["accounts"]
    assert (fresh["warning"], fresh["tokens"]["link_ends_at"][:10]) == (None, "2026-01-19")
    pass_time(app, cardata, noon, timedelta(days=11).total_seconds())
    (old,) = app.post(action="accounts").result["accounts"]
    assert old["warning"]
    pass_time(app, cardata, noon, timedelta(days=4).total_seconds())
    (ended,) = app.post(action="accounts").result["accounts"]
    assert (ended["status"], ended["warning"]) == ("needs_relink", None)
    assert (ended["tokens"]["needs_relink"], ended["tokens"]["link_ends_at"]) == (True, None)
    dead = app.post(action="status", account=account, vin=a_car(cardata))
    assert (dead.status, dead.error["code"]) == (401, "RELINK_REQUIRED")


def test_the_stream_worker_finds_who_is_linked_and_nobody_else(
    app: Api, cardata: RunningCarData, noon: ManualClock
) -> None:
    def streamed() -> list[str]:
        found: list[str] = app.app.loop.submit(StreamIndex(app.app.documents).accounts()).result(5)
        return found

    account = linked(app, cardata, noon)
    assert streamed() == [account]
    app.post(action="disconnect", account=account)
    assert streamed() == []


def test_disconnecting_leaves_nothing_of_it(app: Api, cardata: RunningCarData, noon: ManualClock) -> None:
    account = linked(app, cardata, noon)
    app.post(action="status", account=account, vin=a_car(cardata))
    assert app.post(action="disconnect", account=account).status == 200
    left = app.app.loop.submit(app.app.documents.list("")).result(5)
    assert {key.partition("/")[0] for key in left} <= {"quota"}
