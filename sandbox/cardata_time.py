"""Times of the simulated service: seconds since 1970 inside, ISO 8601 in UTC outside."""

from datetime import UTC, datetime

from sandbox.mybmw_clock import ShiftedClock, iso_milliseconds


def now_s(clock: ShiftedClock) -> float:
    """The simulated wall clock, in seconds since 1970."""
    return clock.utc().timestamp()


def real_s(clock: ShiftedClock) -> float:
    """Monotonic seconds that nobody pushes forward: what a network connection lives by."""
    return clock.monotonic() - clock.ahead_s


def iso_s(moment_s: float) -> str:
    """As measurements are stamped: ``2026-01-05T06:41:00Z``."""
    return f"{datetime.fromtimestamp(moment_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


def iso_ms(moment_s: float) -> str:
    """As messages are stamped: ``2026-01-05T06:41:00.250Z``."""
    return iso_milliseconds(datetime.fromtimestamp(moment_s, UTC))


def parse_iso(text: object) -> float:
    """Seconds since 1970 of an ISO 8601 time; one without a zone is UTC. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError("not an ISO 8601 time")  # noqa: TRY004 - as every other bad time
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
