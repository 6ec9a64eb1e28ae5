"""Commands against the sandbox: one request each, and what is told of it afterwards."""

import asyncio
from typing import Any

import pytest

from common.errors import (
    ApiError,
    NotSupported,
    PreconditionFailed,
    ProviderBlocked,
    QuotaLimitExceeded,
    RelinkRequired,
    RemoteServiceError,
    UpstreamError,
    UpstreamInvalid,
    UpstreamTimeout,
)
from functions.providers.mybmw.failures import BMWAPIError
from functions.providers.port import Command, CommandName, Outcome
from tests.providers.mybmw.harness import (
    IMPATIENT,
    IX,
    USER,
    Bmw,
    Permit,
    PermitSpentError,
    body_of,
    snapshot_of,
    vehicle,
)

I4 = "WBA00000000DEMO02"
REX = "WBY00000000REXI01"
MUNICH: dict[str, Any] = {"latitude": 48.177334, "longitude": 11.556274}
EVERYTHING = [
    ("lock", "door-lock", {}),
    ("unlock", "door-unlock", {}),
    ("flash", "light-flash", {}),
    ("horn", "horn-blow", {}),
    ("ac", "climate-now", {}),
    ("ac_off", "climate-now", {}),
    ("charge_start", "start-charging", {}),
    ("charge_stop", "stop-charging", {}),
    ("charging_settings", "charging-settings", {"target_soc": 75}),
    ("charging_profile", "charging-profile", {"charging_mode": "DELAYED_CHARGING"}),
    ("find", "vehicle-finder", {}),
]


@pytest.mark.parametrize(("name", "service", "params"), EVERYTHING)
async def test_a_command_is_one_request_with_an_event_to_ask_about(
    bmw: Bmw, name: str, service: str, params: dict[str, Any]
) -> None:
    await bmw.link()
    permit = Permit()

    receipt = await bmw.send(CommandName(name), IX, permit, **params)

    assert receipt.outcome is Outcome.ACCEPTED
    assert receipt.event_id
    assert permit.log == ["take"]
    assert bmw.sandbox.stats()["commands"] == {IX: {service: {"received": 1, "executed": 0}}}
    progress = await bmw.poll_to_the_end(CommandName(name), receipt.event_id)
    assert progress.outcome is Outcome.EXECUTED
    assert bmw.sandbox.stats()["commands"] == {IX: {service: {"received": 1, "executed": 1}}}


@pytest.mark.parametrize("name", ["lock", "unlock", "flash", "horn", "ac", "ac_off", "charge_start", "find"])
async def test_a_command_asks_for_nothing_else(bmw: Bmw, name: str) -> None:
    await bmw.link()

    await bmw.send(CommandName(name))

    assert bmw.sandbox.stats()["requests_total"] == 1


async def test_commands_do_what_they_say(bmw: Bmw) -> None:
    await bmw.link()

    for name in (CommandName.UNLOCK, CommandName.AC, CommandName.CHARGE_STOP):
        receipt = await bmw.send(name)
        await bmw.poll_to_the_end(name, receipt.event_id)
    snapshot = await bmw.provider.reads.read_vehicle(bmw.account, vehicle())

    assert snapshot.openings.is_locked is False
    assert snapshot.climate is not None
    assert snapshot.climate.is_on is True
    assert snapshot.charging is not None
    assert snapshot.charging.status == "PLUGGED_IN"


async def test_polling_tells_each_stage(bmw: Bmw) -> None:
    await bmw.link()
    receipt = await bmw.send(CommandName.LOCK)

    stages = [(await bmw.poll(CommandName.LOCK, receipt.event_id)).outcome for _ in range(4)]

    assert stages == [Outcome.PENDING, Outcome.DELIVERED, Outcome.EXECUTED, Outcome.EXECUTED]


@pytest.mark.parametrize("word", ["INITIATED", "PENDING", "UNKNOWN", "TELEPORTED", None])
async def test_a_word_that_does_not_say_that_a_command_has_ended_means_that_it_has_not(
    bmw: Bmw, word: str | None
) -> None:
    await bmw.link()
    receipt = await bmw.send(CommandName.LOCK)
    bmw.sandbox.fault(match={"path": "eventStatus"}, fault="wrong_type", body={"eventStatus": word})

    assert (await bmw.poll(CommandName.LOCK, receipt.event_id)).outcome is Outcome.PENDING


