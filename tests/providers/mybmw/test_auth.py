"""Logging in and renewing tokens, against the sandbox."""

import asyncio
import base64
import contextvars
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import bimmer_connected.api.authentication as library_authentication
import pytest

from common.clock import ManualClock, SystemClock
from common.errors import (
    ApiError,
    AuthenticationFailed,
    CaptchaRequired,
    InternalError,
    ProviderBlocked,
    QuotaLimitExceeded,
    RelinkRequired,
    UpstreamError,
    UpstreamInvalid,
    UpstreamTimeout,
    ValidationFailed,
    Vote,
)
from functions.providers.mybmw import session
from functions.providers.mybmw.auth_manager import AuthManager
from functions.providers.mybmw.failures import BMWAPIError, BMWMisunderstood, Stage, translated
from functions.providers.mybmw.provider import build
from functions.providers.mybmw.session import LoginAttempt, LoginRoute
from functions.providers.mybmw.transport import PooledTransport
from functions.providers.port import Account, Region
from functions.tokens import LEASE_S, RenewalPending, TokenKeeper, TokenSet
from sandbox.mybmw_png import png
from sandbox.process import RunningSandbox
from tests.providers.mybmw.harness import IMPATIENT, PASSWORD, USER, Bmw, credentials, vehicle

MOBILE = "8613812345678"
CONFIG, AUTHENTICATE, TOKEN = "oauth/config", "oauth/authenticate", "oauth/token"


