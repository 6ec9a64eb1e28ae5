"""The provider as a whole: what it offers, and what importing it costs."""

import subprocess
import sys
from pathlib import Path

import bimmer_connected.account as library_account
import bimmer_connected.vehicle.remote_services as library_remote_services
import pytest
from bimmer_connected.account import MyBMWAccount
from bimmer_connected.const import Regions

from common.clock import ManualClock
from common.errors import InternalError
from common.loops import LoopThread
from common.stores.documents import open_documents
from functions.providers.mybmw.failures import BMWAPIError
from functions.providers.mybmw.provider import build
from functions.providers.mybmw.session import PooledClient, bind
from functions.tokens import TokenKeeper
from tests.providers.mybmw.harness import Bmw

ROOT = Path(__file__).parents[3]


def in_a_new_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)


async def test_bmw_has_every_capability(bmw: Bmw) -> None:
    provider = bmw.provider

    assert provider.name == "mybmw"
    assert provider.error is BMWAPIError
    assert None not in (provider.log_in, provider.images, provider.commands)
    assert len(provider.image_views) == 12


def test_binding_twice_does_the_same() -> None:
    bind()
    bind()

    assert vars(library_account)["MyBMWClient"] is PooledClient
    assert vars(library_remote_services)["MyBMWClient"] is PooledClient


async def test_the_library_cannot_be_used_around_us() -> None:
    bind()

    with pytest.raises(InternalError):
        await MyBMWAccount("somebody", "secret", Regions.REST_OF_WORLD).get_vehicles()


def test_a_provider_can_be_built_and_closed_where_no_loop_runs(tmp_path: Path) -> None:
    loop = LoopThread()
    clock = ManualClock()
    provider = build(tokens=TokenKeeper(open_documents(f"sqlite:///{tmp_path}/tokens.db"), clock), clock=clock)

    async def close() -> None:
        await provider.close()

    loop.run(close())

    loop.close()