@pytest.mark.parametrize("word", ["ERROR", "IGNORED"])
async def test_a_command_that_failed_has_failed_and_says_why(bmw: Bmw, word: str) -> None:
    await bmw.link()
    bmw.sandbox.fault(fault="event", outcome=word)
    receipt = await bmw.send(CommandName.LOCK)

    progress = await bmw.poll_to_the_end(CommandName.LOCK, receipt.event_id)

    assert progress.outcome is Outcome.FAILED
    assert progress.note


@pytest.mark.parametrize("body", [[], "x", 7, {"eventStatus": 7}])
async def test_a_status_that_is_none_is_an_invalid_reply(bmw: Bmw, body: object) -> None:
    await bmw.link()
    receipt = await bmw.send(CommandName.LOCK)
    bmw.sandbox.fault(match={"path": "eventStatus"}, fault="wrong_type", body=body)

    with pytest.raises(UpstreamInvalid):
        await bmw.poll(CommandName.LOCK, receipt.event_id)


@pytest.mark.parametrize("event_id", ["no-such-event", "a&b=c#d/e", "\u00e4"])
async def test_a_command_that_bmw_does_not_know_any_more_is_told_so(bmw: Bmw, event_id: str) -> None:
    await bmw.link()

    with pytest.raises(RemoteServiceError) as caught:
        await bmw.poll(CommandName.LOCK, event_id)

    assert caught.value.message == "BMW does not know that command."


async def test_an_event_id_cannot_carry_anything_else(bmw: Bmw) -> None:
    await bmw.link()
    receipt = await bmw.send(CommandName.LOCK)

    with pytest.raises(RemoteServiceError):
        await bmw.poll(CommandName.LOCK, f"{receipt.event_id}&more=x")


@IMPATIENT
@pytest.mark.parametrize(
    ("fault", "failure", "executed", "may_have_succeeded"),
    [
        ({"fault": "status", "status": 400}, RemoteServiceError, 0, False),
        ({"fault": "status", "status": 403, "body": "no"}, RemoteServiceError, 0, False),
        ({"fault": "status", "status": 403}, QuotaLimitExceeded, 0, False),
        ({"fault": "status", "status": 404}, RemoteServiceError, 0, False),
        ({"fault": "status", "status": 409}, RemoteServiceError, 0, False),
        ({"fault": "status", "status": 429}, QuotaLimitExceeded, 0, False),
        ({"fault": "status", "status": 489}, ProviderBlocked, 0, False),
        ({"fault": "status", "status": 500}, UpstreamError, 0, True),
        ({"fault": "status", "status": 503, "perform": True}, UpstreamError, 1, True),
        ({"fault": "status", "status": 302}, UpstreamInvalid, 0, True),
        ({"fault": "reset"}, UpstreamError, 0, True),
        ({"fault": "reset_after"}, UpstreamError, 1, True),
        ({"fault": "hang"}, UpstreamTimeout, 0, True),
        ({"fault": "slow", "delay_ms": 60_000, "when": "after"}, UpstreamTimeout, 1, True),
        ({"fault": "malformed"}, UpstreamInvalid, 1, True),
        ({"fault": "truncated"}, UpstreamError, 1, True),
        ({"fault": "wrong_type", "body": []}, UpstreamInvalid, 1, True),
        ({"fault": "wrong_type", "body": {"eventId": 7}}, UpstreamInvalid, 1, True),
    ],
)
async def test_a_command_that_goes_wrong_is_sent_once_and_says_whether_it_may_have_worked(
    bmw: Bmw, fault: dict[str, Any], failure: type[ApiError], executed: int, may_have_succeeded: bool
) -> None:
    await bmw.link()
    bmw.sandbox.fault(match={"path": "door-unlock"}, **fault)
    permit = Permit(left=5)

    with pytest.raises(failure) as caught:
        await bmw.send(CommandName.UNLOCK, permit=permit)

    assert isinstance(caught.value, BMWAPIError)
    assert caught.value.may_have_succeeded is may_have_succeeded
    assert permit.log == ["take"]
    assert bmw.asked("{service}") == 1
    received = bmw.sandbox.stats()["commands_received"]
    assert received == executed
    assert may_have_succeeded or not received


