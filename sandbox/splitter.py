"""A simulated Cloud Run service: shares its requests among real revisions as the simulated gcloud's project says.

Each request goes to a revision at random by the shares of that moment, and is written down with how it was answered.
"""

import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import aiohttp
from aiohttp import web

from common.clock import Clock

_NOT_PASSED_ON = frozenset({"host", "connection", "content-length", "transfer-encoding", "keep-alive"})


@dataclass(frozen=True, slots=True)
class Observation:
    """One request that was answered."""

    at: datetime
    revision: str
    status: int
    latency_ms: float
    action: str = ""
    """Of a POST, whose line says so; empty for a page, and where nobody lived to write a line."""
    code: str = ""
    """Of the error in the answer."""


class Splitter:
    """The front of one service of the project in the file ``state``."""

    def __init__(self, state: Path, service: str, clock: Clock, seed: int) -> None:
        self.observations: list[Observation] = []
        self._state = state
        self._service = service
        self._clock = clock
        self._random = random.Random(seed)
        self._seen_ns = 0
        self._shares: Mapping[str, int] = {}
        self._origins: Mapping[str, str] = {}
        self._client: aiohttp.ClientSession | None = None

    async def handle(self, request: web.Request) -> web.Response:
        """Pass a request on, once, and its answer back."""
        return await self._pass(request, self._choose(), request.path_qs)

    async def handle_tagged(self, request: web.Request) -> web.Response:
        """The same on a revision's own address: ``/_revision/NAME/...``. It counts like any other request."""
        self._look()
        revision = request.match_info["revision"]
        return await self._pass(request, revision, request.path_qs.removeprefix(f"/_revision/{revision}"))

    async def _pass(self, request: web.Request, revision: str, path: str) -> web.Response:
        if self._client is None:
            self._client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False)
        began_s = time.perf_counter()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _NOT_PASSED_ON}
        url = f"{self._origins[revision]}{path}"
        asked, action, code = await request.read(), "", ""
        try:
            async with self._client.request(
                request.method, url, data=asked, headers=headers, allow_redirects=False
            ) as answer:
                body, status, kind = await answer.read(), answer.status, answer.headers.get("Content-Type", "")
            if request.method == "POST":
                action, code = _labels(asked, body)
        except aiohttp.ClientError:
            body, status, kind = b"", 503, "text/plain"
        latency_ms = (time.perf_counter() - began_s) * 1000
        self.observations.append(Observation(self._clock.utc(), revision, status, latency_ms, action, code))
        return web.Response(status=status, body=body, headers={"Content-Type": kind})

    async def close(self) -> None:
        """Close the connections to the revisions."""
        if self._client is not None:
            await self._client.close()

    def _choose(self) -> str:
        self._look()
        return self._random.choices(list(self._shares), list(self._shares.values()))[0]

    def _look(self) -> None:
        changed_ns = self._state.stat().st_mtime_ns
        if changed_ns != self._seen_ns:
            service = json.loads(self._state.read_text(encoding="utf-8"))["services"][self._service]
            newest = service["revisions"][-1]["name"]
            self._shares = {newest if name == "LATEST" else name: n for name, n in service["percents"].items()}
            self._origins = {revision["name"]: revision["origin"] for revision in service["revisions"]}
            self._seen_ns = changed_ns


def _labels(asked: bytes, answered: bytes) -> tuple[str, str]:
    """Action and code, as the service's own line of the request says them."""
    code = str(_field(_field(answered, "error"), "code") or "")
    # Who the caller is is settled before the request is read.
    action = _field(asked, "action") if code != "CALLER_UNAUTHENTICATED" else None
    return str(action or "unknown"), code


def _field(of: object, name: str) -> object:
    if isinstance(of, bytes):
        try:
            of = json.loads(of)
        except ValueError:
            return None
    return of.get(name) if isinstance(of, dict) else None
