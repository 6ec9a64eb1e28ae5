"""Who is calling: fail-closed."""

from collections.abc import Mapping

import pytest

from common.callers import ALL_SCOPES, Caller, ConfiguredCallers, NoCallers, OpenCallers, Scope
from common.errors import CallerUnauthenticated


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer x"}, {"x-api-key": "anything"}])
async def test_without_configuration_nobody_is_let_in(headers: dict[str, str]) -> None:
    with pytest.raises(CallerUnauthenticated):
        await NoCallers().identify(headers)


async def test_an_open_deployment_has_one_caller_who_may_do_everything() -> None:
    callers = OpenCallers()
    first, second = await callers.identify({}), await callers.identify({"authorization": "Bearer x"})
    assert first == second == Caller("open", ALL_SCOPES)


def test_position_and_unlocking_are_scopes_of_their_own() -> None:
    assert {Scope.READ, Scope.LOCATION, Scope.COMMAND, Scope.UNLOCK} <= ALL_SCOPES
    assert frozenset(Scope) == ALL_SCOPES


class Named:
    """Lets everybody in under one name."""

    def __init__(self, name: str) -> None:
        self.caller = Caller(name, frozenset({Scope.READ}))

    async def identify(self, headers: Mapping[str, str]) -> Caller:
        return self.caller


KEYS, TOKENS = Named("key"), Named("token")


@pytest.mark.parametrize(
    ("api_keys", "bearers", "headers", "expected"),
    [
        (KEYS, None, {"x-api-key": "k"}, KEYS),
        (None, TOKENS, {"authorization": "Bearer t"}, TOKENS),
        (KEYS, TOKENS, {"x-api-key": "k"}, KEYS),
        (KEYS, TOKENS, {"authorization": "Bearer t"}, TOKENS),
        # The platform's own IAM may have used the other header.
        (KEYS, None, {"x-api-key": "k", "authorization": "Bearer t"}, KEYS),
        (None, TOKENS, {"x-api-key": "k", "authorization": "Bearer t"}, TOKENS),
        (KEYS, TOKENS, {"x-api-key": "k", "authorization": "Bearer t"}, None),
        (KEYS, TOKENS, {}, None),
        (KEYS, None, {"authorization": "Bearer t"}, None),
        (None, TOKENS, {"x-api-key": "k"}, None),
        (KEYS, TOKENS, {"x-serverless-authorization": "Bearer t"}, None),
        (None, None, {"x-api-key": "k", "authorization": "Bearer t"}, None),
    ],
)
async def test_a_caller_is_known_by_exactly_one_credential_of_a_configured_kind(
    api_keys: Named | None, bearers: Named | None, headers: dict[str, str], expected: Named | None
) -> None:
    callers = ConfiguredCallers(api_keys=api_keys, bearers=bearers)
    if expected is None:
        with pytest.raises(CallerUnauthenticated):
            await callers.identify(headers)
    else:
        assert await callers.identify(headers) == expected.caller
