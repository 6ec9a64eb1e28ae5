"""A real document store and one instance of the service's layer on it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.clock import ManualClock
from common.stores.documents import Documents, open_documents
from tests.support.driver import Driver, drive
from tests.support.fake_provider import FakeMaker
from tests.support.tapped_documents import TappedDocuments
from tests.support.token_keeping import Kept, Maker, keeper_on
from tests.support.world import World, build_world


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "documents.db"


@pytest.fixture
async def documents(database: Path) -> AsyncIterator[Documents]:
    store = open_documents(f"sqlite:///{database}")
    yield store
    await store.aclose()


@pytest.fixture
def tapped(documents: Documents) -> TappedDocuments:
    """The same store, with somebody listening."""
    return TappedDocuments(documents)


@pytest.fixture
def maker(clock: ManualClock) -> FakeMaker:
    return FakeMaker(clock)


@pytest.fixture
def world(tapped: TappedDocuments, clock: ManualClock, maker: FakeMaker) -> World:
    return build_world(tapped, clock, maker)


@pytest.fixture
async def driver(world: World) -> Driver:
    return await drive(world)


@pytest.fixture
def second(tapped: TappedDocuments, clock: ManualClock, maker: FakeMaker, driver: Driver) -> Driver:
    """The same person at another instance."""
    return Driver(build_world(tapped, clock, maker), driver.link, driver.vehicle)


@pytest.fixture
def tokens_maker(clock: ManualClock) -> Maker:
    return Maker(clock)


@pytest.fixture
def kept(tapped: TappedDocuments, clock: ManualClock) -> Kept:
    return keeper_on(tapped, clock)


@pytest.fixture
def other(documents: Documents, clock: ManualClock) -> Kept:
    """Another instance on the same store."""
    return keeper_on(documents, clock)
