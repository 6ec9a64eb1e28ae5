"""Identifiers that cannot be guessed."""

import math
import string

from common.ids import LENGTH, random_id


def test_an_id_is_letters_and_digits_of_one_length() -> None:
    for _ in range(100):
        made = random_id()
        assert len(made) == LENGTH
        assert set(made) <= set(string.ascii_letters + string.digits)


def test_an_id_holds_128_bits_or_more() -> None:
    assert LENGTH * math.log2(62) >= 128


def test_ids_do_not_repeat_and_use_the_whole_alphabet() -> None:
    made = [random_id() for _ in range(2_000)]
    assert len(set(made)) == 2_000
    assert set("".join(made)) == set(string.ascii_letters + string.digits)
