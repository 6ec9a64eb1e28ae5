"""A command as it is stored and as it is shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from functions.providers.port import Command, CommandName
from functions.snapshot import EMPTY

_FINAL = frozenset({"confirmed", "failed", "unknown", "expired"})
_ORDER = {"accepted": 0, "pending": 1, "delivered": 2, "executed": 3, "confirmed": 4}
_STATUS = {
    "accepted": "pending",
    "pending": "pending",
    "delivered": "pending",
    "executed": "success",
    "confirmed": "success",
    "failed": "failed",
    "expired": "failed",
    "unknown": "unknown",
}


@dataclass(frozen=True, slots=True)
class Record:
    """A command as it is stored."""

    id: str
    principal: str
    account_id: str
    vin: str
    vehicle: str
    """Names the vehicle in the keys of other documents: :mod:`functions.vehicle_names`."""
    command: Command
    fingerprint: str
    """Digest of what is asked: account, vehicle, command and parameters."""
    created_at: datetime
    expires_at: datetime
    """Nothing of it is sent from here on."""
    updated_at: datetime
    key_digest: str | None = None
    """Digest of the caller's Idempotency-Key."""
    state: str = "accepted"
    event_id: str | None = None
    sent_at: datetime | None = None
    executed_at: datetime | None = None
    confirmed_at: datetime | None = None
    settled: bool = False
    """Nothing more will be learnt: the state is final although its name alone does not say so."""
    note: str | None = None
    position: Mapping[str, Any] | None = None
    failure: Mapping[str, Any] | None = None
    """The error that answered the request: ``code``, ``message``, ``retry_after_s``, ``may_have_succeeded``."""

    @property
    def is_over(self) -> bool:
        """Whether the maker is done with it: another command may be sent to the vehicle."""
        return self.is_final or self.state == "executed"

    @property
    def is_final(self) -> bool:
        """Whether the record will not change any more."""
        return self.settled or self.state in _FINAL

    def result(self, *, deduplicated: bool = False) -> dict[str, Any]:
        """The contract's shape."""
        confirmed = self.confirmed_at is not None and self.sent_at is not None
        shown: dict[str, Any] = {
            "operation": self.command.name.value,
            "status": "success" if self.settled and self.state == "delivered" else _STATUS[self.state],
            "state": self.state,
            "command_id": self.id,
            "confirmed_by": "telemetry" if confirmed else None,
            "confirmed_after_s": (
                round((self.confirmed_at - self.sent_at).total_seconds(), 3)
                if self.confirmed_at is not None and self.sent_at is not None
                else None
            ),
            "sent_at": self.sent_at,
            "updated_at": self.updated_at,
            "may_have_succeeded": self.state not in ("failed", "expired"),
            "deduplicated": deduplicated,
            "note": self.note,
        }
        if self.position is not None:
            shown["position"] = dict(self.position)
        return shown


def is_behind(state: str, other: str) -> bool:
    """Whether a command in ``other`` state has been in ``state`` before: it never goes back."""
    return _ORDER.get(state, 9) < _ORDER.get(other, 0)


def key_of(command_id: str) -> str:
    """Where a record is stored: under its account, so that all of an account's can be found and deleted."""
    return f"commands/{account_of(command_id)}/{command_id}"


def account_of(command_id: str) -> str:
    """The account that a command's id names."""
    return f"acc_{command_id.split('_')[1]}"


def to_body(record: Record) -> dict[str, Any]:
    """The stored form."""

    def iso(at: datetime | None) -> str | None:
        return at.isoformat() if at else None

    return {
        "id": record.id,
        "principal": record.principal,
        "account_id": record.account_id,
        "vin": record.vin,
        "vehicle": record.vehicle,
        "command": record.command.name.value,
        "fingerprint": record.fingerprint,
        "key_digest": record.key_digest,
        "params": dict(record.command.params),
        "created_at": iso(record.created_at),
        "expires_at": iso(record.expires_at),
        "updated_at": iso(record.updated_at),
        "state": record.state,
        "event_id": record.event_id,
        "sent_at": iso(record.sent_at),
        "executed_at": iso(record.executed_at),
        "confirmed_at": iso(record.confirmed_at),
        "settled": record.settled,
        "note": record.note,
        "position": dict(record.position) if record.position is not None else None,
        "failure": dict(record.failure) if record.failure is not None else None,
    }


def from_body(body: Mapping[str, Any]) -> Record:
    """The record behind a stored form."""

    def at(name: str) -> datetime:
        return datetime.fromisoformat(body[name]).astimezone(UTC)

    def perhaps(name: str) -> datetime | None:
        return at(name) if body[name] else None

    return Record(
        id=body["id"],
        principal=body["principal"],
        account_id=body["account_id"],
        vin=body["vin"],
        # Written before vehicles had names: whatever is kept for the vehicle ends by itself.
        vehicle=body.get("vehicle", body["id"]),
        command=Command(CommandName(body["command"]), body["params"] or EMPTY),
        fingerprint=body["fingerprint"],
        key_digest=body["key_digest"],
        created_at=at("created_at"),
        expires_at=at("expires_at"),
        updated_at=at("updated_at"),
        state=body["state"],
        event_id=body["event_id"],
        sent_at=perhaps("sent_at"),
        executed_at=perhaps("executed_at"),
        confirmed_at=perhaps("confirmed_at"),
        settled=body["settled"],
        note=body["note"],
        position=body["position"],
        failure=body["failure"],
    )
