"""The CarData stream worker: ``python -m functions.providers.cardata.stream``. Runs until SIGTERM.

It listens to the customers' cars and keeps their latest signals in the document store, so that reading them costs none
of the day's requests. Any number of workers share the customers out among themselves.
"""

import asyncio
import os
import random
import secrets
import signal
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import orjson

from common.bus import Bus
from common.clock import Clock, SystemClock
from common.logs import EventLog, configure
from common.settings import VERSION, Settings, SettingsError, load
from common.stores.documents import Documents
from common.stores.shared import Shared, open_shared
from functions.providers.cardata.provider import NAME, CarData, assemble
from functions.providers.cardata.stream_index import StreamIndex
from functions.providers.cardata.stream_intake import Intake
from functions.providers.cardata.stream_journal import Journal
from functions.providers.cardata.stream_leases import Leases, Roster
from functions.providers.cardata.stream_line import Broker
from functions.providers.cardata.stream_pages import PageServer
from functions.providers.cardata.stream_report import StreamReport
from functions.providers.cardata.stream_session import SessionParts
from functions.providers.cardata.stream_settings import StreamSettings, load_stream
from functions.providers.cardata.stream_worker import Worker, ttl_s
from functions.providers.port import Account, Region
from functions.storage import open_storage
from functions.tokens import TokenKeeper, TokenSet

CHANGED: Final = "changed"
UNLINKED: Final = "unlinked"
ROTATED: Final = "rotated"
"""The words of :mod:`functions.peers`, which stands above the providers."""
_CONNECTS_AT_ONCE: Final = 16
_THREADS: Final = 24
"""The MQTT library connects on threads, and names are looked up on them."""


@dataclass(frozen=True)
class StreamApp:
    """A worker and what it was built from."""

    worker: Worker
    report: StreamReport
    intake: Intake
    cardata: CarData
    tokens: TokenKeeper
    documents: Documents
    shared: Shared | None
    bus: Bus

    async def close(self) -> None:
        """Write the tokens that are not yet written, then release connections and files."""
        await self.tokens.aclose()
        await self.bus.aclose()
        if self.shared is not None:
            await self.shared.aclose()
        await self.cardata.provider.close()
        await self.documents.aclose()

    def health(self) -> tuple[HTTPStatus, str, bytes]:
        """The page ``/health``."""
        status = self.worker.status
        states = self.worker.states()
        body = {
            "status": status,
            "service": "draiv-cardata-stream",
            "version": VERSION,
            "workers": self.worker.workers,
            "customers": {"served": sum(states.values()), "waits_for": self.worker.waits_for, **states},
            "unsaved_cars": self.intake.unsaved,
            "shared_state": "none" if self.shared is None else "degraded" if self.shared.is_failing else "ok",
        }
        code = HTTPStatus.SERVICE_UNAVAILABLE if status == "unhealthy" else HTTPStatus.OK
        return code, "application/json", orjson.dumps(body)

    def metrics(self) -> tuple[HTTPStatus, str, bytes]:
        """The page ``/metrics``."""
        body, content_type = self.report.expose()
        return HTTPStatus.OK, content_type, body


def build(settings: Settings, stream: StreamSettings, clock: Clock) -> StreamApp:
    """Put a worker together, on the running loop. Raises ValueError and OSError for settings that cannot be used."""
    output = configure(
        level=settings.log_level,
        project_id=settings.google_cloud_project,
        environment=settings.environment,
        service="draiv-cardata-stream",
        version=VERSION,
        revision=settings.k_revision,
    )
    report = StreamReport(EventLog(output, clock, strict=settings.environment == "development"))
    documents, keys = open_storage(settings, clock)
    shared = (
        open_shared(settings.redis_url, clock, namespace=f"draiv-{settings.environment}")
        if settings.redis_url
        else None
    )

    def forget(account_id: str) -> None:
        keys.forget(account_id)
        tokens.forget(account_id)
        intake.forget(account_id)

    # What may have been missed is in the document store, which is looked at again and again.
    bus = Bus(shared.channel if shared else None, clock, handlers={UNLINKED: forget}, on_gap=lambda: None)

    async def tell_changed(account_id: str) -> None:
        await bus.publish(CHANGED, account_id)

    async def tell_rotated(account_id: str) -> None:
        await bus.publish(ROTATED, account_id)

    tokens = TokenKeeper(documents, clock, observe=report.token_refresh, announce=tell_rotated)
    cardata = assemble(
        tokens=tokens,
        documents=documents,
        clock=clock,
        auth_origin=stream.auth_origin,
        api_origin=stream.api_origin,
        request_timeout_s=settings.upstream_timeout_s,
    )
    intake = Intake(
        cardata.signals,
        Journal(shared, keys) if shared is not None and settings.token_keys else None,
        clock,
        report,
        tell_changed,
        store_every_s=stream.store_every_s,
    )

    async def usable(account_id: str, refused: str | None) -> TokenSet:
        return await cardata.auth.usable(Account(account_id, NAME, Region.REST_OF_WORLD), refused=refused)

    me = f"worker-{secrets.token_hex(8)}"
    worker = Worker(
        StreamIndex(documents),
        Roster(documents, clock, me, ttl_s(stream.lease_s)),
        Leases(documents, me),
        SessionParts(
            broker=Broker(stream.broker_host, stream.broker_port, stream.tls()),
            usable=usable,
            intake=intake,
            watch=cardata.streams,
            report=report,
            clock=clock,
            turns=asyncio.Semaphore(_CONNECTS_AT_ONCE),
            sleep=asyncio.sleep,
            spread=random.random,
        ),
        lease_s=stream.lease_s,
        hear=bus.fence,
    )
    report.watch(worker.states, lambda: intake.unsaved)
    return StreamApp(worker, report, intake, cardata, tokens, documents, shared, bus)


async def serve(settings: Settings, stream: StreamSettings) -> None:
    """Work until SIGTERM or SIGINT. Raises SettingsError where it cannot begin."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="connect"))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        app = build(settings, stream, SystemClock())
    except (ValueError, OSError) as bad:
        raise SettingsError(str(bad)) from bad
    pages = PageServer({"/health": app.health, "/metrics": app.metrics})
    try:
        try:
            port = await pages.start(stream.bind_host, stream.bind_port)
        except OSError as taken:
            raise SettingsError(f"PORT: cannot listen on {stream.bind_host}:{stream.bind_port}: {taken}") from taken
        app.report.worker("stream_started")
        sys.stderr.write(f"cardata stream worker, listening on http://{stream.bind_host}:{port}\n")
        await app.worker.run(stop)
    finally:
        await pages.stop()
        await app.close()


def main(environ: Mapping[str, str]) -> int:
    """The exit status: 2 for settings that cannot be used."""
    try:
        settings, stream = load(environ), load_stream(environ)
        asyncio.run(serve(settings, stream))
    except SettingsError as bad:
        # There is no logger yet. The text names a variable, a file or a port, so it may be logged as it is.
        line = {"severity": "CRITICAL", "message": "misconfigured", "problem": str(bad)}
        sys.stderr.write(f"{orjson.dumps(line).decode()}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ))
