"""Our service inside this process, called as the server's threads call it: what a request costs without any HTTP."""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from bench.contestants import raised_limits
from bench.population import Linked, link_all
from bench.stage import Stage
from common.api_keys import PRINCIPAL_PREFIX, ApiKey
from common.settings import Settings, load
from functions.app import App, build
from functions.wire import RawRequest, Reply

Asked = tuple[Mapping[str, str], Mapping[str, Any]]
"""The headers and the fields of a request."""


class Instance:
    """One worker's service."""

    def __init__(self, settings: Settings) -> None:
        self._app: App = build(settings)

    def ask(self, headers: Mapping[str, str], fields: Mapping[str, Any]) -> Reply:
        """Serve one request."""
        return self.serve(raw(headers, fields))

    def serve(self, request: RawRequest) -> Reply:
        """Serve one request that is ready; raises ``AssertionError`` at anything but a 200."""
        reply = self._app.loop.run(self._app.pipeline.handle(request))
        if reply.status != 200:
            raise AssertionError(f"answered {reply.status}: {reply.body[:300]!r}")
        return reply

    def cpu_us(self, requests: Sequence[RawRequest]) -> float:
        """CPU time of this process a request, microseconds: all its threads, and nothing that waits."""
        began_s = time.process_time()
        for request in requests:
            self.serve(request)
        return (time.process_time() - began_s) / len(requests) * 1e6

    def times_us(self, requests: Sequence[RawRequest]) -> list[float]:
        """How long each request took, microseconds."""
        taken = []
        for request in requests:
            began_ns = time.perf_counter_ns()
            self.serve(request)
            taken.append((time.perf_counter_ns() - began_ns) / 1e3)
        return taken

    def close(self) -> None:
        """End it."""
        self._app.close()


def raw(headers: Mapping[str, str], fields: Mapping[str, Any]) -> RawRequest:
    """A request as the edge hands it over."""
    body = json.dumps(fields, separators=(",", ":")).encode()
    return RawRequest("POST", "/", {"content-type": "application/json", **headers}, body)


def settings_of(stage: Stage, name: str, **more: str) -> Settings:
    """Settings of ours with the store ``name``; quiet, for this process's output is what people watch."""
    env, _ = stage.stable.deployment(name)
    return load({**env, **raised_limits(), "LOG_LEVEL": "ERROR", **more})


def caller_of(stage: Stage, name: str) -> tuple[dict[str, str], str]:
    """The headers and the principal of the one caller of the store ``name``."""
    _, headers = stage.stable.deployment(name)
    key = ApiKey.parse(headers["X-API-Key"])
    if key is None:
        raise AssertionError("the key that was issued is none")
    return {"x-api-key": headers["X-API-Key"]}, f"{PRINCIPAL_PREFIX}{key.id}"


def linked(stage: Stage, settings: Settings, principal: str, emails: Sequence[str]) -> list[Linked]:
    """Link accounts for ``principal``."""
    return asyncio.run(link_all(settings, stage.upstream.sandbox, principal, emails))


@contextmanager
def instances(*settings: Settings) -> Iterator[list[Instance]]:
    """A service for each of ``settings``, ended afterwards."""
    started = [Instance(one) for one in settings]
    try:
        yield started
    finally:
        for instance in started:
            instance.close()
