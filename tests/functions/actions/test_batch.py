"""What the parts of a batch are asked as, with nobody behind them."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from common.callers import Caller
from common.clock import ManualClock
from functions.actions.catalogue import find
from functions.actions.spec import Call, Part
from functions.contract import Envelope
from tests.support.driver import Driver
from tests.support.fake_provider import FIRST, SECOND
from tests.support.world import caller

ACCOUNT = "acc_" + "A" * 22
LOADED = Part(200, {"meta": {"cached": False}})
HELD = Part(200, {"meta": {"cached": True}})
FAILED = Part(502, {})


class Server:
    """Answers parts as told, each after a second."""

    def __init__(self, clock: ManualClock, *answers: Part) -> None:
        self._clock = clock
        self._answers = list(answers)
        self.asked: list[Envelope] = []

    async def serve(self, envelope: Envelope, _caller: Caller, _key: str | None) -> Part:
        self._clock.advance(1)
        self.asked.append(envelope)
        return self._answers.pop(0) if self._answers else HELD


async def run(driver: Driver, server: Server, *parts: Mapping[str, Any]) -> list[Envelope]:
    """The parts as they were asked, all of one vehicle."""
    spec = find("batch")
    params = spec.params.model_validate({"requests": [{"account": ACCOUNT, "vin": FIRST, **part} for part in parts]})
    arrived_s = driver.world.clock.monotonic()
    call = Call(Envelope(action="batch"), params, caller(), serve_part=server.serve, arrived_s=arrived_s)
    await spec.handler(driver.world.services, call)
    return server.asked


async def test_all_waits_of_a_batch_end_fifty_five_seconds_after_it_came(driver: Driver, clock: ManualClock) -> None:
    asked = await run(
        driver,
        Server(clock),
        {"action": "flash", "wait_s": 54.5},
        {"action": "lock", "wait_s": 54.5},
        {"action": "horn"},
        {"action": "unlock", "wait_s": 20.0},
    )
    assert [part.wait_s for part in asked] == [54.5, 54, 0, 20]
    clock.advance(100)
    late = Server(clock)
    spec = find("batch")
    params = spec.params.model_validate({"requests": [{"action": "lock", "account": ACCOUNT, "wait_s": 5.0}]})
    call = Call(Envelope(action="batch"), params, caller(), serve_part=late.serve, arrived_s=clock.monotonic() - 56)
    await spec.handler(driver.world.services, call)
    assert [part.wait_s for part in late.asked] == [0]


async def test_what_a_batch_has_loaded_is_as_fresh_as_anything_that_it_asks(driver: Driver, clock: ManualClock) -> None:
    reads: list[dict[str, Any]] = [{"fresh": True}, {"max_age_s": 0}, {"max_age_s": 0.5}, {}]
    for first in reads:
        asked = await run(
            driver, Server(clock, LOADED), {"action": "fuel", **first}, *({"action": "fuel", **r} for r in reads)
        )
        assert (asked[0].fresh, asked[0].max_age_s) == (first.get("fresh", False), first.get("max_age_s"))
        assert [(part.fresh, part.max_age_s) for part in asked[1:]] == [(False, None)] * 4


async def test_what_was_held_before_the_batch_is_only_as_fresh_as_it_is(driver: Driver, clock: ManualClock) -> None:
    asked = await run(
        driver, Server(clock, HELD), {"action": "fuel", "max_age_s": 60}, {"action": "fuel", "max_age_s": 0}
    )
    assert asked[1].max_age_s == 0


async def test_after_a_fetch_that_failed_nothing_older_than_the_batch_will_do(
    driver: Driver, clock: ManualClock
) -> None:
    asked = await run(
        driver,
        Server(clock, FAILED, FAILED),
        {"action": "fuel", "fresh": True},
        {"action": "fuel", "fresh": True},
        {"action": "fuel", "max_age_s": 60},
        {"action": "fuel"},
    )
    assert [(part.fresh, part.max_age_s) for part in asked] == [(True, None), (False, 1), (False, 60), (False, None)]


async def test_after_a_command_only_what_is_read_after_it_is_fresh(driver: Driver, clock: ManualClock) -> None:
    for before in (LOADED, FAILED):
        asked = await run(
            driver,
            Server(clock, before),
            {"action": "fuel", "fresh": True},
            {"action": "flash"},
            {"action": "fuel", "fresh": True},
        )
        assert asked[2].fresh


@pytest.mark.parametrize(
    "others", [{"vin": None}, {"vin": FIRST.lower()}, {"action": "disconnect", "vin": None}], ids=str
)
async def test_parts_that_may_mean_one_vehicle_keep_their_order(
    driver: Driver, clock: ManualClock, others: dict[str, Any]
) -> None:
    begun: list[str] = []
    finished: list[str] = []

    async def serve(envelope: Envelope, _caller: Caller, _key: str | None) -> Part:
        assert begun == finished
        begun.append(envelope.action)
        await asyncio.sleep(0)
        finished.append(envelope.action)
        return HELD

    named = {"action": "unlock", "account": ACCOUNT, "vin": FIRST}
    mixed = [
        named,
        {**named, **others},
        {**named, "vin": SECOND, "action": "flash"} if others["vin"] is None else named,
    ]
    spec = find("batch")
    params = spec.params.model_validate({"requests": mixed})
    await spec.handler(driver.world.services, Call(Envelope(action="batch"), params, caller(), serve_part=serve))
    assert begun == [str(part["action"]) for part in mixed]
