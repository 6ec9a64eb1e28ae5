"""A car that an account owns: a recording until it first changes, then its own copy."""

from collections.abc import Mapping
from typing import Any

from sandbox.mybmw_documents import SECTIONS, Documents, Recording


class Car:
    """One vehicle of one account."""

    __slots__ = ("_own", "brand", "documents", "mapping", "places", "vin")

    def __init__(self, recording: Recording, vin: str | None = None) -> None:
        self.vin = vin or recording.vin
        self.brand = recording.brand
        self.mapping: Mapping[str, Any] = {**recording.mapping, "vin": self.vin}
        self.documents = recording.documents
        self.places: list[dict[str, Any]] = []
        """Points of interest sent to the car, oldest first."""
        self._own = False

    def edit(self) -> Documents:
        """The car's own documents, to be changed now."""
        if not self._own:
            self.documents = self.documents.copy()
            self._own = True
        self.documents.changed()
        return self.documents

    def patch(self, sections: Mapping[str, Any]) -> None:
        """Merge JSON merge patches (RFC 7396) into sections of the documents.

        A time of the state that is patched stays at that value. Raises ValueError for an unknown section, for a
        patch that is not an object, or for charging settings of a car that has none.
        """
        for name, patch in sections.items():
            if name not in SECTIONS:
                raise ValueError(f"unknown section {name!r}: use {', '.join(SECTIONS)}")
            if not isinstance(patch, dict):
                raise ValueError(f"section {name!r} is not an object")  # noqa: TRY004 - as every other bad patch
            if self.documents.section(name) is None:
                raise ValueError(f"{self.vin} has no {name}")
        documents = self.edit()
        for name, patch in sections.items():
            merge_patch(documents.section(name), patch)
        documents.pinned |= {"lastFetched", "lastUpdatedAt"} & set(sections.get("state", ()))

    def truth(self) -> dict[str, Any]:
        """Everything the simulator knows of the car, for the control endpoint."""
        return {name: self.documents.section(name) for name in SECTIONS} | {"vin": self.vin, "places": self.places}


def merge_patch(target: Any, patch: Mapping[str, Any]) -> None:  # noqa: ANN401 - any JSON document
    """Merge ``patch`` into ``target`` in place: null removes, objects merge, all else replaces."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            if not isinstance(target.get(key), dict):
                target[key] = {}
            merge_patch(target[key], value)
        else:
            target[key] = value
