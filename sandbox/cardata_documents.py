"""The documents that are not telematic data: master data, charging sessions, tyres, charging settings."""

import math
from typing import Any, Final

from sandbox.cardata_cars import Timeline
from sandbox.cardata_catalogue import position
from sandbox.cardata_customers import Car
from sandbox.cardata_time import iso_ms

_HOME: Final = "Demoweg 1, 80331 Muenchen"
_TYRE_LIFE_KM: Final = 40_000
_TYRES: Final = ("frontLeft", "frontRight", "rearLeft", "rearRight")


def basic_data(car: Car) -> dict[str, Any]:
    """Master data. Some of it is missing for some cars, and some is in no specification."""
    model = car.timeline.model
    common: dict[str, Any] = {
        "brand": "BMW",
        "modelName": model.name,
        "series": model.series,
        "driveTrain": model.drive_train,
        "countryCode": "DE",
        "numberOfDoors": 5,
        "simStatus": "ACTIVE",
        "constructionDate": "2024-03-01T00:00:00.000Z",
    }
    match model.key:
        case "x1":
            # An older entry: the keys that came with electric cars are not there.
            return {**common, "bodyType": "U11", "hasNavi": True, "colourCodeRaw": "0475"}
        case "i4":
            return {**common, "brand": "BMWi", "propulsionType": "ELECTRIC", "headUnit": "MGU22_1", "chargingModes": []}
    return {**common, "propulsionType": "PLUG_IN_HYBRID", "headUnit": None, "euFleetHint": {"tier": 2}}


def charging_session(timeline: Timeline, charge: tuple[float, float]) -> dict[str, Any]:
    """A past charge. Its power came from the grid, so a little of it was lost on the way."""
    start_s, unplugged_s = charge
    start, end = timeline.at(start_s), timeline.at(unplugged_s)
    end_s = min(unplugged_s, start_s + 60 * start.minutes_to_target)
    grid_kwh = round((end.battery_kwh - start.battery_kwh) / 0.92, 2)
    latitude, longitude = position(start)
    return {
        "startTime": int(start_s),
        "endTime": int(end_s),
        "displayedStartSoc": round(start.soc_percent),
        "displayedSoc": round(end.soc_percent),
        "energyConsumedFromPowerGridKwh": grid_kwh,
        "totalChargingDurationSec": int(end_s - start_s),
        "isPreconditioningActivated": False,
        "mileage": math.floor(start.travelled_km),
        "mileageUnits": "KM",
        "timeZone": "Europe/Berlin",
        "chargingLocation": {
            "municipality": "Muenchen",
            "formattedAddress": _HOME,
            "streetAddress": _HOME.partition(",")[0],
            "mapMatchedLatitude": latitude,
            "mapMatchedLongitude": longitude,
        },
        "chargingBlocks": [
            {
                "startTime": int(start_s),
                "endTime": int(end_s),
                "averagePowerGridKw": round(grid_kwh / (end_s - start_s) * 3600, 1),
            }
        ],
        "businessErrors": [],
    }


def tyre_diagnosis(car: Car, now_s: float) -> dict[str, Any]:
    """Wear of the mounted tyres. The X1 has never been diagnosed."""
    moment = car.timeline.at(now_s)
    if moment.model.key == "x1":
        return {"passengerCar": {"mountedTyres": {"label": "Mounted tyres"}}, "errors": []}
    due_km = round(_TYRE_LIFE_KM - moment.travelled_km % _TYRE_LIFE_KM)
    wear = {
        "label": "Tyre wear",
        "dueMileage": due_km,
        "unit": "KILOMETER",
        "statusColor": "GREEN" if due_km > 5000 else "YELLOW",
    }
    return {"passengerCar": {"mountedTyres": {"label": "Mounted tyres", **{t: {"tyreWear": wear} for t in _TYRES}}}}


def charging_settings(car: Car, now_s: float) -> dict[str, Any]:
    """Settings of the place where the car charges."""
    latitude, longitude = position(car.timeline.at(now_s))
    return {
        "id": "1",
        "clusterLocationId": "home",
        "latitude": latitude,
        "longitude": longitude,
        "acCurrentLimit": 16.0,
        "acCurrentLimitFlag": "ACTIVE",
        "acousticLimit": "OFF",
        "chargingMode": "IMMEDIATE_CHARGING",
        "flapLock": "NO_REQUEST",
        "optimizedChargingPreference": "OFF",
        "lastUpdated": iso_ms(car.timeline.last_report_s(now_s)),
        "visits": 52,
    }
