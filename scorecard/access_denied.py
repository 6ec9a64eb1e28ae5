"""A service that nobody has configured: a real process with an environment of nothing but a path."""

import itertools
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from common.clock import SystemClock
from ops.processes import Server, free_port
from ops.stack import issue_key
from sandbox.issuer import SimulatedIssuer
from scorecard.access_matrix import SCOPE_OF
from scorecard.access_people import NOBODYS_ACCOUNT, NOBODYS_VIN, a_store
from scorecard.row import Finding, Say

_ROOT = Path(__file__).resolve().parent.parent
_ENVIRONMENT = {"bmw_api": "production", "bmw_api_staging": "staging", "health": "production"}
_OTHER_METHODS = ("GET", "HEAD", "PUT", "PATCH", "DELETE")


def denied(say: Say) -> Finding:
    """Row 18."""
    outcomes: Counter[str] = Counter()
    health: dict[str, str] = {}
    with a_store() as elsewhere, SimulatedIssuer(SystemClock()) as issuer:
        key = issue_key({**elsewhere, "ENVIRONMENT": "development", "CALLERS": "api_keys"})
        kinds = credentials(key, issuer.token())
        for target in _ENVIRONMENT:
            say(f"{target}, unconfigured")
            with unconfigured(target) as client:
                for method, headers, body in _requests(kinds):
                    reply = client.request(method, "/", headers=headers, json=body)
                    outcomes[_outcome(target, method, reply)] += 1
                said = client.get("/health")
                health[target] = f"{said.status_code} {said.json()['status']} {said.json()['environment']}"
    asked, refused = outcomes.total(), outcomes["denied"]
    others = ", ".join(f"{count} x {name}" for name, count in outcomes.items() if name != "denied")
    measured = f"{refused} of {asked} requests denied, {len(kinds)} kinds of credentials, {len(_ENVIRONMENT)} targets"
    measured += f"{'; ' + others if others else ''}; health: {', '.join(sorted(set(health.values())))}"
    healthy = all(health[target] == f"200 healthy {named}" for target, named in _ENVIRONMENT.items())
    return Finding(measured, refused == asked and healthy)


@contextmanager
def unconfigured(target: str) -> Iterator[httpx.Client]:
    """A server process of this target without a single setting, and a client of it."""
    port = free_port()
    framework = ["-m", "functions_framework", f"--source={_ROOT / 'main.py'}", f"--target={target}"]
    with tempfile.TemporaryDirectory() as folder:
        server = Server(
            target,
            [sys.executable, *framework, "--host=127.0.0.1", f"--port={port}"],
            environ={"PATH": os.environ["PATH"]},
            cwd=Path(folder),
            log=Path(folder) / "log",
        )
        with server, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as client:
            server.wait_until_answers(f"http://127.0.0.1:{port}/health")
            yield client


def credentials(key: str, token: str) -> dict[str, dict[str, str]]:
    """Everything that somebody may come with; ``key`` and ``token`` are good elsewhere."""
    return {
        "none": {},
        "a key of another deployment": {"X-API-Key": key},
        "no key": {"X-API-Key": "secret"},
        "an empty key": {"X-API-Key": ""},
        "a token of an issuer": {"Authorization": f"Bearer {token}"},
        "no token": {"Authorization": "Bearer e30.e30."},
        "an empty token": {"Authorization": "Bearer"},
        "a password": {"Authorization": "Basic YWRtaW46YWRtaW4="},
        "the platform's own": {"X-Serverless-Authorization": f"Bearer {token}"},
        "a cookie": {"Cookie": f"session={token}"},
        "key and token": {"X-API-Key": key, "Authorization": f"Bearer {token}"},
        "a proxy's word": {"X-Goog-Authenticated-User-Email": "accounts.google.com:admin@example.com"},
    }


def _requests(kinds: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, Mapping[str, str], dict[str, Any] | None]]:
    form = {"email": "one@example.com", "password": "demo-password", "hcaptcha": "captcha"}
    names: list[dict[str, Any]] = [{"account": NOBODYS_ACCOUNT, "vin": NOBODYS_VIN}, form]
    for headers in kinds.values():
        for action, named in itertools.product((*SCOPE_OF, "climate", "teleport"), names):
            yield "POST", headers, {"action": action, **named}
        yield "POST", headers, None
        yield from ((method, headers, None) for method in _OTHER_METHODS)
        yield "OPTIONS", {**headers, "Origin": "https://example.com", "Access-Control-Request-Method": "POST"}, None


def _outcome(target: str, method: str, reply: httpx.Response) -> str:
    if method == "OPTIONS":
        allowed = any(name.startswith("access-control-") for name in reply.headers)
        is_denied = reply.status_code == 204 and not reply.content and not allowed
    elif target == "health" and method in ("GET", "HEAD"):
        is_denied = reply.status_code == 200  # health itself, which is all that this target does
    elif method == "POST" and target != "health":
        is_denied = reply.status_code == 401 and reply.json()["error"]["code"] == "CALLER_UNAUTHENTICATED"
    else:
        is_denied = reply.status_code == 405
    return "denied" if is_denied else f"{method} {reply.status_code}"