async def refusal(bmw: Bmw, *args: Any, **kwargs: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await bmw.logins.log_in(credentials(*args, **kwargs))
    return caught.value


@pytest.mark.parametrize("region", [Region.REST_OF_WORLD, Region.NORTH_AMERICA])
async def test_a_login_gives_tokens_that_work(bmw: Bmw, region: Region) -> None:
    tokens = await bmw.logins.log_in(credentials(region=region))
    account = Account("acc_1", "mybmw", region)
    await bmw.keeper.save(account.id, tokens)

    assert len(await bmw.provider.reads.list_vehicles(account)) == 9
    assert tokens.extra["gcid"] == bmw.sandbox.issue_tokens(USER)["gcid"]
    assert timedelta(minutes=59) < tokens.expires_at - bmw.clock.utc() < timedelta(minutes=61)
    assert bmw.sandbox.stats()["logins"] == 1


async def test_a_chinese_login_solves_the_captcha_by_itself(bmw: Bmw) -> None:
    tokens = await bmw.logins.log_in(replace(credentials(MOBILE, region=Region.CHINA), captcha_token=None))
    account = Account("acc_1", "mybmw", Region.CHINA)
    await bmw.keeper.save(account.id, tokens)

    assert len(await bmw.provider.reads.list_vehicles(account)) == 9


async def test_a_captcha_is_solved_on_another_thread(bmw: Bmw) -> None:
    loop = asyncio.get_running_loop()
    given, go = asyncio.Event(), threading.Event()

    class Held(ThreadPoolExecutor):
        """Begins nothing before it is told to."""

        def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            loop.call_soon_threadsafe(given.set)
            return super().submit(lambda: (go.wait(), work(*args, **kwargs))[1])

    loop.set_default_executor(Held())
    login = asyncio.create_task(bmw.logins.log_in(credentials(MOBILE, region=Region.CHINA)))
    await given.wait()  # the loop is free to get here
    go.set()

    assert (await login).access_token


def test_a_captcha_is_solved_once() -> None:
    def login() -> tuple[str, str]:
        session._solved.set(("not a picture", "0.42"))
        return get_position("not a picture"), get_position(_picture(hole_x=126))

    session.bind()
    get_position: Callable[[str], str] = vars(library_authentication)["get_capture_position"]  # what the library calls

    assert contextvars.copy_context().run(login) == ("0.42", "0.5")


def _picture(hole_x: int) -> str:
    return base64.b64encode(
        png(200, 90, lambda x, _y: (220, 230, 221) if hole_x <= x < hole_x + 40 else (0, 0, 0))
    ).decode()


@pytest.mark.parametrize("picture", ["bm90IGEgcGljdHVyZQ==", "%%%", None, 7])
async def test_a_captcha_that_is_no_picture_is_an_invalid_reply(bmw: Bmw, picture: object) -> None:
    body = {"data": {"verifyId": "1", "backGroundImg": picture}, "code": 200, "error": False}
    bmw.sandbox.fault(match={"path": "slider-captcha"}, fault="wrong_type", body=body)

    assert isinstance(await refusal(bmw, MOBILE, region=Region.CHINA), UpstreamInvalid)


async def test_a_login_without_a_captcha_asks_for_one_before_it_asks_bmw(bmw: Bmw) -> None:
    with pytest.raises(CaptchaRequired):
        await bmw.logins.log_in(replace(credentials(), captcha_token=None))

    assert bmw.sandbox.stats()["requests_total"] == 0


async def test_a_wrong_password_is_told_as_one_that_may_also_be_a_used_captcha(bmw: Bmw) -> None:
    failure = await refusal(bmw, password="wrong")

    assert isinstance(failure, AuthenticationFailed)
    assert isinstance(failure, BMWAPIError)
    assert "hCaptcha" in failure.message
    assert bmw.sandbox.stats()["logins_refused"] == {"password": 1}


async def test_a_wrong_password_in_china_is_refused(bmw: Bmw) -> None:
    assert isinstance(await refusal(bmw, MOBILE, "wrong", region=Region.CHINA), AuthenticationFailed)


async def test_a_captcha_works_once(bmw: Bmw) -> None:
    once = credentials()
    await bmw.logins.log_in(once)

    with pytest.raises(AuthenticationFailed):
        await bmw.logins.log_in(once)


async def test_a_captcha_that_bmw_names_in_its_refusal_is_asked_for(bmw: Bmw) -> None:
    body = {"error": "invalid_request", "error_description": "hCaptcha token is not valid"}
    bmw.sandbox.fault(match={"path": AUTHENTICATE}, fault="status", status=400, body=body)

    assert isinstance(await refusal(bmw), CaptchaRequired)


async def test_a_blocked_user_is_told_so(bmw: Bmw) -> None:
    assert isinstance(await refusal(bmw, "blocked@example.com"), ProviderBlocked)


@IMPATIENT
@pytest.mark.parametrize("path", [CONFIG, AUTHENTICATE, TOKEN])
@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        ({"fault": "status", "status": 500}, UpstreamError),
        ({"fault": "status", "status": 503}, UpstreamError),
        ({"fault": "reset"}, UpstreamError),
        ({"fault": "truncated"}, UpstreamError),
        ({"fault": "hang"}, UpstreamTimeout),
        ({"fault": "malformed"}, UpstreamInvalid),
        ({"fault": "empty"}, UpstreamInvalid),
        ({"fault": "wrong_type", "body": []}, UpstreamInvalid),
        ({"fault": "wrong_type", "body": {}}, UpstreamInvalid),
        ({"fault": "status", "status": 429}, QuotaLimitExceeded),
        ({"fault": "status", "status": 489}, ProviderBlocked),
    ],
)
async def test_an_outage_during_a_login_is_an_outage(
    bmw: Bmw, path: str, fault: dict[str, Any], failure: type[ApiError]
) -> None:
    bmw.sandbox.fault(match={"path": path}, **fault)

    raised = await refusal(bmw)

    assert isinstance(raised, failure)
    assert isinstance(raised, BMWAPIError)


@pytest.mark.parametrize("path", ["publickey", "slider-captcha", "check-captcha", "login/pwd"])
@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        ({"fault": "status", "status": 503}, UpstreamError),
        ({"fault": "status", "status": 429}, QuotaLimitExceeded),
        ({"fault": "reset"}, UpstreamError),
    ],
)
async def test_an_outage_during_a_chinese_login_is_an_outage(
    bmw: Bmw, path: str, fault: dict[str, Any], failure: type[ApiError]
) -> None:
    bmw.sandbox.fault(match={"path": path}, **fault)

    assert isinstance(await refusal(bmw, MOBILE, region=Region.CHINA), failure)


async def test_an_access_token_that_is_no_token_is_an_invalid_reply(bmw: Bmw) -> None:
    tokens = {"access_token": "no.jwt", "refresh_token": "x", "gcid": "y"}
    bmw.sandbox.fault(match={"path": "login/pwd"}, fault="wrong_type", body={"data": tokens})

    assert isinstance(await refusal(bmw, MOBILE, region=Region.CHINA), UpstreamInvalid)


