"""The shapes of requests: exact types, nothing unknown, nothing contradictory."""

import math
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from functions.contract import (
    MAX_WAIT_S,
    ChargingProfileParams,
    ChargingSettingsParams,
    CommandStatusParams,
    Envelope,
    FindParams,
    ImageParams,
    NoParams,
    SendPoiParams,
)

ACCOUNT = "acc_" + "A1b2C3d4E5f6G7h8I9j0Kz"
COMMAND = "cmd_" + "A" * 22 + "_" + "b" * 22
VIN = "WBA00000000DEMO01"
LOGIN = {"email": "demo@example.com", "password": "demo-password"}


def paths(model: type[BaseModel], fields: dict[str, Any]) -> set[str]:
    """Where a model finds fault with these fields."""
    with pytest.raises(ValidationError) as refused:
        model.model_validate(fields)
    return {".".join(map(str, error["loc"])) for error in refused.value.errors()}


def test_an_empty_request_asks_for_the_status_in_metric_units_without_waiting() -> None:
    empty = Envelope.model_validate({})
    assert (empty.action, empty.units, empty.wait_s, empty.region) == ("status", "metric", 0, "rest_of_world")
    assert (empty.account, empty.email, empty.password, empty.hcaptcha, empty.vin) == (None,) * 5
    assert (empty.max_age_s, empty.fresh, empty.cache_only, empty.params) == (None, False, False, {})


@pytest.mark.parametrize(
    "fields",
    [
        {"account": ACCOUNT},
        LOGIN,
        LOGIN | {"hcaptcha": "P1_x", "region": "china"},
        {"hcaptcha": "x"},
        {"hcaptcha": "x" * 8_192},
        {"email": "8613800138000", "password": "x" * 256},
        {"email": "a" * 254, "password": "x"},
        {"email": "abc", "password": "x"},
        {"vin": VIN},
        {"vin": VIN.lower()},
        {"wkn": VIN},
        {"vin": None, "account": None, "email": None, "password": None, "max_age_s": None},
        {"max_age_s": 0},
        {"max_age_s": 86_400},
        {"max_age_s": 0.5},
        {"fresh": True},
        {"cache_only": True, "max_age_s": 60},
        {"wait_s": MAX_WAIT_S},
        {"units": "imperial"},
        {"params": {"anything": [1, {"deep": None}]}},
        {"action": "x" * 64},
    ],
)
def test_what_the_contract_allows_is_accepted(fields: dict[str, Any]) -> None:
    assert Envelope.model_validate(fields).model_dump(include=set(fields) - {"wkn"}) == {
        name: value for name, value in fields.items() if name != "wkn"
    }


def test_wkn_is_another_name_of_vin() -> None:
    assert Envelope.model_validate({"wkn": VIN}).vin == VIN


def test_a_vehicle_named_twice_is_refused_because_the_two_may_differ() -> None:
    assert paths(Envelope, {"vin": VIN, "wkn": "WBA00000000DEMO02"}) == {"wkn"}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"acton": "status"}, "acton"),
        ({"Action": "status"}, "Action"),
        ({"action": 1}, "action"),
        ({"action": None}, "action"),
        ({"action": "x" * 65}, "action"),
        ({"account": "acc_" + "A" * 21}, "account"),
        ({"account": "acc_" + "A" * 23}, "account"),
        ({"account": ACCOUNT + "\n"}, "account"),
        ({"account": "acc_../../../../../etc/pw"}, "account"),
        ({"account": COMMAND}, "account"),
        ({"vin": VIN + "\n"}, "vin"),
        ({"vin": VIN[:-1]}, "vin"),
        ({"vin": VIN + "1"}, "vin"),
        ({"vin": "WBA00000000DEMO0é"}, "vin"),
        ({"vin": 12345678901234567}, "vin"),
        ({"wkn": "short"}, "wkn"),
        ({"email": "ab", "password": "x"}, "email"),
        ({"email": "a" * 255, "password": "x"}, "email"),
        ({"email": "abc", "password": ""}, "password"),
        ({"email": "abc", "password": "x" * 257}, "password"),
        ({"hcaptcha": ""}, "hcaptcha"),
        ({"hcaptcha": "x" * 8_193}, "hcaptcha"),
        ({"hcaptcha": "é"}, "hcaptcha"),
        ({"hcaptcha": "P1_x\n"}, "hcaptcha"),
        ({"hcaptcha": "P1_x\r\nx: y"}, "hcaptcha"),
        ({"hcaptcha": "P1 x"}, "hcaptcha"),
        ({"hcaptcha": "\x7f"}, "hcaptcha"),
        ({"region": "europe"}, "region"),
        ({"region": None}, "region"),
        ({"params": None}, "params"),
        ({"params": []}, "params"),
        ({"params": "{}"}, "params"),
        ({"max_age_s": -1}, "max_age_s"),
        ({"max_age_s": -0.001}, "max_age_s"),
        ({"max_age_s": 86_401}, "max_age_s"),
        ({"max_age_s": "1"}, "max_age_s"),
        ({"max_age_s": True}, "max_age_s"),
        ({"max_age_s": math.nan}, "max_age_s"),
        ({"fresh": 1}, "fresh"),
        ({"fresh": "true"}, "fresh"),
        ({"fresh": None}, "fresh"),
        ({"cache_only": 0}, "cache_only"),
        ({"units": "Metric"}, "units"),
        ({"wait_s": 55.1}, "wait_s"),
        ({"wait_s": -1}, "wait_s"),
        ({"wait_s": "0"}, "wait_s"),
        ({"wait_s": False}, "wait_s"),
    ],
)
def test_what_is_not_exactly_right_is_refused_by_its_path(fields: dict[str, Any], path: str) -> None:
    assert paths(Envelope, fields) == {path}


