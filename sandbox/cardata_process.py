"""Run a CarData sandbox as a process of its own, for tests and benches.

>>> with running_cardata(frozen_at="2026-01-05T12:00:00Z") as sandbox:  # doctest: +SKIP
...     tokens = sandbox.issue_tokens(sandbox.demo["gcid"])
...     sandbox.fault(match={"path": "telematicData"}, fault="cu", code="CU-500", times=1)
...     sandbox.truth("WBA00000000DEMO12", "vehicle.vehicle.travelledDistance")
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from sandbox.process import RunningSandbox, running_sandbox


@dataclass(frozen=True, slots=True)
class StreamAddress:
    """Where the stream listens, and whom to trust."""

    host: str
    port: int
    ca_pem: str

    def ssl_context(self) -> ssl.SSLContext:
        """A client's context that trusts the sandbox and nobody else."""
        context = ssl.create_default_context(cadata=self.ca_pem)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return context


class RunningCarData:
    """A CarData sandbox in another process. Control requests are neither counted nor charged to a quota."""

    def __init__(self, running: RunningSandbox) -> None:
        self._running = running
        self.origin = running.origin
        """Of auth and REST, such as ``http://127.0.0.1:38017``."""
        self.pid = running.pid
        self.control = running.control
        """A request to ``/_sandbox/{path}``; its JSON answer. Raises SandboxError where it is refused."""
        self.fault = running.fault
        self.faults = running.faults
        self.clear_faults = running.clear_faults
        self.reset = running.reset
        self.settings = running.settings
        self.expire_access = running.expire_access
        self.revoke_refresh = running.revoke_refresh

    @property
    def demo(self) -> dict[str, Any]:
        """``gcid``, ``client_id`` and ``cars`` (VIN -> model) of the customer that is always there."""
        demo: dict[str, Any] = self.control("GET", "")["demo"]
        return demo

    def stats(self) -> dict[str, Any]:
        """The counters, and the quota used today by GCID."""
        report: dict[str, Any] = self.control("GET", "stats")
        return report

    def advance(self, seconds: float, *, stream: bool = False) -> str:
        """Let ``seconds`` pass at once, streaming what happens meanwhile if asked to; the new time."""
        now: str = self.control("POST", "clock", {"advance_s": seconds, "stream": stream})["now"]
        return now

    def advance_to(self, moment: str, *, stream: bool = False) -> str:
        """Let time pass until ``moment``, ISO 8601; the new time."""
        now: str = self.control("POST", "clock", {"to": moment, "stream": stream})["now"]
        return now

    def add_customer(self, **body: object) -> dict[str, Any]:
        """A new customer: ``gcid``, ``client_id``, ``cars``; all may be left out."""
        customer: dict[str, Any] = self.control("POST", "customers", body)
        return customer

    def add_customers(self, count: int) -> list[dict[str, Any]]:
        """Many new customers, with a car of each model."""
        customers: list[dict[str, Any]] = self.control("POST", f"customers?count={count}")
        return customers

    def change_customer(self, gcid: str, **changes: object) -> dict[str, Any]:
        """Change ``api_subscribed``, ``stream_subscribed``, ``streamed`` or ``quota_used``."""
        customer: dict[str, Any] = self.control("POST", f"customers/{gcid}", changes)
        return customer

    def decide(self, user_code: str, *, approve: bool) -> None:
        """What the customer does with a user code in the browser."""
        self.control("POST", "devices", {"user_code": user_code, "approve": approve})

    def issue_tokens(self, gcid: str) -> dict[str, Any]:
        """Tokens without a device flow, in the shape of the token endpoint."""
        tokens: dict[str, Any] = self.control("POST", "tokens", {"issue": gcid})
        return tokens

    def truth(self, vin: str, descriptor: str, at: str | None = None) -> dict[str, Any]:
        """What is true of a car at a time (``value``), and what it has ``said`` by then."""
        query = {"vin": vin, "descriptor": descriptor} | ({"at": at} if at else {})
        truth: dict[str, Any] = self.control("GET", f"truth?{urlencode(query)}")
        return truth

    def patch_car(self, vin: str, **changes: object) -> dict[str, Any]:
        """Bend what a car says: ``asleep``, ``overrides``."""
        car: dict[str, Any] = self.control("POST", f"cars/{vin}", changes)
        return car

    def stream(self) -> StreamAddress:
        """Where the stream is."""
        answer = self.control("GET", "stream")
        return StreamAddress(answer["host"], answer["port"], answer["ca_pem"])

    def stream_connections(self) -> list[dict[str, Any]]:
        """Who is connected to the stream."""
        connections: list[dict[str, Any]] = self.control("GET", "stream")["connections"]
        return connections

    def publish(self, gcid: str, **span: object) -> dict[str, int]:
        """Stream what cars said ``from`` a time ``to`` another, or a ``raw`` text; ``messages``, ``delivered``."""
        counts: dict[str, int] = self.control("POST", "stream/publish", {"gcid": gcid, **span})
        return counts

    def drop_connections(self, gcid: str | None = None) -> int:
        """Drop stream connections; how many."""
        dropped: int = self.control("DELETE", f"stream/connections{f'?gcid={gcid}' if gcid else ''}")["dropped"]
        return dropped


@contextmanager
def running_cardata(**options: object) -> Iterator[RunningCarData]:
    """Start ``python -m sandbox.cardata`` on free ports of 127.0.0.1, and end it afterwards.

    ``options`` are its command line: ``frozen_at="2026-01-05T12:00:00Z"``. Raises SandboxError where it does not start.
    """
    with running_sandbox("sandbox.cardata", **options) as running:
        yield RunningCarData(running)