@pytest.mark.parametrize("tokens", [{"access_token": 7}, {"refresh_token": ""}, {"gcid": None}])
async def test_tokens_that_are_none_are_an_invalid_reply(bmw: Bmw, tokens: dict[str, object]) -> None:
    good = {"access_token": "a", "refresh_token": "r", "expires_in": 3600, "gcid": "g"}
    bmw.sandbox.fault(match={"path": TOKEN}, fault="wrong_type", body={**good, **tokens})

    assert isinstance(await refusal(bmw), UpstreamInvalid)


async def test_a_chinese_captcha_that_is_refused_is_no_fault_of_the_user(bmw: Bmw) -> None:
    bmw.sandbox.fault(match={"path": "check-captcha"}, fault="status", status=422, body={"error": True})

    assert isinstance(await refusal(bmw, MOBILE, region=Region.CHINA), UpstreamError)


@pytest.mark.parametrize("region", list(Region))
async def test_tokens_that_are_about_to_end_are_renewed_and_kept_before_they_are_used(bmw: Bmw, region: Region) -> None:
    account = Account("acc_1", "mybmw", region)
    issued = {"rest_of_world": "row", "north_america": "na", "china": "cn"}[region.value]
    old = await bmw.link(MOBILE if region is Region.CHINA else USER, region=issued, lives_s=30)

    await bmw.provider.reads.read_vehicle(account, vehicle())

    kept = await TokenKeeper(bmw.keeper._documents, bmw.clock).usable("acc_1", _no_refresh)
    assert kept.access_token != old.access_token
    assert kept.refresh_token != old.refresh_token
    assert kept.extra == old.extra
    stats = bmw.sandbox.stats()
    assert (stats["refreshes"], stats["responses"].get("401", 0)) == (1, 0)


async def _no_refresh(_old: object) -> Any:
    raise AssertionError("the stored tokens are not fresh")


