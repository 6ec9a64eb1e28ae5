"""Who is calling: fail-closed."""

import pytest

from common.callers import ALL_SCOPES, Caller, NoCallers, OpenCallers, Scope
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
