"""Outbound, we speak to makers and issuers ourselves: the flaw of h11 needs an intermediary that shares a connection.

See SECURITY.md, "h11 under the httpx pin".
"""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.clock import SystemClock
from sandbox.cardata_process import running_cardata
from sandbox.issuer import AUDIENCE, SimulatedIssuer
from sandbox.process import RunningSandbox
from tests.integration.conftest import IX, MASTER_KEY, PASSWORD, captcha
from tests.integration.test_server import serving


@pytest.fixture
def intermediary() -> Iterator[socket.socket]:
    """Listens where the environment says that a proxy is, and answers nobody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


def test_a_proxy_in_the_environment_is_not_used_towards_makers_or_issuers(
    intermediary: socket.socket, sandbox: RunningSandbox, tmp_path: Path
) -> None:
    proxy = f"http://127.0.0.1:{intermediary.getsockname()[1]}"
    proxies = {name: proxy for stem in ("HTTP", "HTTPS", "ALL") for name in (f"{stem}_PROXY", f"{stem.lower()}_proxy")}
    with SimulatedIssuer(SystemClock()) as issuer, running_cardata() as cardata:
        row = {"issuer": issuer.origin, "audience": [AUDIENCE], "scopes": ["read", "account"]}
        environ = {
            "ENVIRONMENT": "development",
            "CALLERS": "oidc",
            "OIDC_ISSUERS": json.dumps([row]),
            "TOKEN_KEYS": MASTER_KEY,
            "DOCUMENTS_URL": f"sqlite:///{tmp_path}/documents.db",
            "MYBMW_ORIGIN": sandbox.origin,
            "CARDATA_AUTH_ORIGIN": cardata.origin,
            "CARDATA_API_ORIGIN": cardata.origin,
            "NO_PROXY": "",
            "no_proxy": "",
            **proxies,
        }
        with serving("bmw_api", tmp_path / "log", **environ) as (client, _process):
            client.headers["authorization"] = f"Bearer {issuer.token()}"
            form = {"action": "connect", "email": "one@example.com", "password": PASSWORD, "hcaptcha": captcha()}
            account = client.post("/", json=form).json()["result"]["account"]
            assert client.post("/", json={"action": "status", "account": account, "vin": IX}).status_code == 200
            params = {"provider": "cardata", "client_id": cardata.demo["client_id"]}
            assert client.post("/", json={"action": "connect", "params": params}).status_code == 202
    with pytest.raises(BlockingIOError):
        intermediary.accept()