@pytest.mark.parametrize(
    "fields",
    [
        LOGIN | {"account": ACCOUNT},
        {"email": "demo@example.com"},
        {"password": "demo-password"},
        {"fresh": True, "cache_only": True},
        {"fresh": True, "max_age_s": 60},
        {"fresh": True, "max_age_s": 0},
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any]) -> None:
    assert paths(Envelope, fields) == {""}


@pytest.mark.parametrize("secret", ["email", "password", "hcaptcha"])
def test_an_envelope_does_not_show_what_is_secret(secret: str) -> None:
    planted = LOGIN | {"hcaptcha": "demo-captcha"}
    assert planted[secret] not in repr(Envelope.model_validate(planted))


def test_an_envelope_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Envelope.model_validate({}).action = "unlock"  # type: ignore[misc]  # that is the point


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (NoParams, {}),
        (ImageParams, {}),
        (ImageParams, {"view": "rear_left"}),
        (ChargingSettingsParams, {"target_soc": 20}),
        (ChargingSettingsParams, {"target_soc": 100, "ac_limit": 6}),
        (ChargingSettingsParams, {"ac_limit": 64}),
        (ChargingProfileParams, {"charging_mode": "DELAYED_CHARGING"}),
        (ChargingProfileParams, {"precondition_climate": False}),
        (SendPoiParams, {"latitude": -90, "longitude": 180}),
        (SendPoiParams, {"latitude": 0, "longitude": 0, "name": " x ", "city": "x" * 200}),
        (FindParams, {}),
        (FindParams, {"latitude": 90, "longitude": -180.0}),
        (CommandStatusParams, {"command_id": COMMAND}),
    ],
)
def test_parameters_within_bounds_are_accepted(model: type[BaseModel], fields: dict[str, Any]) -> None:
    model.model_validate(fields)


@pytest.mark.parametrize(
    ("model", "fields", "path"),
    [
        (NoParams, {"speed": 1}, "speed"),
        (ImageParams, {"view": "below"}, "view"),
        (ImageParams, {"view": None}, "view"),
        (ChargingSettingsParams, {}, ""),
        (ChargingSettingsParams, {"target_soc": None, "ac_limit": None}, ""),
        (ChargingSettingsParams, {"target_soc": 15}, "target_soc"),
        (ChargingSettingsParams, {"target_soc": 105}, "target_soc"),
        (ChargingSettingsParams, {"target_soc": 83}, "target_soc"),
        (ChargingSettingsParams, {"target_soc": 80.0}, "target_soc"),
        (ChargingSettingsParams, {"target_soc": "80"}, "target_soc"),
        (ChargingSettingsParams, {"target_soc": True}, "target_soc"),
        (ChargingSettingsParams, {"ac_limit": 5}, "ac_limit"),
        (ChargingSettingsParams, {"ac_limit": 65}, "ac_limit"),
        (ChargingProfileParams, {}, ""),
        (ChargingProfileParams, {"charging_mode": "NOW"}, "charging_mode"),
        (ChargingProfileParams, {"precondition_climate": 1}, "precondition_climate"),
        (ChargingProfileParams, {"precondition_climate": "false"}, "precondition_climate"),
        (SendPoiParams, {"latitude": 1}, "longitude"),
        (SendPoiParams, {"latitude": 90.01, "longitude": 0}, "latitude"),
        (SendPoiParams, {"latitude": 0, "longitude": -180.01}, "longitude"),
        (SendPoiParams, {"latitude": "0", "longitude": 0}, "latitude"),
        (SendPoiParams, {"latitude": 0, "longitude": math.nan}, "longitude"),
        (SendPoiParams, {"latitude": 0, "longitude": 0, "name": "  "}, "name"),
        (SendPoiParams, {"latitude": 0, "longitude": 0, "city": "x" * 201}, "city"),
        (FindParams, {"latitude": 1}, ""),
        (FindParams, {"longitude": 1}, ""),
        (FindParams, {"latitude": -91, "longitude": 0}, "latitude"),
        (CommandStatusParams, {}, "command_id"),
        (CommandStatusParams, {"command_id": ACCOUNT}, "command_id"),
        (CommandStatusParams, {"command_id": COMMAND + "\n"}, "command_id"),
        (CommandStatusParams, {"command_id": COMMAND.replace("_b", "/b")}, "command_id"),
    ],
)
def test_parameters_out_of_bounds_are_refused_by_their_path(
    model: type[BaseModel], fields: dict[str, Any], path: str
) -> None:
    assert paths(model, fields) == {path}


def test_a_text_is_trimmed() -> None:
    assert SendPoiParams.model_validate({"latitude": 0, "longitude": 0, "name": "  BMW Welt "}).name == "BMW Welt"