async def test_a_chinese_refresh_is_signed_with_the_customers_id(bmw: Bmw) -> None:
    nonces: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        nonces.append(head.lower().partition(b"x-login-nonce: ")[2].split(b"\r\n")[0])
        writer.write(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    listening = await asyncio.start_server(note, "127.0.0.1", 0)
    transport = PooledTransport(clock=SystemClock(), origin=f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    async with listening:
        for gcid in ("", "x" * 36):
            tokens = TokenSet("a", "r", bmw.clock.utc(), {"gcid": gcid})
            with pytest.raises(UpstreamError), translated():
                await LoginAttempt(Region.CHINA, LoginRoute(transport, Stage.REFRESH)).refresh(tokens)
    await transport.shutdown()

    # The id is encrypted in it, in blocks of 16 bytes, 32 digits each.
    assert len(nonces[1]) - len(nonces[0]) == 2 * 32


async def test_the_session_id_stays_the_same_from_login_to_request(bmw: Bmw) -> None:
    tokens = await bmw.logins.log_in(credentials())
    await bmw.keeper.save("acc_1", replace(tokens, expires_at=bmw.clock.utc()))

    await bmw.provider.reads.read_vehicle(bmw.account, vehicle())

    renewed = await bmw.keeper.usable("acc_1", _no_refresh)
    assert renewed.extra["session_id"] == tokens.extra["session_id"]


async def test_a_refresh_token_that_is_dead_means_linking_again(bmw: Bmw) -> None:
    await bmw.link(lives_s=0)
    bmw.sandbox.revoke_refresh(USER)

    with pytest.raises(RelinkRequired):
        await bmw.provider.reads.read_vehicle(bmw.account, vehicle())

    health = await bmw.keeper.health("acc_1")
    assert health is not None
    assert health.needs_relink is True
    assert bmw.sandbox.stats()["logins"] == 0


@pytest.mark.parametrize("error", ["invalid_client", "unauthorized_client", "access_denied", "invalid_token"])
async def test_a_refusal_that_does_not_speak_of_the_refresh_token_costs_no_link(bmw: Bmw, error: str) -> None:
    await bmw.link(lives_s=0)
    bmw.sandbox.fault(match={"path": TOKEN}, fault="status", status=401, body={"error": error}, times=1)

    with pytest.raises(UpstreamError):
        await bmw.provider.reads.read_vehicle(bmw.account, vehicle())

    health = await bmw.keeper.health("acc_1")
    assert health is not None
    assert health.needs_relink is False
    await bmw.provider.reads.read_vehicle(bmw.account, vehicle())


@pytest.mark.parametrize("captcha", ["é", "one\ntwo", " "])
async def test_what_cannot_be_sent_is_no_failure_of_bmws(bmw: Bmw, captcha: str) -> None:
    with pytest.raises(BMWMisunderstood) as caught:
        await bmw.logins.log_in(replace(credentials(), captcha_token=captcha))

    assert caught.value.vote is Vote.NONE


async def test_a_password_that_is_too_long_for_chinas_key_asks_nothing(bmw: Bmw) -> None:
    with pytest.raises(ValidationFailed) as caught:
        await bmw.logins.log_in(credentials(MOBILE, "é" * 59, region=Region.CHINA))

    assert caught.value.details["fields"][0]["path"] == "password"
    assert bmw.sandbox.stats()["requests_total"] == 0


async def test_a_token_that_bmw_refuses_early_is_renewed_and_the_request_goes_out_again(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.expire_access(USER)

    snapshot = await bmw.provider.reads.read_vehicle(bmw.account, vehicle())

    assert snapshot.mileage_km == 1121
    stats = bmw.sandbox.stats()
    assert (stats["refreshes"], stats["responses"]["401"]) == (1, 1)


async def test_a_token_that_is_refused_although_it_is_new_means_linking_again(bmw: Bmw) -> None:
    await bmw.link()
    bmw.sandbox.fault(match={"path": "vehicles/state"}, fault="status", status=401)

    with pytest.raises(RelinkRequired) as caught:
        await bmw.provider.reads.read_vehicle(bmw.account, vehicle())

    assert isinstance(caught.value, BMWAPIError)
    stats = bmw.sandbox.stats()
    assert (stats["refreshes"], stats["responses"]["401"]) == (1, 2)


async def test_forgetting_an_account_drops_its_session_and_its_tokens_in_memory(bmw: Bmw) -> None:
    old = await bmw.link()
    await bmw.provider.reads.read_vehicle(bmw.account, vehicle())
    other = TokenKeeper(bmw.keeper._documents, bmw.clock)
    await other.save("acc_1", replace(old, access_token="another"))

    assert (await bmw.keeper.usable("acc_1", _no_refresh)).access_token == old.access_token
    await bmw.logins.forget("acc_1")

    assert (await bmw.keeper.usable("acc_1", _no_refresh)).access_token == "another"


@pytest.fixture
async def manager(bmw: Bmw) -> AsyncIterator[AuthManager]:
    transport = PooledTransport(clock=SystemClock(), origin=bmw.sandbox.origin)
    yield AuthManager(transport, bmw.keeper, bmw.clock, session_ttl_s=100.0, max_sessions=2)
    await transport.shutdown()


def _account(number: int) -> Account:
    return Account(f"acc_{number}", "mybmw", Region.REST_OF_WORLD)


async def test_a_session_is_kept_for_its_time(manager: AuthManager, clock: ManualClock) -> None:
    first = manager.session(_account(1))

    clock.advance(99.9)
    assert manager.session(_account(1)) is first
    clock.advance(0.1)
    assert manager.session(_account(1)) is not first


async def test_the_session_that_was_not_used_for_longest_makes_room(manager: AuthManager) -> None:
    first, second = manager.session(_account(1)), manager.session(_account(2))

    manager.session(_account(1))
    manager.session(_account(3))

    assert manager.session(_account(1)) is first
    assert manager.session(_account(2)) is not second


async def test_a_forgotten_session_is_not_used_again(manager: AuthManager) -> None:
    first = manager.session(_account(1))

    await manager.forget("acc_1")
    await manager.forget("acc_unknown")

    assert manager.session(_account(1)) is not first


async def test_a_defect_in_our_own_storage_does_not_pass_for_a_bad_reply(
    bmw: Bmw, sandbox: RunningSandbox, clock: ManualClock
) -> None:
    await bmw.keeper._documents.create("tokens/acc_2", {"nonsense": True})

    with pytest.raises(InternalError):
        await bmw.provider.reads.read_vehicle(_account(2), vehicle())


async def test_a_server_that_cannot_be_reached_is_an_outage(bmw: Bmw) -> None:
    unreachable = build(tokens=bmw.keeper, clock=bmw.clock, origin="http://127.0.0.1:1")
    assert unreachable.log_in is not None

    with pytest.raises(UpstreamError):
        await unreachable.log_in.log_in(credentials())
    await unreachable.close()


async def test_credentials_are_not_shown() -> None:
    assert PASSWORD not in repr(credentials())
    assert USER not in repr(credentials())


# --- renewals whose answer does not come ------------------------------------------------------------------------------


@pytest.mark.parametrize("region", [Region.REST_OF_WORLD, Region.CHINA])
async def test_an_answer_with_new_tokens_is_waited_for_longer_than_any_other(
    bmw: Bmw, clock: ManualClock, region: Region
) -> None:
    impatient = build(tokens=bmw.keeper, clock=clock, origin=bmw.sandbox.origin, request_timeout_s=0.3)
    account = Account("acc_1", "mybmw", region)
    await bmw.link(
        MOBILE if region is Region.CHINA else USER, region="cn" if region is Region.CHINA else "row", lives_s=0
    )
    bmw.sandbox.fault(match={"path": TOKEN}, fault="slow", when="after", delay_ms=700, times=1)

    await impatient.reads.read_vehicle(account, vehicle())

    assert bmw.sandbox.stats()["refreshes"] == 1
    await impatient.close()


@IMPATIENT
@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "hang"},
        {"fault": "reset"},
        {"fault": "status", "status": 504},
        {"fault": "malformed", "perform": False},
        {"fault": "truncated", "perform": False},
    ],
)
async def test_a_refresh_token_that_bmw_may_have_taken_is_not_shown_again_before_the_lease_ends(
    bmw: Bmw, fault: dict[str, Any]
) -> None:
    await bmw.link(lives_s=0)
    bmw.sandbox.fault(match={"path": TOKEN}, **fault)

    with pytest.raises(ApiError) as caught:
        await bmw.provider.reads.read_vehicle(bmw.account, vehicle())
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s > 20, "any retry would come before the read's deadline"
    bmw.sandbox.clear_faults()
    other = TokenKeeper(bmw.keeper._documents, bmw.clock, sleep=bmw.keeper._sleep)
    for keeper in (bmw.keeper, other):
        with pytest.raises(RenewalPending):
            await keeper.usable("acc_1", _no_refresh)
    assert bmw.asked(TOKEN) == 1

    bmw.clock.advance(LEASE_S)
    await bmw.provider.reads.read_vehicle(bmw.account, vehicle())


