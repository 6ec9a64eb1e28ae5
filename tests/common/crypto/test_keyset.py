"""Keysets as settings spell them, and what their keys do."""

import base64

import pytest

from common.crypto.errors import SealBroken
from common.crypto.keyset import Keyset
from common.crypto.wrapping import Succession, WrappedKey
from tests.common.crypto.masters import K1, K2, master

DATA_KEY = b"d" * 32
SECRET = base64.b64encode(b"planted-secret-planted-secret-32").decode()


async def test_the_first_key_wraps_and_the_others_only_unwrap() -> None:
    old = await Keyset.parse(K1).wrap(DATA_KEY, b"here")
    both = Keyset.parse(f"{K2},{K1}")
    assert (old.kid, (await both.wrap(DATA_KEY, b"here")).kid) == ("k1", "k2")
    assert await both.unwrap(old, b"here") == DATA_KEY
    assert await both.active_kid() == "k2"
    assert (both.holds("k1"), both.holds("k3")) == (True, False)


async def test_a_wrapped_key_opens_in_its_context_under_its_key_and_its_name_only() -> None:
    keyset = Keyset.parse(f"{K1},{K2}")
    wrapped = await keyset.wrap(DATA_KEY, b"here")
    for other, context in [
        (wrapped, b"there"),
        (WrappedKey("k2", wrapped.blob), b"here"),
        (WrappedKey("k1", wrapped.blob[:-1]), b"here"),
        (WrappedKey("k3", wrapped.blob), b"here"),
    ]:
        with pytest.raises(SealBroken):
            await keyset.unwrap(other, context)


async def test_a_key_that_was_renamed_does_not_open_what_it_wrapped() -> None:
    renamed = f"k9:{K1.partition(':')[2]}"
    wrapped = await Keyset.parse(K1).wrap(DATA_KEY, b"")
    with pytest.raises(SealBroken):
        await Keyset.parse(renamed).unwrap(WrappedKey("k9", wrapped.blob), b"")


async def test_a_dropped_key_is_named_as_the_reason() -> None:
    wrapped = await Keyset.parse(K1).wrap(DATA_KEY, b"")
    with pytest.raises(SealBroken) as broken:
        await Keyset.parse(K2).unwrap(wrapped, b"")
    assert "TOKEN_KEYS does not hold" in broken.value.reason


def test_the_deployments_own_seal_follows_the_same_rules() -> None:
    kid, sealed = Keyset.parse(K1).seal(b"text", b"here")
    both = Keyset.parse(f"{K2},{K1}")
    assert both.open(kid, sealed, b"here") == b"text"
    assert both.seal(b"text", b"here")[0] == "k2"
    for other, context in [("k1", b"there"), ("k2", b"here"), ("k3", b"here")]:
        with pytest.raises(SealBroken):
            both.open(other, sealed, context)


async def test_a_key_for_one_purpose_does_not_serve_the_other() -> None:
    keyset = Keyset.parse(K1)
    kid, sealed = keyset.seal(DATA_KEY, b"here")
    with pytest.raises(SealBroken):
        await keyset.unwrap(WrappedKey(kid, sealed), b"here")


def test_spaces_around_the_keys_do_not_matter() -> None:
    assert Keyset.parse(f" {K2} ,\n{K1} ").kids == ("k2", "k1")


@pytest.mark.parametrize(
    "text",
    [
        "", ",", K1 + ",", "," + K1, SECRET, f":{SECRET}", f"a b:{SECRET}", f"k\u00e9:{SECRET}", f"{'k' * 33}:{SECRET}",
        f"k1:{SECRET[:-4]}", f"k1:{SECRET}AAAA", f"k1:{SECRET[:-1]}", f"k1:{SECRET[:-1]}!", "k1:", "k1",
        f"k1:{SECRET},{K1}", f"k1:{SECRET},k2:{SECRET}", f"k1:{SECRET};{K2}", f"k1: {SECRET}", f"k1:{SECRET}\u00e9",
    ],
)  # fmt: skip
def test_a_bad_keyset_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="key") as refused:
        Keyset.parse(text)
    shown = f"{refused.value!r} {refused.value.__cause__!r}"
    assert SECRET[:8] not in shown
    assert "planted" not in shown


def test_a_keyset_has_a_key_and_keys_have_256_bits() -> None:
    for keys in ([], [("k1", b"short")]):
        with pytest.raises(ValueError, match="key"):
            Keyset(keys)


def test_a_keyset_does_not_show_its_keys() -> None:
    keyset = Keyset.parse(f"k1:{SECRET}")
    assert repr(keyset) == "Keyset(k1)"
    assert "blob" not in repr(WrappedKey("k1", b"blob"))


async def test_a_succession_wraps_with_the_first_and_unwraps_with_whichever_holds_the_key() -> None:
    first, second = Keyset.parse(K1), Keyset.parse(K2)
    both = Succession([second, first])
    old = await first.wrap(DATA_KEY, b"")
    assert await both.unwrap(old, b"") == DATA_KEY
    assert (await both.wrap(DATA_KEY, b"")).kid == await both.active_kid() == "k2"
    assert (both.holds("k1"), both.holds("k3")) == (True, False)
    with pytest.raises(SealBroken):
        await both.unwrap(await Keyset.parse(master("k3")).wrap(DATA_KEY, b""), b"")
