"""Links that nobody uses live on as long as they are looked after daily, and no longer."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import RelinkRequired
from common.logs import EventLog, configure
from functions.providers.cardata.auth_manager import ends_soon
from functions.providers.cardata.keep_alive import KeepAlive, Kept
from functions.providers.cardata.stream_index import StreamIndex
from functions.providers.port import Account, Region
from ops.stack import master_key
from tests.providers.cardata.harness import Bench

ROOT = Path(__file__).parents[3]
DAY_S = 86_400.0


class Round:
    """The daily round, and what it logs."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.lines = io.StringIO()
        output = configure(
            self.lines,
            level="INFO",
            project_id=None,
            environment="development",
            service="test",
            version="0",
            revision="test",
        )
        self.index = StreamIndex(bench.documents)
        events = EventLog(output, bench.clock, strict=True)
        self.keeper = KeepAlive(self.index, bench.cardata.auth, bench.keeper, bench.clock, events)

    async def link(self) -> None:
        await self.bench.link()
        await self.index.add("acc_1", self.bench.sandbox.demo["gcid"])

    async def run(self) -> Kept:
        return await self.keeper.run()

    def said(self, event: str) -> int:
        return self.lines.getvalue().count(f'"message":"{event}"')


async def test_looked_after_daily_a_link_outlives_its_first_refresh_token(bench: Bench) -> None:
    daily = Round(bench)
    await daily.link()
    for _ in range(30):
        bench.advance(DAY_S)
        assert await daily.run() == Kept(renewed=1)
    assert daily.said("link_ends_soon") == 0
    assert (await bench.cardata.auth.usable(bench.account)).access_token


async def test_thirteen_idle_days_and_one_round_keep_a_link_alive(bench: Bench) -> None:
    daily = Round(bench)
    await daily.link()
    bench.advance(13 * DAY_S)
    assert await daily.run() == Kept(renewed=1)
    assert daily.said("link_ends_soon") == 1
    bench.advance(13 * DAY_S)
    assert (await bench.cardata.auth.usable(bench.account)).access_token


async def test_fifteen_idle_days_end_a_link_and_a_warning_stood_from_the_eleventh(bench: Bench) -> None:
    daily = Round(bench)
    await daily.link()
    warned = []
    for day in range(1, 15):
        bench.advance(DAY_S)
        health = await bench.keeper.health("acc_1")
        assert health is not None
        if ends_soon(health, bench.clock.utc()):
            warned.append(day)
    assert warned[0] == 11
    bench.advance(DAY_S)
    assert await daily.run() == Kept(dead=1)
    assert daily.said("link_has_ended") == 1
    with pytest.raises(RelinkRequired):
        await bench.cardata.auth.usable(bench.account)
    # Dead is dead: nothing is asked any more.
    asked = bench.sandbox.stats()["requests_total"]
    assert await daily.run() == Kept(dead=1)
    assert bench.sandbox.stats()["requests_total"] == asked


async def test_a_link_that_was_renewed_today_costs_nothing(bench: Bench) -> None:
    daily = Round(bench)
    await daily.link()
    bench.advance(20 * 3_600 - 1)
    asked = bench.sandbox.stats()["requests_total"]
    assert await daily.run() == Kept(not_due=1)
    assert bench.sandbox.stats()["requests_total"] == asked


async def test_a_round_that_comes_some_seconds_early_every_day_renews_all_the_same(bench: Bench) -> None:
    daily = Round(bench)
    await daily.link()
    for _ in range(3):
        bench.advance(DAY_S - 5)
        assert await daily.run() == Kept(renewed=1)


async def test_one_link_that_fails_does_not_keep_the_others_from_being_renewed(bench: Bench) -> None:
    daily = Round(bench)
    await daily.link()
    for number, customer in enumerate(bench.sandbox.add_customers(9)):
        account = Account(f"acc_x{number}", "cardata", Region.REST_OF_WORLD)
        await bench.link(customer["gcid"], account)
        await daily.index.add(account.id, customer["gcid"])
    await daily.index.add("acc_gone", "nobody")
    bench.advance(DAY_S)
    bench.sandbox.fault(match={"path": "oauth/token"}, fault="status", status=503, times=1)
    assert await daily.run() == Kept(renewed=9, dead=1, failed=1)
    assert daily.said("link_not_renewed") == 1
    assert await daily.run() == Kept(renewed=1, not_due=9, dead=1)


def run_program(**environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "functions.providers.cardata.keep_alive"],
        cwd=ROOT,
        env={**os.environ, "ENVIRONMENT": "development", **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_program_looks_after_an_empty_store_and_ends_well(tmp_path: Path) -> None:
    ran = run_program(DOCUMENTS_URL=f"sqlite:///{tmp_path}/documents.db", TOKEN_KEYS=master_key())
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count('"links_kept_alive"') == 3


def test_the_program_names_a_setting_that_it_cannot_use() -> None:
    ran = run_program(CARDATA_STREAM_URL="http://not-mqtt")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "CARDATA_STREAM_URL" in ran.stderr


def test_links_that_could_not_be_listed_end_the_program_as_a_failure(tmp_path: Path) -> None:
    (tmp_path / "documents.db").mkdir()
    ran = run_program(DOCUMENTS_URL=f"sqlite:///{tmp_path}/documents.db", TOKEN_KEYS=master_key())
    assert ran.returncode == 2
    assert "keep-alive" in ran.stderr
