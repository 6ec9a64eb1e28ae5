"""Salted password hashes."""

import base64
import hashlib

import pytest

from common.passwords import hash_password, verify_password


def test_the_right_password_is_recognised() -> None:
    assert verify_password("correct horse", hash_password("correct horse"))


@pytest.mark.parametrize("wrong", ["", "correct hors", "correct horse ", "Correct horse", "correct hors\u00e9"])
def test_any_other_password_is_not(wrong: str) -> None:
    assert not verify_password(wrong, hash_password("correct horse"))


def test_a_password_in_any_script_survives() -> None:
    assert verify_password("пароль 密码 🔑", hash_password("пароль 密码 🔑"))


def test_every_hash_has_a_salt_of_its_own() -> None:
    first, second = hash_password("same"), hash_password("same")
    assert first != second
    assert first.split("$")[4] != second.split("$")[4]


def test_a_hash_says_how_it_was_made_and_nothing_of_the_password() -> None:
    scheme, n, r, p, salt, digest = hash_password("planted-password").split("$")
    assert (scheme, n, r, p) == ("scrypt", "16384", "8", "1")
    assert len(base64.b64decode(salt)) == 16
    assert len(base64.b64decode(digest)) == 32
    assert "planted" not in hash_password("planted-password")


def test_a_hash_made_with_other_costs_is_still_verified_by_its_own() -> None:
    digest = hashlib.scrypt(b"same", salt=b"salt", n=2, r=4, p=3, dklen=32)
    stored = f"scrypt$2$4$3${base64.b64encode(b'salt').decode()}${base64.b64encode(digest).decode()}"
    assert verify_password("same", stored)
    assert not verify_password("other", stored)