@IMPATIENT
async def test_an_answer_that_is_late_leaves_the_command_in_doubt_and_it_is_carried_out_once(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.fault(match={"path": "door-unlock"}, fault="hang", perform=True, times=1)

    with pytest.raises(UpstreamTimeout) as caught:
        await bmw.send(CommandName.UNLOCK)

    assert caught.value.may_have_succeeded is True
    assert bmw.sandbox.stats()["commands"][IX]["door-unlock"]["executed"] == 1


async def test_an_answer_without_a_body_says_nothing_of_the_outcome(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.fault(match={"path": "door-lock"}, fault="empty")

    receipt = await bmw.send(CommandName.LOCK)

    assert (receipt.outcome, receipt.event_id) == (Outcome.UNKNOWN, None)
    assert receipt.note


async def test_a_permit_that_is_spent_sends_nothing(bmw: Bmw) -> None:
    await bmw.link()

    with pytest.raises(PermitSpentError) as caught:
        await bmw.send(CommandName.UNLOCK, permit=Permit(left=0))

    assert caught.value.may_have_succeeded is False
    assert bmw.sandbox.stats()["commands_received"] == 0


async def test_a_token_that_is_refused_gives_the_permit_back_and_the_command_goes_out_once_more(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.expire_access(USER)
    permit = Permit()

    receipt = await bmw.send(CommandName.UNLOCK, permit=permit)

    assert receipt.outcome is Outcome.ACCEPTED
    assert permit.log == ["take", "refused", "take"]
    assert bmw.sandbox.stats()["commands_received"] == 1


async def test_a_command_whose_tokens_are_dead_was_not_sent(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.expire_access(USER)
    bmw.sandbox.revoke_refresh(USER)
    permit = Permit()

    with pytest.raises(RelinkRequired) as caught:
        await bmw.send(CommandName.UNLOCK, permit=permit)

    assert caught.value.may_have_succeeded is False
    assert permit.log == ["take", "refused"]


async def test_tokens_are_renewed_before_the_permit_is_spent(bmw: Bmw) -> None:
    await bmw.link(lives_s=0)
    bmw.sandbox.fault(match={"path": "oauth/token"}, fault="status", status=503)
    permit = Permit()

    with pytest.raises(UpstreamError) as caught:
        await bmw.send(CommandName.UNLOCK, permit=permit)

    assert caught.value.may_have_succeeded is False
    assert permit.log == []


async def test_a_sender_who_gives_up_leaves_the_permit_telling_what_happened(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.fault(match={"path": "door-unlock"}, fault="hang", perform=True)
    permit = Permit()

    sender = asyncio.create_task(bmw.send(CommandName.UNLOCK, permit=permit))
    await bmw.until_met("hang")
    sender.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sender

    assert permit.log == ["take"]


async def test_commands_sent_at_the_same_time_spend_their_own_permits(bmw: Bmw) -> None:
    await bmw.link()
    permits = [Permit(), Permit(left=0), Permit()]

    results = await asyncio.gather(
        *(bmw.send(CommandName.FLASH, permit=permit) for permit in permits), return_exceptions=True
    )

    assert [isinstance(result, PermitSpentError) for result in results] == [False, True, False]
    assert bmw.sandbox.stats()["commands_received"] == 2


async def test_charging_settings_are_set(bmw: Bmw) -> None:
    await bmw.link()

    receipt = await bmw.send(CommandName.CHARGING_SETTINGS, target_soc=95, ac_limit=32)
    await bmw.poll_to_the_end(CommandName.CHARGING_SETTINGS, receipt.event_id)
    charging = (await bmw.provider.reads.read_vehicle(bmw.account, vehicle())).charging

    assert charging is not None
    assert (charging.target_percent, charging.ac_limit_a) == (95, 32)


@pytest.mark.parametrize(
    ("mode", "precondition"), [("DELAYED_CHARGING", True), (None, True), ("DELAYED_CHARGING", None)]
)
async def test_a_charging_profile_is_changed_where_asked_and_stays_elsewhere(
    bmw: Bmw, mode: str | None, precondition: bool | None
) -> None:
    await bmw.link()
    before = (await bmw.provider.reads.read_vehicle(bmw.account, vehicle())).charging
    given: dict[str, Any] = {"charging_mode": mode, "precondition_climate": precondition}

    receipt = await bmw.send(CommandName.CHARGING_PROFILE, **given)
    await bmw.poll_to_the_end(CommandName.CHARGING_PROFILE, receipt.event_id)
    after = (await bmw.provider.reads.read_vehicle(bmw.account, vehicle())).charging

    assert before is not None
    assert after is not None
    assert after.mode == (mode or before.mode)
    assert after.preconditions_climate is (precondition or before.preconditions_climate)
    assert after.departure_timers == before.departure_timers


async def test_preconditioning_that_the_state_leaves_out_is_not_switched_off_by_a_change_of_mode(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.patch_car(
        USER, I4, charging_settings={"chargeAndClimateTimerDetail": {"isPreconditionForDepartureActive": True}}
    )

    receipt = await bmw.send(CommandName.CHARGING_PROFILE, I4, charging_mode="DELAYED_CHARGING")
    await bmw.poll_to_the_end(CommandName.CHARGING_PROFILE, receipt.event_id, I4)

    detail = bmw.sandbox.car(USER, I4)["charging_settings"]["chargeAndClimateTimerDetail"]
    assert detail["isPreconditionForDepartureActive"] is True


async def test_a_window_that_the_state_leaves_out_is_not_reset_by_a_change_of_mode(bmw: Bmw) -> None:
    await bmw.link()
    window = {"startTimeSlot": "0001-01-01T22:15:00", "endTimeSlot": "0001-01-01T05:30:00"}
    bmw.sandbox.patch_car(USER, I4, charging_settings={"chargeAndClimateTimerDetail": {"chargingMode": window}})

    body = await body_of(bmw, Command(CommandName.CHARGING_PROFILE, {"charging_mode": "DELAYED_CHARGING"}), I4)

    assert body["chargingMode"] == {
        "chargingPreference": "CHARGING_WINDOW",
        "type": "TIME_SLOT",
        "startTimeSlot": "0001-01-01T22:15:00.000",
        "endTimeSlot": "0001-01-01T05:30:00.000",
        "timerChange": "NO_CHANGE",
    }


async def test_what_the_state_reports_itself_counts_more_than_the_charging_endpoint(bmw: Bmw) -> None:
    await bmw.link()
    window = {"startTimeSlot": "0001-01-01T22:15:00", "endTimeSlot": "0001-01-01T05:30:00"}
    detail = {"chargingMode": window, "isPreconditionForDepartureActive": True}
    bmw.sandbox.patch_car(USER, REX, charging_settings={"chargeAndClimateTimerDetail": detail})

    body = await body_of(bmw, Command(CommandName.CHARGING_PROFILE, {"charging_mode": "DELAYED_CHARGING"}), REX)

    assert body["chargingMode"]["startTimeSlot"] == "0001-01-01T18:01:00.000"
    assert body["isPreconditionForDepartureActive"] is False


async def test_a_profile_of_which_only_the_state_tells_can_be_changed(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.patch_car(USER, IX, charging_settings={"chargeAndClimateTimerDetail": None})

    body = await body_of(bmw, Command(CommandName.CHARGING_PROFILE, {"precondition_climate": True}))

    assert body["isPreconditionForDepartureActive"] is True
    assert body["chargingMode"]["type"] == "CHARGING_IMMEDIATELY"


async def test_the_profile_is_read_before_the_permit_is_spent(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.fault(match={"path": "vehicles/state"}, fault="status", status=503)
    permit = Permit()

    with pytest.raises(UpstreamError) as caught:
        await bmw.send(CommandName.CHARGING_PROFILE, permit=permit, precondition_climate=True)

    assert caught.value.may_have_succeeded is False
    assert permit.log == []


@pytest.mark.parametrize(
    ("state", "params", "failure"),
    [
        (
            {"chargingProfile": {"chargingControlType": "MOON"}},
            {"charging_mode": "DELAYED_CHARGING"},
            PreconditionFailed,
        ),
        ({"chargingProfile": {"chargingMode": "SOLAR"}}, {"precondition_climate": True}, PreconditionFailed),
        ({"chargingProfile": {"chargingPreference": "CHEAP"}}, {"precondition_climate": True}, PreconditionFailed),
        ({"chargingProfile": None}, {"precondition_climate": True}, NotSupported),
    ],
)
async def test_a_profile_that_is_not_understood_is_not_overwritten(
    bmw: Bmw, state: dict[str, Any], params: dict[str, Any], failure: type[ApiError]
) -> None:
    await bmw.link()
    bmw.sandbox.patch_car(USER, IX, state=state)

    with pytest.raises(failure) as caught:
        await bmw.send(CommandName.CHARGING_PROFILE, **params)

    assert caught.value.may_have_succeeded is False
    assert bmw.sandbox.stats()["commands_received"] == 0


async def test_a_mode_that_is_not_understood_may_be_replaced(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.patch_car(USER, IX, state={"chargingProfile": {"chargingMode": "SOLAR"}})

    receipt = await bmw.send(CommandName.CHARGING_PROFILE, charging_mode="IMMEDIATE_CHARGING")

    assert receipt.outcome is Outcome.ACCEPTED


async def test_a_car_without_a_charging_plan_has_no_profile_to_change(bmw: Bmw) -> None:
    await bmw.link()

    with pytest.raises(NotSupported):
        await bmw.send(CommandName.CHARGING_PROFILE, "WBA00000000DEMO03", precondition_climate=True)


async def test_a_destination_is_taken_and_nothing_more_is_claimed(bmw: Bmw) -> None:
    await bmw.link()
    permit = Permit()

    receipt = await bmw.send(CommandName.SEND_POI, permit=permit, **MUNICH, name="Olympiapark", city="Munich")

    assert (receipt.outcome, receipt.event_id) == (Outcome.DELIVERED, None)
    assert receipt.note
    assert permit.log == ["take"]
    [place] = bmw.sandbox.car(USER, IX)["places"]
    assert place["title"] == "Olympiapark"
    assert place["position"] == {"lat": MUNICH["latitude"], "lng": MUNICH["longitude"]}
    assert place["address"]["city"] == "Munich"


async def test_a_destination_needs_the_accounts_own_id(bmw: Bmw) -> None:
    tokens = await bmw.link()
    await bmw.keeper.save("acc_1", type(tokens)(tokens.access_token, tokens.refresh_token, tokens.expires_at, {}))

    with pytest.raises(RelinkRequired):
        await bmw.send(CommandName.SEND_POI, **MUNICH)

    assert bmw.sandbox.stats()["requests_total"] == 0


async def test_the_finder_tells_where_the_car_is_to_somebody_who_says_where_he_is(bmw: Bmw) -> None:
    await bmw.link()
    receipt = await bmw.send(CommandName.FIND, **MUNICH)

    early = await bmw.poll(CommandName.FIND, receipt.event_id, **MUNICH)
    found = await bmw.poll_to_the_end(CommandName.FIND, receipt.event_id, **MUNICH)

    assert early.position is None
    assert found.position is not None
    assert (found.position.latitude, found.position.longitude) == (MUNICH["latitude"], MUNICH["longitude"])
    assert (found.position.heading_deg, found.position.measured_at) == (180, None)
    assert bmw.asked("eventPosition") == 1


async def test_without_his_own_position_he_is_told_what_is_missing(bmw: Bmw) -> None:
    await bmw.link()
    receipt = await bmw.send(CommandName.FIND)

    found = await bmw.poll_to_the_end(CommandName.FIND, receipt.event_id)

    assert (found.outcome, found.position) == (Outcome.EXECUTED, None)
    assert found.note is not None
    assert "latitude" in found.note
    assert bmw.asked("eventPosition") == 0


async def test_a_car_that_bmw_cannot_find_is_told_so(bmw: Bmw) -> None:
    await bmw.link()
    receipt = await bmw.send(CommandName.FIND, REX, **MUNICH)

    found = await bmw.poll_to_the_end(CommandName.FIND, receipt.event_id, REX, **MUNICH)

    assert (found.outcome, found.position) == (Outcome.EXECUTED, None)
    assert found.note == "BMW does not know where the car is."


@pytest.mark.parametrize("body", [[], {"positionData": {"position": {"latitude": "x", "longitude": 1}}}, {}])
async def test_a_position_that_is_none_is_no_position(bmw: Bmw, body: object) -> None:
    await bmw.link()
    receipt = await bmw.send(CommandName.FIND, **MUNICH)
    bmw.sandbox.fault(match={"path": "eventPosition"}, fault="wrong_type", body=body)

    found = await bmw.poll_to_the_end(CommandName.FIND, receipt.event_id, **MUNICH)

    assert found.position is None


async def test_lookers_do_not_see_each_others_position(bmw: Bmw) -> None:
    await bmw.link()
    receipt = await bmw.send(CommandName.FIND, **MUNICH)
    await bmw.poll_to_the_end(CommandName.FIND, receipt.event_id, **MUNICH)

    other = await bmw.poll(CommandName.FIND, receipt.event_id)

    assert other.position is None


async def test_the_provider_checks_what_it_would_send(bmw: Bmw) -> None:
    with pytest.raises(NotSupported):
        bmw.commands.check(Command(CommandName.CHARGE_START), snapshot_of(I4))