@pytest.mark.parametrize(
    "fault",
    [
        {"path": CONFIG, "fault": "reset"},
        {"path": CONFIG, "fault": "malformed"},
        {"path": TOKEN, "fault": "status", "status": 503},
        {"path": TOKEN, "fault": "status", "status": 429},
        {"path": TOKEN, "fault": "status", "status": 401, "body": "<html>"},
    ],
)
async def test_a_refresh_token_that_bmw_has_not_taken_may_be_shown_again_at_once(
    bmw: Bmw, fault: dict[str, Any]
) -> None:
    await bmw.link(lives_s=0)
    bmw.sandbox.fault(match={"path": fault.pop("path")}, times=1, **fault)

    with pytest.raises(ApiError):
        await bmw.provider.reads.read_vehicle(bmw.account, vehicle())
    await bmw.provider.reads.read_vehicle(bmw.account, vehicle())

    assert bmw.sandbox.stats()["refreshes"] == 1


async def test_a_refresh_token_that_never_left_may_be_shown_again_at_once(bmw: Bmw) -> None:
    await bmw.link(lives_s=0)
    unreachable = build(tokens=bmw.keeper, clock=bmw.clock, origin="http://127.0.0.1:1")

    with pytest.raises(UpstreamError):
        await unreachable.reads.read_vehicle(bmw.account, vehicle())
    await unreachable.close()
    await bmw.provider.reads.read_vehicle(bmw.account, vehicle())
