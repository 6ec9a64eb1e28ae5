"""Names of vehicles: the same for everybody who has linked one, and not to be guessed."""

import pytest

from common.crypto.keyset import Keyset
from common.settings import Settings
from functions.providers.port import Account, Region
from functions.storage import naming_key
from functions.vehicle_names import VehicleNames
from tests.common.crypto.masters import K1, K2

VIN = "WBA00000000DEMO01"
MINE = Account("acc_1", "mybmw", Region.REST_OF_WORLD)
NAMES = VehicleNames(b"key")


def test_a_vehicle_has_one_name_whoever_has_linked_it_and_however_it_is_written() -> None:
    name = NAMES.of(MINE, VIN)
    assert NAMES.of(Account("acc_2", "mybmw", Region.REST_OF_WORLD), VIN.lower()) == name
    assert len(name) == 32


@pytest.mark.parametrize(
    ("account", "vin"),
    [
        (MINE, "WBA00000000DEMO02"),
        (Account("acc_1", "cardata", Region.REST_OF_WORLD), VIN),
        (Account("acc_1", "mybmw", Region.CHINA), VIN),
    ],
)
def test_other_vehicles_makers_and_regions_have_other_names(account: Account, vin: str) -> None:
    assert NAMES.of(account, vin) != NAMES.of(MINE, VIN)


def test_a_name_is_guessed_by_nobody_without_the_key() -> None:
    name = NAMES.of(MINE, VIN)
    assert VIN not in name
    assert VehicleNames(b"").of(MINE, VIN) != name


def test_promoting_a_master_key_renames_no_vehicle() -> None:
    assert Keyset.parse(f"{K1},{K2}").naming_key == Keyset.parse(f"{K2},{K1}").naming_key
    assert Keyset.parse(K1).naming_key != Keyset.parse(K2).naming_key


def test_the_key_is_the_deployments_own() -> None:
    assert naming_key(Settings(token_keys=K1)) == Keyset.parse(K1).naming_key
    assert naming_key(Settings()) == b""
