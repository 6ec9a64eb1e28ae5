"""The JSON documents of one car, kept encoded: a read costs two byte replacements.

The nine recorded cars are shared by every account; an account's car takes a copy of its own when it first changes
(:meth:`Documents.copy`), so that a fresh account costs next to nothing.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from bimmer_connected.tests import ALL_CHARGING_SETTINGS, ALL_PROFILES, ALL_STATES, ALL_VEHICLES

_VIN: Final = "@@vin@@"
_NOW: Final = "@@now@@"
_TIMES: Final = ("lastFetched", "lastUpdatedAt")
_NEVER: Final = "0001-01-01"
"""What the service says of a car that has never reported."""

SECTIONS: Final = ("profile", "state", "capabilities", "charging_settings")


class Documents:
    """Profile, state (with capabilities) and charging settings of one car.

    ``pinned`` names the state's times that stay as they are even when times are live.
    """

    __slots__ = ("_encoded", "charging_settings", "pinned", "profile", "state_document")

    def __init__(
        self,
        profile: dict[str, Any],
        state_document: dict[str, Any],
        charging_settings: dict[str, Any] | None,
        pinned: frozenset[str] = frozenset(),
    ) -> None:
        self.profile = profile
        self.state_document = state_document
        self.charging_settings = charging_settings
        self.pinned = pinned
        self._encoded: dict[str, bytes] = {}

    @property
    def state(self) -> dict[str, Any]:
        """The part of the state document that the car reports."""
        state: dict[str, Any] = self.state_document["state"]
        return state

    def section(self, name: str) -> dict[str, Any] | None:
        """One of SECTIONS; None where the car has no charging settings."""
        if name == "profile":
            return self.profile
        if name == "charging_settings":
            return self.charging_settings
        part: dict[str, Any] = self.state_document[name]
        return part

    def encoded_profile(self, vin: str) -> bytes:
        """The profile of the car with this VIN."""
        return self._once("profile", lambda: {**self.profile, "vin": _VIN}).replace(_VIN.encode(), vin.encode())

    def encoded_charging_settings(self) -> bytes | None:
        """The charging settings, None where there are none."""
        if self.charging_settings is None:
            return None
        return self._once("charging_settings", lambda: self.charging_settings)

    def encoded_state(self, now: str | None) -> bytes:
        """The state document; with ``now`` its times say that the car has just reported."""
        if now is None:
            return self._once("state", lambda: self.state_document)
        return self._once("live", self._with_live_times).replace(_NOW.encode(), now.encode())

    def copy(self) -> "Documents":
        """A deep copy."""
        profile, state, charging = orjson.loads(
            orjson.dumps([self.profile, self.state_document, self.charging_settings])
        )
        return Documents(profile, state, charging, self.pinned)

    def changed(self) -> None:
        """Forget what was encoded: the caller has changed a document."""
        self._encoded.clear()

    def _with_live_times(self) -> dict[str, Any]:
        live = {
            name: _NOW
            for name in _TIMES
            if name not in self.pinned and not str(self.state.get(name, _NEVER)).startswith(_NEVER)
        }
        return {**self.state_document, "state": {**self.state, **live}}

    def _once(self, name: str, document: Any) -> bytes:  # noqa: ANN401 - a function that gives any JSON document
        encoded = self._encoded.get(name)
        if encoded is None:
            encoded = self._encoded[name] = orjson.dumps(document())
        return encoded


@dataclass(frozen=True, slots=True)
class Recording:
    """A real car that was recorded."""

    vin: str
    brand: str
    """Whose list it is in: bmw, mini or toyota."""
    mapping: Mapping[str, Any]
    """Its entry in the vehicle list."""
    documents: Documents


@functools.cache
def recordings() -> Mapping[str, Recording]:
    """The nine recorded cars by VIN, in the order of their VINs."""
    found = [
        Recording(
            entry["vin"],
            brand,
            entry,
            Documents(ALL_PROFILES[entry["vin"]], ALL_STATES[entry["vin"]], ALL_CHARGING_SETTINGS.get(entry["vin"])),
        )
        for brand, listed in ALL_VEHICLES.items()
        for entry in listed["mappingInfos"]
    ]
    return {recording.vin: recording for recording in sorted(found, key=lambda recording: recording.vin)}
