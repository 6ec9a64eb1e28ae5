"""Cars by their master data, and past charges, from JSON that may hold anything."""

from typing import Any

import pytest

from common.clock import ManualClock
from common.stores.documents import Documents
from functions.providers.cardata.failures import CarDataInvalidReply
from functions.providers.cardata.garage import brand_of, to_mappings, to_profile, to_vehicle
from functions.providers.cardata.garage_store import Garage, GarageBook
from functions.providers.cardata.history import to_page, to_settings, to_tyres
from functions.providers.port import ChargingSession
from tests.providers.cardata.harness import I4, X1


def test_an_object_counts_as_an_array_of_one() -> None:
    assert to_mappings({"vin": I4, "mappingType": "PRIMARY"}) == (I4,)
    assert to_mappings([{"vin": X1}, {"vin": I4}, {"vin": X1}]) == (X1, I4)


@pytest.mark.parametrize(
    ("raw", "brand"),
    [("BMWi", "BMW"), ("BMW_I", "BMW"), ("mini", "MINI"), ("Rolls", "ROLLS"), (None, "BMW"), (5, "BMW")],
)
def test_brands(raw: object, brand: str) -> None:
    assert brand_of(raw) == brand


def test_unknown_and_odd_master_data_are_left_out() -> None:
    profile = to_profile({"brand": "MINI", "series": "x" * 201, "headUnit": None, "new": 1, "modelName": ["x"]})

    assert profile == {"brand": "MINI"}
    assert to_vehicle(I4, profile).name == ""
    assert to_vehicle(I4, {}).drivetrain == "UNKNOWN"
    with pytest.raises(CarDataInvalidReply):
        to_profile([])


NOTHING = ChargingSession(None, None, None, None, None, None, None)


@pytest.mark.parametrize("odd", [{}, {"startTime": "x", "displayedSoc": 101, "mileage": True, "chargingLocation": 5}])
def test_a_charge_of_which_nothing_is_known(odd: dict[str, Any]) -> None:
    assert to_page({"data": [odd, 5]}) == ((NOTHING,), None)


def test_charges_in_miles_are_told_in_kilometres() -> None:
    [session], token = to_page({"data": [{"mileage": 100, "mileageUnits": "MILES"}], "next_token": "t"})

    assert (session.mileage_km, token) == (161, "t")


@pytest.mark.parametrize("answer", [{}, {"data": {}}, {"data": None}])
def test_pages_that_are_none(answer: dict[str, Any]) -> None:
    with pytest.raises(CarDataInvalidReply):
        to_page(answer)
    with pytest.raises(CarDataInvalidReply):
        to_settings(answer)


def test_tyres_of_which_nothing_is_known_are_left_out() -> None:
    assert to_tyres({}) == {}
    worn = to_tyres({"passengerCar": {"mountedTyres": {"frontLeft": {"tyreWear": {"dueMileage": 1}}, "rearLeft": 5}}})
    assert set(worn) == {"front_left"}
    assert worn["front_left"].due_mileage_km == 1


async def test_a_picture_that_is_too_large_is_not_kept(documents: Documents, clock: ManualClock) -> None:
    book = GarageBook(documents)

    await book.save_picture("acc_1", I4, b"x" * 600_001, clock.utc())
    assert await book.picture("acc_1", I4, clock.utc()) is None
    await book.save_picture("acc_1", I4, b"x" * 600_000, clock.utc())
    assert await book.picture("acc_1", I4, clock.utc()) == b"x" * 600_000


async def test_a_garage_that_was_never_listed_is_kept(documents: Documents) -> None:
    book = GarageBook(documents)

    await book.save("acc_1", Garage())

    assert await book.load("acc_1") == Garage() == await book.load("acc_2")
