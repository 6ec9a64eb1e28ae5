"""The generated part of ``docs/cardata.md``: which value each provider has, told by the cars of both simulators.

Each car's documents go through its provider's own mapping, and what then stands in a ``status`` counts. Pure: no server
is started.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from functions.actions import shapes
from functions.providers.cardata import descriptors as d
from functions.providers.cardata.garage import to_profile
from functions.providers.cardata.garage import to_vehicle as to_cardata_vehicle
from functions.providers.cardata.mapping import to_snapshot as to_cardata_snapshot
from functions.providers.cardata.signals import merge, received
from functions.providers.mybmw.mapping import to_snapshot, to_vehicle
from functions.providers.port import Region
from functions.snapshot import Snapshot
from sandbox.cardata_catalogue import DESCRIPTORS
from sandbox.cardata_customers import Car, Customers
from sandbox.cardata_documents import basic_data
from sandbox.mybmw_documents import recordings

BEGIN: Final = "<!-- What follows is written by `make docs` from both mappings; edit those instead. -->"
END: Final = "<!-- Here ends what `make docs` writes. -->"
_MOMENTS: Final = tuple(
    datetime(2026, 1, 5, hour, minute, tzinfo=UTC) for hour, minute in ((6, 40), (7, 15), (12, 0), (23, 0))
)
"""A Monday of the simulated cars: conditioned, driving, asleep, charging."""
_POSITIONS: Final = re.compile(r"\.((left|right|front|rear|driver|passenger)(_\w+)?)(?=\.|$)")


def page(written: str) -> str:
    """The page with the table as it must be. Raises ValueError where the two marks are not there."""
    before, _, rest = written.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"docs/cardata.md lacks {BEGIN!r} or {END!r}")
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"


def table() -> str:
    """Signal by provider, and what only CarData reports."""
    mybmw, cardata = _told(mybmw_snapshots()), _told(cardata_snapshots())
    names = {**mybmw[0], **cardata[0]}
    whole = {name for name in names if any(other.startswith((f"{name}.", f"{name}[]")) for other in names)}
    fields = [name for name in names.keys() - whole if not name.startswith("extra.")]
    lines = ["| value of `status` | MyBMW | CarData |", "|---|---|---|"]
    lines += [f"| `{name}` | {_mark(name, mybmw)} | {_mark(name, cardata)} |" for name in sorted(fields)]
    extra = sorted(name.removeprefix("extra.") for name in cardata[1] if name.startswith("extra."))
    also = ", ".join(f"`{name.removeprefix('location.')}`" for name in extra)
    return "\n".join(lines) + f"\n\nCarData also has, under `extra` of `status` and by BMW's names: {also}.\n"


def mybmw_snapshots() -> Iterator[Snapshot]:
    """The recorded cars."""
    for recording in recordings().values():
        documents = recording.documents
        data = {**documents.state_document, "charging_settings": documents.charging_settings}
        vehicle = to_vehicle(recording.vin, documents.profile)
        yield to_snapshot(vehicle, data, fetched_at=_MOMENTS[0], region=Region.REST_OF_WORLD)


def cardata_snapshots() -> Iterator[Snapshot]:
    """The simulated cars, at several times of a day."""
    for car in Customers(_MOMENTS[0].timestamp()).cars.values():
        vehicle = to_cardata_vehicle(car.vin, to_profile(basic_data(car)))
        for moment in _MOMENTS:
            signals = merge({}, received(_telematic_data(car, moment), at=moment, via="rest"))
            yield to_cardata_snapshot(vehicle, signals, fetched_at=moment)


def _telematic_data(car: Car, moment: datetime) -> dict[str, Any]:
    said = {name: car.said(DESCRIPTORS[name], moment.timestamp()) for name in d.CONTAINER if name in DESCRIPTORS}
    return {name: reading.rest() for name, reading in said.items() if reading is not None}


_Told = tuple[dict[str, None], frozenset[str]]
"""Every field there is, in order, and those that a car has told."""


def _told(snapshots: Iterator[Snapshot]) -> _Told:
    names: dict[str, None] = {}
    told = set()
    for snapshot in snapshots:
        for name, value in _leaves(shapes.status(snapshot, "metric", with_location=True).fields, ""):
            names[name] = None
            if value not in (None, "UNKNOWN", "INVALID"):
                told.add(name)
    return names, frozenset(told)


def _leaves(part: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in part.items():
        name = _POSITIONS.sub(".*", f"{prefix}{key}")
        if name == "unknown_values":
            continue
        if isinstance(value, dict) and prefix != "extra." and set(value) != {"value", "unit"}:
            yield from _leaves(value, f"{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for one in value:
                yield from _leaves(one, f"{name}[].")
        else:
            yield name, value


def _mark(name: str, told: _Told) -> str:
    return "yes" if name in told[1] else "-"
