"""Which limits apply to a request, and what a reply says of them.

Quotas by caller and by account, one for each kind of action; logins by caller and by identity; forced reads by
vehicle. Quotas are fixed windows, whose reset is exact to the second; logins and forced reads are rare and must not
come twice as often around a boundary, so their windows move.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from common.errors import RateLimitExceeded
from common.ratelimit import Decision, Limit, Standing, parse_limit, policy_header, state_header
from common.ratelimit_fixed import FixedLimiter
from common.ratelimit_moving import MovingLimiter


@dataclass(frozen=True, slots=True)
class LimitPolicy:
    """Each limit in the notation of `limits`, ``600/minute;10000/hour``; an empty string sets none.

    Names are ``<by whom>_<kind of action>``.
    """

    caller_read: str = "600/minute;10000/hour"
    caller_command: str = "30/minute;300/hour"
    caller_account: str = "30/minute"
    caller_service: str = "120/minute"
    account_read: str = "300/minute"
    account_command: str = "20/minute;120/hour"
    account_account: str = "30/minute"
    login_caller: str = "30/minute;600/hour"
    """Logins that need more than memory: a password to verify, or a login at the maker."""
    login_identity: str = "10/minute;30/hour"
    """The same, for one maker's account of one caller."""
    vehicle_fresh: str = "12/hour"
    """Forced reads of one vehicle, whoever has linked it."""


class LimitRefused(RateLimitExceeded):
    """One of our limits, with how the windows stand for the reply's headers."""

    def __init__(self, decision: Decision, message: str, reason: str) -> None:
        """``reason`` is machine-readable."""
        name = decision.refused_by.name if decision.refused_by else ""
        super().__init__(message, details={"limit": name, "reason": reason}, retry_after_s=decision.retry_after_s)
        self.standings = decision.standings


class Tally:
    """How the limits stand for one request. Of the parts of a batch the last one says it."""

    __slots__ = ("_standings",)

    def __init__(self) -> None:
        self._standings: dict[str, Standing] = {}

    def note(self, standings: tuple[Standing, ...]) -> None:
        """What one limit said."""
        for standing in standings:
            self._standings[standing.window.name] = standing

    def headers(self) -> dict[str, str]:
        """``RateLimit-Policy`` and ``RateLimit``, the tightest first; empty where no limit applied."""
        if not self._standings:
            return {}
        standings = sorted(self._standings.values(), key=_tightness)
        return {"RateLimit-Policy": policy_header(standings), "RateLimit": state_header(standings)}


class RequestLimits:
    """The limits of one worker. All methods raise LimitRefused, and count nothing then in the limit that refuses."""

    def __init__(self, policy: LimitPolicy, quotas: FixedLimiter, exact: MovingLimiter) -> None:
        """Parses the policy; raises ValueError, with the limit's name."""
        self._quotas = quotas
        self._exact = exact
        self._limits = _parsed(policy)

    async def admit_caller(self, principal: str, kind: str, tally: Tally) -> None:
        """Count a request, or a part of a batch, by its caller. ``kind`` is the action's."""
        await self._count(f"caller-{kind}", principal, tally)

    async def admit_account(self, account_id: str, kind: str, tally: Tally) -> None:
        """Count a request, or a part of a batch, by the account it is about."""
        await self._count(f"account-{kind}", account_id, tally)

    async def admit_login(self, principal: str, identity: str) -> None:
        """Count a login, before its password costs anything. ``identity`` is the digest of :func:`identity_of`."""
        for name, key in (("login-caller", principal), ("login-identity", identity)):
            limit = self._limits.get(name)
            if limit is None:
                continue
            decision = await self._exact.take(limit, key)
            if not decision.allowed:
                raise LimitRefused(decision, "Too many logins.", "too_many_logins")

    async def admit_fresh_read(self, vehicle: str) -> None:
        """Count a forced read of a vehicle, named as in :mod:`functions.vehicle_names`.

        Call it where the read is about to be sent, once for all who share it.
        """
        limit = self._limits.get("vehicle-fresh")
        if limit is None:
            return
        decision = await self._exact.take(limit, vehicle)
        if not decision.allowed:
            raise LimitRefused(decision, _BATTERY, "protects_12v_battery")

    async def _count(self, name: str, key: str, tally: Tally) -> None:
        limit = self._limits.get(name)
        if limit is None:
            return
        decision = await self._quotas.take(limit, key)
        tally.note(decision.standings)
        if not decision.allowed:
            raise LimitRefused(decision, "Too many requests.", "too_many_requests")

    async def admit_fresh_list(self, account_id: str) -> None:
        """Count a forced list of an account's vehicles: as many as forced reads of one vehicle."""
        limit = self._limits.get("vehicle-fresh")
        if limit is None:
            return
        decision = await self._exact.take(limit, f"list {account_id}")
        if not decision.allowed:
            raise LimitRefused(decision, _LISTED, "too_many_lists")


_BATTERY = (
    "This vehicle has been read afresh as often as it should be for now: each forced read can wake the car and drain "
    "its 12 V battery. Cached data can still be read: leave out `fresh`, or allow a greater `max_age_s`."
)

_LISTED = (
    "This account's vehicles have been listed afresh as often as they should be for now: each list costs the maker's "
    "requests. The list that is held can still be read: leave out `fresh`, or allow a greater `max_age_s`."
)


def _parsed(policy: LimitPolicy) -> Mapping[str, Limit]:
    rows = {field.name.replace("_", "-"): getattr(policy, field.name) for field in fields(policy)}
    return {name: _limit(name, notation) for name, notation in rows.items() if notation}


def _limit(name: str, notation: str) -> Limit:
    try:
        return parse_limit(name, notation)
    except ValueError as bad:
        raise ValueError(f"the limit {name} is not like 600/minute;10000/hour") from bad


def _tightness(standing: Standing) -> tuple[int, float]:
    return standing.remaining, -standing.reset_s
