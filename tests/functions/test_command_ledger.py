"""What follows from a record: the audit trail, and the vehicle's slot given back."""

import pytest

from common.errors import (
    StoreUnavailable,
)
from common.stores.documents import Documents
from tests.support.driver import Driver
from tests.support.fake_provider import FIRST, FakeMaker
from tests.support.tapped_documents import TappedDocuments, When, failing


async def entries(driver: Driver) -> list[tuple[str, str]]:
    """What the trail says: event and state, in order."""
    keys = [key for key in await driver.world.documents.list("audit") if not key.endswith("/head")]
    documents = [await driver.world.documents.get(key) for key in keys]
    return [(document.body["event"], document.body["state"]) for document in documents if document is not None]


async def test_the_trail_says_what_was_meant_before_it_is_sent_and_what_became_of_it(
    driver: Driver, maker: FakeMaker
) -> None:
    before: list[object] = []

    async def look() -> None:
        before.extend(await entries(driver))

    maker.before["send"] = look
    await driver.request(wait_s=10)
    assert before == [("intent", "accepted")]
    outcomes = [("outcome", state) for state in ("accepted", "confirmed")]
    assert await entries(driver) == [("intent", "accepted"), *outcomes]


async def test_the_trail_names_nobody_and_outlives_the_account(driver: Driver, documents: Documents) -> None:
    await driver.request(key="a-key", wait_s=10)
    before = await entries(driver)
    await driver.world.accounts.disconnect(driver.link)
    assert await entries(driver) == before
    keys = await documents.list("audit")
    trail = repr([(await documents.get(key), key) for key in keys])
    bodies = [held.body for held in [await documents.get(key) for key in keys] if held is not None]
    for name in (driver.link.account.id, driver.link.principal, driver.link.identity, FIRST, "a-key", "owner"):
        assert name not in trail + repr(bodies)


@pytest.mark.parametrize("when", list(When))
async def test_what_cannot_be_entered_in_the_trail_is_not_sent(
    driver: Driver, maker: FakeMaker, tapped: TappedDocuments, when: When
) -> None:
    tapped.tap = failing(1, "create", "audit/", when)
    with pytest.raises(StoreUnavailable):
        await driver.request()
    assert maker.calls["send"] == 0
    assert await driver.world.documents.list("slots") == []


async def test_a_trail_that_fails_afterwards_does_not_hide_the_outcome(
    driver: Driver, maker: FakeMaker, tapped: TappedDocuments
) -> None:
    async def fail() -> None:
        tapped.tap = failing(100, "create", "audit/")

    maker.before["send"] = fail
    assert (await driver.request(wait_s=10)).record.state == "confirmed"
    assert await entries(driver) == [("intent", "accepted")]


async def test_a_slot_that_cannot_be_given_back_does_not_hide_the_outcome(
    driver: Driver, tapped: TappedDocuments
) -> None:
    sent = await driver.send()
    tapped.tap = failing(100, "delete", "slots/")
    assert (await driver.status(sent)).state == "confirmed"
