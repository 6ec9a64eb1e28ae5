"""Remembering the envelopes of requests that come again."""

import json
from typing import Any

import pytest

from common.errors import PayloadTooLarge, UnsupportedMediaType, ValidationFailed
from functions import wire
from functions.decoder import Decoder
from functions.wire import RawRequest

ACCOUNT = "acc_" + "A" * 22


def request(body: bytes, content_type: str = "application/json", **flags: bool) -> RawRequest:
    return RawRequest("POST", "/", {"content-type": content_type}, body, **flags)


def sent(**fields: Any) -> RawRequest:
    return request(json.dumps(fields).encode())


def test_the_same_bytes_are_decoded_once() -> None:
    decoder = Decoder(16_384)
    first = decoder.decode(sent(action="fuel", account=ACCOUNT))
    assert decoder.decode(sent(action="fuel", account=ACCOUNT)) is first
    assert first == wire.decode(sent(action="fuel", account=ACCOUNT), 16_384)
    assert decoder.decode(sent(action="fuel", account=ACCOUNT, fresh=True)) is not first


@pytest.mark.parametrize(
    "secret",
    [{"email": "a@example.com", "password": "demo-password"}, {"hcaptcha": "P1_x"}, {"params": {"confirm": "A" * 22}}],
)
def test_what_holds_a_login_or_a_code_is_not_remembered(secret: dict[str, Any]) -> None:
    decoder = Decoder(16_384)
    once = decoder.decode(sent(action="unlock", **secret))
    again = decoder.decode(sent(action="unlock", **secret))
    assert once == again
    assert once is not again


def test_long_bodies_are_not_remembered() -> None:
    decoder = Decoder(16_384)
    long = request(json.dumps({"action": "fuel"}).encode() + b" " * 600)
    assert decoder.decode(long) is not decoder.decode(long)


def test_what_was_remembered_does_not_excuse_what_is_wrong_with_a_request() -> None:
    decoder = Decoder(64)
    good = b'{"action":"fuel"}'
    decoder.decode(request(good))
    with pytest.raises(UnsupportedMediaType):
        decoder.decode(request(good, "text/plain"))
    with pytest.raises(ValidationFailed):
        decoder.decode(request(good, broken=True))
    with pytest.raises(PayloadTooLarge):
        decoder.decode(request(good, too_large=True))
    with pytest.raises(PayloadTooLarge):
        decoder.decode(request(good + b" " * 64))
    for _ in range(2):
        with pytest.raises(ValidationFailed):
            decoder.decode(request(b'{"action":"fuel","action":"unlock"}'))


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    decoder = Decoder(16_384)
    first = decoder.decode(sent(max_age_s=0))
    for number in range(1, 2_048):
        decoder.decode(sent(max_age_s=number))
    assert decoder.decode(sent(max_age_s=0)) is first
    decoder.decode(sent(max_age_s=2_048))
    assert decoder.decode(sent(max_age_s=0)) is not first
