"""A simulated Cloud Run service, its monitoring and its IAM, as servers on a thread of their own."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from common.clock import Clock
from sandbox.iam import Iam
from sandbox.monitoring import Monitoring
from sandbox.splitter import Splitter


@dataclass(frozen=True, slots=True)
class Cloud:
    """All of it, running."""

    url: str
    """The service's."""
    monitoring_url: str
    """Also IAM's."""
    splitter: Splitter
    monitoring: Monitoring
    iam: Iam

    def tagged_url(self, revision: str) -> str:
        """A revision's own address, whatever traffic it gets."""
        return f"{self.url}/_revision/{revision}"


@contextmanager
def running_cloud(state: Path, service: str, clock: Clock, seed: int = 1) -> Iterator[Cloud]:
    """On free ports of the loopback interface, for the service in the simulated gcloud's project ``state``."""
    splitter = Splitter(state, service, clock, seed)
    monitoring = Monitoring(splitter.observations)
    iam = Iam(state)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="cloud", daemon=True)
    thread.start()

    async def start(app: web.Application) -> tuple[web.AppRunner, str]:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"

    front, back = web.Application(), web.Application()
    front.router.add_route("*", "/_revision/{revision}/{tail:.*}", splitter.handle_tagged)
    front.router.add_route("*", "/{tail:.*}", splitter.handle)
    back.router.add_get("/v3/projects/{project}/timeSeries", monitoring.handle)
    back.router.add_post("/v1/projects/-/serviceAccounts/{account}:generateIdToken", iam.handle)
    front_runner, url = asyncio.run_coroutine_threadsafe(start(front), loop).result()
    back_runner, monitoring_url = asyncio.run_coroutine_threadsafe(start(back), loop).result()
    try:
        yield Cloud(url, monitoring_url, splitter, monitoring, iam)
    finally:
        for closing in (front_runner.cleanup(), back_runner.cleanup(), splitter.close()):
            asyncio.run_coroutine_threadsafe(closing, loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
