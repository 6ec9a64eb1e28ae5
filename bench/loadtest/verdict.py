"""What the samples of a load test mean. Pure."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bench.loadtest.client import Sample
from bench.loadtest.mix import Command

OF_THE_MAKER = frozenset(
    {"UPSTREAM_ERROR", "UPSTREAM_INVALID", "UPSTREAM_TIMEOUT", "CIRCUIT_OPEN", "REMOTE_SERVICE_ERROR"}
)
"""What the contract answers while the maker fails: told as such, and not our error."""
_PROMISED = frozenset({"accepted", "pending", "delivered", "executed", "confirmed"})
SERVICES: Mapping[str, str] = {"lock": "door-lock", "unlock": "door-unlock", "flash": "light-flash"}
"""What the maker calls the commands."""


class End(StrEnum):
    """How a request ended."""

    OK = "ok"
    MAKER = "contract error"
    """The contract's word for a failing maker."""
    ERROR = "error"
    """Anything else, no reply at all included."""


def end_of(sample: Sample) -> End:
    """How a request ended; a batch ends as the worst of its parts."""
    try:
        body: Any = json.loads(sample.body)
    except ValueError:
        return End.ERROR
    if not isinstance(body, dict) or sample.status is None:
        return End.ERROR
    ends = [_end(part) for part in _parts(body)]
    if sample.status >= 500 and End.MAKER not in ends:
        return End.ERROR
    return max(ends, key=list(End).index)


def why(sample: Sample) -> str:
    """A short word for what went wrong."""
    if sample.status is None:
        return "no reply"
    try:
        parts = _parts(json.loads(sample.body))
    except ValueError:
        return f"{sample.status} without JSON"
    codes = {str(part["error"]["code"]) for part in parts if not part.get("success")}
    return " ".join([str(sample.status), *sorted(codes)])


@dataclass(frozen=True, slots=True)
class Accounts:
    """The commands' bookkeeping."""

    sent: int
    """By us, each with a key of its own."""
    accepted: int
    """Told as on their way, then or when asked again with the same key."""
    refused: int
    """Told as certainly not done."""
    unknown: int
    """Told as perhaps done."""
    received: int
    """By the maker."""
    lost: int
    """Told as on their way, and never received."""
    twice: int
    """Received more than once."""
    lies: int
    """Told as certainly not done, and received."""

    @property
    def balance(self) -> bool:
        """Whether nothing was lost, doubled or lied about."""
        return self.lost == self.twice == self.lies == 0 and self.accepted + self.refused + self.unknown == self.sent


def settle(commands: Sequence[Command], said: Mapping[str, bytes], received: Mapping[str, int]) -> Accounts:
    """Compare the last reply to each key with how often the maker received it; both by key."""
    told = {command.key: _told(said[command.key]) for command in commands}
    counts = Counter(told.values())
    return Accounts(
        sent=len(commands),
        accepted=counts["accepted"],
        refused=counts["refused"],
        unknown=counts["unknown"],
        received=sum(received.values()),
        lost=sum(told[key] == "accepted" and received[key] == 0 for key in told),
        twice=sum(received[key] > 1 for key in told),
        lies=sum(told[key] == "refused" and received[key] > 0 for key in told),
    )


def _told(reply: bytes) -> str:
    try:
        body = json.loads(reply)
    except ValueError:
        return "no reply"
    record = body["result"] if body["success"] else body["error"]
    if body["success"] and record["state"] in _PROMISED:
        return "accepted"
    # In flight for whoever sent it first, who may be dead: nobody knows yet.
    in_flight = not body["success"] and record["code"] == "IDEMPOTENCY_IN_FLIGHT"
    return "unknown" if in_flight or record["may_have_succeeded"] else "refused"


def _parts(body: dict[str, Any]) -> list[dict[str, Any]]:
    result = body.get("result")
    parts = result.get("responses") if isinstance(result, dict) else None
    return parts if isinstance(parts, list) and parts else [body]


def _end(part: Mapping[str, Any]) -> End:
    if part.get("success") is True:
        return End.OK
    error = part.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return End.MAKER if code in OF_THE_MAKER else End.ERROR
