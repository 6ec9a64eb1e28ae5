"""Stream workers as real processes on one store, in front of the simulated CarData."""

import asyncio
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from common.clock import SystemClock
from common.ids import random_id
from common.settings import Settings, load
from common.stores.shared import open_shared
from functions.providers.cardata.signal_store import DocumentSignals
from functions.providers.cardata.stream_index import StreamIndex
from functions.providers.cardata.stream_journal import Journal
from functions.storage import open_storage
from functions.tokens import TokenKeeper, TokenSet
from ops.processes import Server, free_port
from ops.stack import master_key
from ops.valkey import running_valkey
from sandbox.cardata_process import RunningCarData, running_cardata

_ROOT = Path(__file__).resolve().parent.parent
_SAMPLE = re.compile(r'^draiv_stream_(\w+?)(?:\{\w+="([^"]*)"\})? (\S+)$', re.MULTILINE)


class RunningWorker:
    """One worker process, and what it tells of itself."""

    def __init__(self, environ: Mapping[str, str], log: Path) -> None:
        port = free_port()
        self.log = log
        self._server = Server(
            "stream worker",
            [sys.executable, "-m", "functions.providers.cardata.stream"],
            environ={**environ, "PORT": str(port)},
            cwd=_ROOT,
            log=log,
        )
        self._server.__enter__()
        self._server.wait_until_answers(f"http://127.0.0.1:{port}/health")
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._server.pid

    def health(self) -> dict[str, Any]:
        """Its page ``/health``."""
        health: dict[str, Any] = self._client.get("/health").json()
        return health

    def figures(self) -> dict[tuple[str, str], float]:
        """Its metrics, by name without ``draiv_stream_`` and by the value of the only label."""
        text = self._client.get("/metrics").text
        return {(name, label): float(value) for name, label, value in _SAMPLE.findall(text)}

    def connected(self) -> int:
        """How many customers it listens to."""
        count: int = self.health()["customers"].get("connected", 0)
        return count

    def received(self) -> float:
        """How many messages it has received."""
        return self.figures()["messages_total", "received"]

    def kill(self) -> None:
        """Kill -9."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.end()

    def end(self) -> None:
        """SIGTERM, and wait for it."""
        self._client.close()
        self._server.end(30.0)


@dataclass(frozen=True, slots=True)
class Stage:
    """A sandbox, stores, and as many workers as are started."""

    cardata: RunningCarData
    environ: Mapping[str, str]
    folder: Path
    stack: ExitStack

    def start(self, **settings: str) -> RunningWorker:
        """One more worker; ended with the stage."""
        number = len(list(self.folder.glob("worker-*.log")))
        log = self.folder / f"worker-{number}.log"
        log.touch()
        worker = RunningWorker({**self.environ, **settings}, log)
        self.stack.callback(worker.end)
        return worker

    @property
    def settings(self) -> Settings:
        """As the workers load them."""
        return load(self.environ)

    def link(self, customers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Link customers of the sandbox, as the service does at the end of a device login; account ids by GCID."""
        return asyncio.run(self._link(customers))

    def values(
        self, cars: Mapping[str, tuple[str, str]], descriptor: str, *, with_journal: bool = False
    ) -> dict[str, int]:
        """What is stored of a number, 0 for nothing, by GCID; ``cars`` are account id and VIN of each."""
        return asyncio.run(self._values(cars, descriptor, with_journal=with_journal))

    async def _link(self, customers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        documents, keys = open_storage(self.settings, SystemClock())
        keeper, index = TokenKeeper(documents, SystemClock()), StreamIndex(documents)
        accounts: dict[str, str] = {}
        for customer in customers:
            accounts[customer["gcid"]] = account_id = f"acc_{random_id()}"
            issued = self.cardata.issue_tokens(customer["gcid"])
            extra = {name: customer[name] for name in ("gcid", "client_id")} | {"id_token": issued["id_token"]}
            expires_at = SystemClock().utc() + timedelta(seconds=issued["expires_in"])
            await keys.create(account_id, "cardata", "somebody")
            await keeper.save(account_id, TokenSet(issued["access_token"], issued["refresh_token"], expires_at, extra))
            await index.add(account_id, customer["gcid"])
        await documents.aclose()
        return accounts

    async def _values(
        self, cars: Mapping[str, tuple[str, str]], descriptor: str, *, with_journal: bool
    ) -> dict[str, int]:
        documents, keys = open_storage(self.settings, SystemClock())
        stored, found = DocumentSignals(documents), {}
        shared = open_shared(self.settings.redis_url or "", SystemClock(), namespace="draiv-development")
        for gcid, (account_id, vin) in cars.items():
            signals = [await stored.load(account_id, vin)]
            if with_journal:
                signals.append((await Journal(shared, keys).recover(account_id)).get(vin, {}))
            found[gcid] = max(one[descriptor].value if descriptor in one else 0 for one in signals)
        await shared.aclose()
        await documents.aclose()
        return found


@contextmanager
def staged(*, redis: bool = True, lease_s: float = 30.0, **settings: str) -> Iterator[Stage]:
    """A sandbox and stores, ended afterwards. ``settings`` are environment variables of the workers."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ca_file = folder / "ca.pem"
        cardata = stack.enter_context(running_cardata(ca_file=ca_file))
        address = cardata.stream()
        environ = {
            **os.environ,
            "ENVIRONMENT": "development",
            "TOKEN_KEYS": master_key(),
            "DOCUMENTS_URL": f"sqlite:///{folder}/documents.db",
            "CARDATA_AUTH_ORIGIN": cardata.origin,
            "CARDATA_API_ORIGIN": cardata.origin,
            "CARDATA_STREAM_URL": f"mqtts://{address.host}:{address.port}",
            "CARDATA_CA_FILE": str(ca_file),
            "CARDATA_STREAM_LEASE_S": str(lease_s),
            **({"REDIS_URL": stack.enter_context(running_valkey()).url} if redis else {}),
            **settings,
        }
        yield Stage(cardata, environ, folder, stack)
