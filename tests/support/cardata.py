"""A CarData sandbox in this process on a clock that stands still, and a client that speaks to it in raw HTTP."""

import base64
import functools
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx

from common.clock import ManualClock
from sandbox.cardata import create_app
from sandbox.cardata_server import CarData
from sandbox.cardata_tls import Certificates, make_certificates

X1, I4, X3 = "WBA00000000DEMO11", "WBA00000000DEMO12", "WBA00000000DEMO13"
MONDAY_NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
VERIFIER = "a-code-verifier-that-is-long-enough-for-anybody-to-accept"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
SCOPE = "authenticate_user openid cardata:api:read cardata:streaming:read"
NO_TLS = httpx.create_ssl_context()


@functools.cache
def certificates() -> Certificates:
    """Made once a test process."""
    return make_certificates()


class Client:
    """A customer's program: each method is one request with all that it must carry, unless told otherwise."""

    def __init__(self, http: httpx.AsyncClient, sandbox: CarData, clock: ManualClock) -> None:
        self.http = http
        self.sandbox = sandbox
        self.clock = clock
        self.gcid = sandbox.world.customers.demo.gcid
        self.client_id = sandbox.world.customers.demo.client_id
        self.access_token = ""

    async def control(self, method: str, path: str, json: object = None, status: int = 200) -> Any:
        answer = await self.http.request(method, f"/_sandbox/{path}", json=json)
        assert answer.status_code == status, answer.text
        return answer.json()

    def device_form(self, **changes: str) -> dict[str, str]:
        challenge = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
        return {
            "client_id": self.client_id,
            "response_type": "device_code",
            "scope": SCOPE,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **changes,
        }

    async def device_code(self, **changes: str) -> dict[str, Any]:
        answer = await self.http.post("/gcdm/oauth/device/code", data=self.device_form(**changes))
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def poll(self, device_code: str, /, **changes: str) -> httpx.Response:
        form = {
            "client_id": self.client_id,
            "device_code": device_code,
            "code_verifier": VERIFIER,
            "grant_type": DEVICE_GRANT,
            **changes,
        }
        return await self.http.post("/gcdm/oauth/token", data=form)

    async def refresh(self, refresh_token: str, /, **changes: str) -> httpx.Response:
        form = {
            "client_id": self.client_id,
            "refresh_token": refresh_token,
            "grant_type": "refresh_token",
            **changes,
        }
        return await self.http.post("/gcdm/oauth/token", data=form)

    async def log_in(self, gcid: str | None = None) -> dict[str, Any]:
        """Tokens without the ceremony; later requests carry the access token."""
        tokens: dict[str, Any] = await self.control("POST", "tokens", {"issue": gcid or self.gcid})
        self.access_token = tokens["access_token"]
        return tokens

    async def at(self, moment: str) -> None:
        """Let time pass until then, and log in anew."""
        await self.control("POST", "clock", {"to": moment})
        await self.log_in()

    def headers(self, **changes: str | None) -> dict[str, str]:
        headers: dict[str, str | None] = {
            "authorization": f"Bearer {self.access_token}",
            "x-version": "v1",
            "accept": "application/json",
            **{name.replace("_", "-"): value for name, value in changes.items()},
        }
        return {name: value for name, value in headers.items() if value is not None}

    async def call(
        self, path: str, params: dict[str, str] | None = None, *, method: str = "GET", json: object = None
    ) -> httpx.Response:
        return await self.http.request(method, f"/customers/{path}", params=params, json=json, headers=self.headers())

    async def read(self, path: str, params: dict[str, str] | None = None) -> Any:
        answer = await self.call(path, params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def container(self, *descriptors: str) -> str:
        body = {"name": "lean", "purpose": "tests v1", "technicalDescriptors": list(descriptors)}
        answer = await self.call("containers", method="POST", json=body)
        assert answer.status_code == 201, answer.text
        container_id: str = answer.json()["containerId"]
        return container_id

    async def telematic(self, vin: str, *descriptors: str) -> dict[str, Any]:
        """What the car has said, through a container made for it."""
        container_id = await self.container(*descriptors)
        document = await self.read(f"vehicles/{vin}/telematicData", {"containerId": container_id})
        await self.call(f"containers/{container_id}", method="DELETE")
        said: dict[str, Any] = document["telematicData"]
        return said

    async def truth(self, vin: str, descriptor: str, at: str | None = None) -> dict[str, Any]:
        query = f"truth?vin={vin}&descriptor={descriptor}" + (f"&at={at}" if at else "")
        truth: dict[str, Any] = await self.control("GET", query)
        return truth


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and error id of a refused request."""
    document = answer.json()
    return answer.status_code, document.get("exveErrorId") or document.get("error")


@asynccontextmanager
async def simulated() -> AsyncIterator[Client]:
    """A sandbox at Monday noon, and a client that has not logged in."""
    clock = ManualClock(wall=MONDAY_NOON)
    sandbox = create_app(clock=clock, certificates=certificates())
    origin = await sandbox.start("127.0.0.1", 0, 0)
    async with httpx.AsyncClient(base_url=origin, verify=NO_TLS, trust_env=False, timeout=10) as http:
        yield Client(http, sandbox, clock)
    await sandbox.stop()
