"""A worker as it is put together from its settings, in this process."""

import asyncio
import socket
from pathlib import Path

import orjson
import pytest

from common.clock import SystemClock
from common.errors import StoreUnavailable
from common.settings import Settings, SettingsError
from functions.providers.cardata import stream
from functions.providers.cardata.signal_store import DocumentSignals
from functions.providers.cardata.stream_index import StreamIndex
from functions.providers.cardata.stream_settings import StreamSettings
from functions.storage import open_storage
from ops.stack import master_key
from ops.valkey import running_valkey
from tests.providers.cardata.harness import I4, said
from tests.providers.cardata.stream_harness import until


def settings(tmp_path: Path, redis_url: str | None = None) -> Settings:
    return Settings(
        environment="development",
        token_keys=master_key(),
        documents_url=f"sqlite:///{tmp_path}/documents.db",
        redis_url=redis_url,
    )


async def test_a_worker_that_was_built_and_never_run_says_that_it_is_not_well(tmp_path: Path) -> None:
    app = stream.build(settings(tmp_path), StreamSettings("127.0.0.1", 1), SystemClock())
    status, content_type, body = app.health()
    assert (int(status), content_type) == (503, "application/json")
    told = orjson.loads(body)
    assert (told["status"], told["shared_state"], told["customers"]) == (
        "unhealthy",
        "none",
        {"served": 0, "waits_for": 0},
    )
    await app.close()


async def test_what_the_api_says_of_an_unlinked_account_is_heard_at_the_next_look(tmp_path: Path) -> None:
    with running_valkey() as valkey:
        config = settings(tmp_path, valkey.url)
        documents, keys = open_storage(config, SystemClock())
        await keys.create("acc_1", "cardata", "somebody")
        seldom = StreamSettings("127.0.0.1", 1, store_every_s=3_600)
        worker, api = (stream.build(config, seldom, SystemClock()) for _ in range(2))
        await worker.worker.beat()
        await worker.worker.look()
        worker.intake.take(["acc_1"], I4, {"a": said(1)})
        await until(lambda: b'messages_total{stage="stored"} 1.0' in worker.metrics()[2])
        worker.intake.take(["acc_1"], I4, {"b": said(2)})
        await until(lambda: b'messages_total{stage="kept"} 2.0' in worker.metrics()[2])
        assert worker.intake.unsaved == 1

        await api.bus.publish(stream.UNLINKED, "acc_1")

        async with asyncio.timeout(10):
            while worker.intake.unsaved:
                await worker.worker.look()
        assert set(await DocumentSignals(documents).load("acc_1", I4)) == {"a"}
        await worker.close()
        await api.close()
        await documents.aclose()


async def test_a_store_that_cannot_be_opened_makes_the_worker_unhealthy_and_not_dead(tmp_path: Path) -> None:
    (tmp_path / "documents.db").mkdir()
    app = stream.build(settings(tmp_path), StreamSettings("127.0.0.1", 1), SystemClock())
    with pytest.raises(StoreUnavailable):
        await StreamIndex(app.documents).accounts()
    stop = asyncio.Event()
    await app.worker.beat()
    running = asyncio.create_task(app.worker.run(stop))
    assert int(app.health()[0]) == 503
    stop.set()
    await asyncio.wait_for(running, 10)
    await app.close()


def test_settings_that_make_no_sense_are_said_in_one_line(tmp_path: Path) -> None:
    config = Settings(documents_url="ftp://nowhere", environment="development")
    with pytest.raises(SettingsError):
        asyncio.run(stream.serve(config, StreamSettings("127.0.0.1", 1)))


def test_a_port_that_is_taken_is_said_in_one_line(tmp_path: Path) -> None:
    config = Settings(documents_url=f"sqlite:///{tmp_path}/documents.db", environment="development")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"PORT: cannot listen on 127.0.0.1:{port}"):
            asyncio.run(stream.serve(config, StreamSettings("127.0.0.1", 1, bind_port=port)))
