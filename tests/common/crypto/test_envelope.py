"""Sealing with one key: what opens, and everything that does not."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.crypto.encoding import framed, from_text, to_text
from common.crypto.envelope import KEY_BYTES, OVERHEAD_BYTES, Box
from common.crypto.errors import SealBroken

BOX = Box(b"k" * KEY_BYTES)
SEALED = BOX.seal(b"a refresh token", b"here")


@given(plaintext=st.binary(max_size=200), context=st.binary(max_size=50))
def test_what_was_sealed_opens_in_its_context(plaintext: bytes, context: bytes) -> None:
    sealed = BOX.seal(plaintext, context)
    assert BOX.open(sealed, context) == plaintext
    assert len(sealed) == len(plaintext) + OVERHEAD_BYTES


@pytest.mark.parametrize("bit", range(len(SEALED) * 8))
def test_no_bit_can_be_flipped(bit: int) -> None:
    flipped = bytearray(SEALED)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealBroken):
        BOX.open(bytes(flipped), b"here")


@pytest.mark.parametrize("length", range(len(SEALED)))
def test_nothing_can_be_cut_off(length: int) -> None:
    for cut in (SEALED[:length], SEALED[length + 1 :]):
        with pytest.raises(SealBroken):
            BOX.open(cut, b"here")


def test_nothing_opens_in_another_context_or_under_another_key() -> None:
    with pytest.raises(SealBroken):
        BOX.open(SEALED, b"there")
    with pytest.raises(SealBroken):
        Box(b"j" * KEY_BYTES).open(SEALED, b"here")


def test_no_nonce_comes_twice() -> None:
    nonces = {BOX.seal(b"", b"")[:12] for _ in range(10_000)}
    assert len(nonces) == 10_000


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_has_256_bits(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Box(b"k" * length)


PARTS = st.lists(st.one_of(st.text(max_size=5), st.binary(max_size=5)), max_size=4)


@given(one=PARTS, other=PARTS)
def test_different_parts_are_never_framed_alike(one: list[str | bytes], other: list[str | bytes]) -> None:
    def raw(parts: list[str | bytes]) -> list[bytes]:
        return [part.encode() if isinstance(part, str) else part for part in parts]

    assert (framed(*one) == framed(*other)) == (raw(one) == raw(other))


def test_a_bound_moved_between_two_parts_is_another_frame() -> None:
    assert framed("ab", "c") != framed("a", "bc") != framed("abc")
    assert framed("a", "") != framed("a")


@given(raw=st.binary(max_size=40))
def test_bytes_are_written_and_read(raw: bytes) -> None:
    assert from_text(to_text(raw)) == raw


@given(raw=st.binary(max_size=20), text=st.text(max_size=30))
def test_bytes_are_spelt_in_one_way_only(raw: bytes, text: str) -> None:
    if text != to_text(raw):
        with contextlib.suppress(SealBroken):
            assert from_text(text) != raw


@pytest.mark.parametrize("text", ["YR==", "YQ", "YQ=", "Y Q==", "YQ==\n", "+/+/", "ä", "a", None, 1, [], b"YQ=="])
def test_another_spelling_is_refused(text: object) -> None:
    with pytest.raises(SealBroken):
        from_text(text)


def test_the_reason_is_for_the_operator_and_not_in_the_reply() -> None:
    broken = SealBroken("it was changed")
    assert broken.reason == "it was changed"
    assert "changed" not in f"{broken}{broken.message}{broken.details}"
    assert (broken.status, broken.code, broken.retryable) == (503, "STORE_UNAVAILABLE", False)
