"""Linking and unlinking, cut short by kill -9 after each operation of the store, and what the next call repairs."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from common.clock import ManualClock
from common.stores.documents import open_documents
from tests.support.fake_provider import FakeMaker
from tests.support.victims import database_of, slaughter
from tests.support.world import ME, World, build_world, form


@asynccontextmanager
async def survivor(directory: Path, scenario: str, killed: int) -> AsyncIterator[World]:
    """Another instance, an hour later, on a copy of what a killed one has left."""
    with tempfile.TemporaryDirectory(dir=directory) as copy:
        documents = open_documents(f"sqlite:///{_copy(database_of(directory, scenario, killed), Path(copy))}")
        clock = ManualClock()
        clock.wall += timedelta(hours=1)
        yield build_world(documents, clock, FakeMaker(clock))
        await documents.aclose()


def _copy(database: Path, directory: Path) -> Path:
    """The copy of a database with its write-ahead log, which a killed process leaves behind."""
    for file in database.parent.glob(f"{database.name}*"):
        shutil.copy(file, directory)
    return directory / database.name


async def everything(world: World) -> list[str]:
    return await world.traces()


def collections(keys: list[str]) -> list[str]:
    return sorted(key.partition("/")[0] for key in keys)


LINKED = ["identities", "links", "tokens"]


async def test_a_first_connect_cut_short_anywhere_is_nothing_or_whole_and_the_next_one_completes_it(
    tmp_path: Path,
) -> None:
    killed = await slaughter(tmp_path, "connect")
    assert killed >= len(LINKED)
    for operations in range(killed):
        async with survivor(tmp_path, "connect", operations) as world:
            before = await everything(world)
            listed = await world.accounts.of_caller(ME)
            # What is listed works: its tokens were written before.
            assert all([await world.accounts.health(link) for link in listed])
            assert len(listed) == ("links" in collections(before))
            link = await world.accounts.connect(ME, "mybmw", form(captcha="captcha-9"))
            assert await world.accounts.of_caller(ME) == [link]
            after = await everything(world)
            assert collections(after) == LINKED
            # A login that a killed process had begun counts as a try until the next one succeeds.
            assert {key for key in before if not key.startswith("lockouts/")} <= set(after)


async def test_a_renewed_link_cut_short_anywhere_is_still_the_same_link_and_works(tmp_path: Path) -> None:
    killed = await slaughter(tmp_path, "reconnect")
    assert killed >= 3
    for operations in range(killed):
        async with survivor(tmp_path, "reconnect", operations) as world:
            (link,) = await world.accounts.of_caller(ME)
            health = await world.accounts.health(link)
            assert health is not None
            assert not health.needs_relink
            again = await world.accounts.connect(ME, "mybmw", form(captcha="captcha-9"))
            assert (again.account, again.created_at) == (link.account, link.created_at)
            assert await world.documents.list(f"commands/{link.account.id}") != []


async def test_a_disconnect_cut_short_anywhere_is_finished_by_the_next_listing_or_connect(tmp_path: Path) -> None:
    killed = await slaughter(tmp_path, "disconnect")
    assert killed >= 8
    begun = 0
    for operations in range(killed):
        async with survivor(tmp_path, "disconnect", operations) as world:
            if await world.accounts.of_caller(ME):
                continue  # killed before it had begun: nothing is lost
            begun += 1
            assert await everything(world) == []
        async with survivor(tmp_path, "disconnect", operations) as world:
            link = await world.accounts.connect(ME, "mybmw", form(captcha="captcha-9"))
            assert await world.accounts.of_caller(ME) == [link]
            assert collections(await everything(world)) == LINKED
    assert begun >= 12
