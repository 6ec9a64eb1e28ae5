"""Who is calling, and what they may do.

Identity is fail-closed: without configuration nobody is let in.
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
    """Treats whoever reaches the port as the one caller there is."""

    _caller = Caller("open", ALL_SCOPES)

    async def identify(self, headers: Mapping[str, str]) -> Caller:  # noqa: ARG002 - the port's signature
        """The one caller there is."""
        return self._caller
