"""The error tree: every leaf says all there is to say, and the drawing in the docstring is the tree."""

import re

import pytest

from common import errors
from common.errors import BY_CODE, ApiError, ProviderError, RequestError, Resolution, Vote

LEAVES = list(BY_CODE.values())
_DRAWN = re.compile(r"[|`]-- (\w+) +([A-Z_]+) +(\d{3}) +(yes|no)(?: +vote: (\w+))?")
DRAWN = {row[1]: row for row in map(_DRAWN.search, (errors.__doc__ or "").splitlines()) if row}

AnyLeaf = pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)


@AnyLeaf
def test_a_leaf_declares_all_that_anybody_needs_to_know(leaf: type[ApiError]) -> None:
    assert re.fullmatch(r"[A-Z][A-Z_]+", leaf.code)
    assert 400 <= leaf.status < 600
    assert isinstance(leaf.resolution, Resolution)
    assert isinstance(leaf.vote, Vote)
    assert leaf.summary.endswith(".")


@AnyLeaf
def test_the_drawing_in_the_docstring_is_true(leaf: type[ApiError]) -> None:
    drawn = DRAWN[leaf.__name__]
    assert drawn[2] == leaf.code
    assert int(drawn[3]) == leaf.status
    assert (drawn[4] == "yes") is leaf.retryable
    if issubclass(leaf, ProviderError):
        assert drawn[5] == leaf.vote.value


def test_the_drawing_holds_nothing_that_does_not_exist() -> None:
    assert set(DRAWN) == {leaf.__name__ for leaf in LEAVES}


def test_every_class_with_a_code_of_its_own_is_found_by_it() -> None:
    declared = [
        found
        for found in vars(errors).values()
        if isinstance(found, type) and issubclass(found, ApiError) and "code" in vars(found)
    ]
    assert [BY_CODE[leaf.code] for leaf in declared] == declared == LEAVES


@AnyLeaf
def test_what_the_caller_did_never_counts_against_a_maker(leaf: type[ApiError]) -> None:
    if issubclass(leaf, RequestError):
        assert leaf.vote is Vote.NONE
        assert leaf.status < 500 or leaf.code == "NOT_SUPPORTED"


@AnyLeaf
def test_only_what_waiting_can_mend_is_retryable(leaf: type[ApiError]) -> None:
    assert leaf.retryable is False or leaf.resolution is Resolution.RETRY_LATER


@pytest.mark.parametrize("refusal", ["AuthenticationFailed", "CaptchaRequired", "RelinkRequired"])
def test_refused_credentials_say_nothing_of_the_makers_health(refusal: str) -> None:
    leaf = getattr(errors, refusal)
    assert (leaf.vote, leaf.resolution, leaf.status) == (Vote.NONE, Resolution.REAUTHENTICATE, 401)


def test_an_instance_adds_message_details_and_time() -> None:
    details: dict[str, object] = {"fields": []}
    error = errors.ValidationFailed("Ours.", details=details, retry_after_s=3, may_have_succeeded=True)
    assert (error.message, str(error)) == ("Ours.", "Ours.")
    assert error.details == details
    assert error.details is not details
    assert (error.retry_after_s, error.may_have_succeeded) == (3, True)


@AnyLeaf
def test_without_a_message_the_summary_speaks(leaf: type[ApiError]) -> None:
    error = leaf()
    assert error.message == str(error) == leaf.summary
    assert (error.details, error.retry_after_s, error.may_have_succeeded) == ({}, None, False)
