"""A command cut short by kill -9 after each operation of the store and after the maker has received it."""

from datetime import timedelta
from pathlib import Path

from common.clock import ManualClock
from common.stores.documents import open_documents
from functions.providers.port import CommandName
from tests.support.fake_provider import FakeMaker
from tests.support.victims import KEY, LOCK, database_of, received_of, slaughter
from tests.support.world import ME, build_world


async def test_a_command_cut_short_anywhere_is_never_sent_twice_and_its_end_is_known_or_unknown(tmp_path: Path) -> None:
    killed = await slaughter(tmp_path, "lock")
    ends = []
    for steps in range(killed):
        database = database_of(tmp_path, "lock", steps)
        by_victim = received_of(database)
        documents = open_documents(f"sqlite:///{database}")
        clock = ManualClock()
        clock.wall += timedelta(minutes=2)
        maker = FakeMaker(clock)
        world = build_world(documents, clock, maker)
        (link,) = await world.accounts.of_caller(ME)
        vehicle = await world.vehicles.find(link, None)
        locks = [
            key
            for key in await documents.list(f"commands/{link.account.id}")
            if (await world.commands.find(ME, key.rpartition("/")[2])).command.name is CommandName.LOCK
        ]
        # Nothing is sent before its record exists.
        assert len(by_victim) <= len(locks) <= 1

        sent = await world.commands.send(link, vehicle, LOCK, wait_s=0, key=KEY, code=None)
        assert sent.deduplicated is bool(locks)
        assert len(by_victim) + len(maker.sent) <= 1
        assert bool(maker.sent) is not bool(locks)

        done = await world.commands.status(link, vehicle, sent.record, 9)
        assert done.is_final
        assert done.result()["may_have_succeeded"]
        assert len(by_victim) + len(maker.sent) <= 1
        ends.append((len(by_victim), bool(locks), done.state))
        await documents.aclose()
    # From nothing sent at all, over what nobody can know, to a command that another instance followed to its end.
    assert ends == sorted(ends, key=lambda end: (end[0], end[1]))
    assert {state for sends, recorded, state in ends if recorded and not sends} == {"unknown"}
    assert {state for sends, _, state in ends if sends} == {"unknown", "confirmed"}
    assert {state for _, recorded, state in ends if not recorded} == {"confirmed"}
