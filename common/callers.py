"""Who is calling, and what they may do.

Identity is fail-closed: without configuration nobody is let in. API keys are :mod:`common.api_keys`, OIDC and Firebase
tokens :mod:`common.oidc`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from common.errors import CallerUnauthenticated


class Scope(StrEnum):
    """What a caller may be allowed to do; each action names one."""

    READ = "read"
    LOCATION = "location"
    """Apart from ``read``: where a car stands is the most private thing it knows."""
    COMMAND = "command"
    UNLOCK = "unlock"
    ACCOUNT = "account"
    ADMIN = "admin"


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller."""

    principal: str
    """Unique and stable; never an e-mail address."""
    scopes: frozenset[Scope]


class Callers(Protocol):
    """Tells who is calling."""

    async def identify(self, headers: Mapping[str, str]) -> Caller:
        """The caller behind a request with these headers (lower-case names).

        Raises CallerUnauthenticated.
        """
        ...


class NoCallers:
    """Lets nobody in: what an empty configuration means."""

    async def identify(self, headers: Mapping[str, str]) -> Caller:  # noqa: ARG002 - the port's signature
        """Refuse."""
        raise CallerUnauthenticated("This deployment accepts no callers: none are configured.")


class OpenCallers:
    """Treats whoever reaches the port as the one caller there is: for a laptop."""

    _caller = Caller("open", ALL_SCOPES)

    async def identify(self, headers: Mapping[str, str]) -> Caller:  # noqa: ARG002 - the port's signature
        """The one caller there is."""
        return self._caller


class ConfiguredCallers:
    """Callers with an API key (``X-API-Key``), callers with a bearer token (``Authorization``), or both.

    A header whose kind is not configured is not looked at: the platform's own IAM may have used it.
    ``X-Serverless-Authorization`` is always the platform's and never tells who a caller is.
    """

    def __init__(self, *, api_keys: Callers | None = None, bearers: Callers | None = None) -> None:
        self._api_keys = api_keys
        self._bearers = bearers

    async def identify(self, headers: Mapping[str, str]) -> Caller:
        """The caller behind the one credential that the request carries.

        Raises CallerUnauthenticated, and what the configured kinds raise.
        """
        by_key = self._api_keys if "x-api-key" in headers else None
        by_token = self._bearers if "authorization" in headers else None
        if by_key is not None and by_token is not None:
            # Two answers to one question: a proxy that adds one of them must not decide who is meant.
            raise CallerUnauthenticated("Send an API key or a bearer token, not both.")
        chosen = by_key or by_token
        if chosen is None:
            raise CallerUnauthenticated
        return await chosen.identify(headers)
