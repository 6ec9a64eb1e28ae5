"""The whole service on this machine: the simulated makers and, in front of them, the API as it is deployed.

One instance keeps its documents in a SQLite file. Several share what a deployment shares: a Valkey and a Cloud Storage
server, both real ones, from their wheels.
"""

import asyncio
import base64
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.callers import ALL_SCOPES, Scope
from common.clock import SystemClock
from common.settings import Settings, load
from ops.keys_book import KeyBook
from ops.keys_command import open_store
from ops.processes import OnLine, Server, free_port
from sandbox.cardata_process import RunningCarData, running_cardata
from sandbox.process import RunningSandbox, running_sandbox

ROOT = Path(__file__).resolve().parent.parent

_STEERS_THE_FRAMEWORK = frozenset(
    {"FUNCTION_TARGET", "FUNCTION_SOURCE", "FUNCTION_SIGNATURE_TYPE", "FUNCTION_USE_ASGI", "DEBUG", "HOST", "PORT"}
)
"""Variables that functions-framework obeys and that somebody's shell may hold for other reasons."""


@dataclass(frozen=True)
class Stack:
    """Both servers, running."""

    api: Server
    api_url: str
    key: str
    """An API key that may do everything."""
    sandbox: RunningSandbox
    """The simulated MyBMW."""
    cardata: RunningCarData
    """The simulated CarData."""


@contextmanager
def running(
    state_dir: Path,
    environ: Mapping[str, str],
    *,
    port: int | None = None,
    instances: int = 1,
    event_step_s: float = 2.0,
    on_line: OnLine = lambda _line: None,
    give_up: Callable[[], bool] = lambda: False,
) -> Iterator[Stack]:
    """Start all, wait until all answer (or ``give_up``), and end all.

    The database and the API's log go to ``state_dir``. The API inherits ``environ``, whose settings beat the defaults
    for development. ``instances`` are worker processes behind the one port. ``event_step_s`` is how long a command
    stays in each of its stages at the maker. Raises :class:`ops.processes.StartFailed`.
    """
    api_port = port or free_port()
    api_url = f"http://127.0.0.1:{api_port}"
    inherited = {name: value for name, value in environ.items() if name not in _STEERS_THE_FRAMEWORK}
    defaults = {
        "ENVIRONMENT": "development",
        "CALLERS": "api_keys",
        "TOKEN_KEYS": master_key(),
        "DOCUMENTS_URL": f"sqlite:///{(state_dir / 'draiv.db').resolve()}",
        "THREADS": "32",
    }
    command = [
        sys.executable,
        "-m",
        "functions_framework",
        "--target=bmw_api",
        "--host=127.0.0.1",
        f"--port={api_port}",
    ]
    with ExitStack() as stack:
        sandbox = stack.enter_context(running_sandbox(event_step_s=event_step_s))
        cardata = stack.enter_context(running_cardata())
        if instances > 1:
            defaults |= {"WORKERS": str(instances), **_shared_stores(stack)}
        makers = {
            "MYBMW_ORIGIN": sandbox.origin,
            "CARDATA_AUTH_ORIGIN": cardata.origin,
            "CARDATA_API_ORIGIN": cardata.origin,
        }
        settings = {**defaults, **inherited, **makers}
        key = issue_key(settings)
        api = Server("The API", command, environ=settings, cwd=ROOT, log=state_dir / "api.log", on_line=on_line)
        with api:
            api.wait_until_answers(f"{api_url}/health", give_up=give_up)
            yield Stack(api, api_url, key, sandbox, cardata)


def _shared_stores(stack: ExitStack) -> dict[str, str]:
    """What several instances share, running until ``stack`` ends; the settings that say where it is."""
    # A laptop that runs one instance needs neither of them installed.
    from ops.fake_gcs import running_fake_gcs  # noqa: PLC0415
    from ops.valkey import running_valkey  # noqa: PLC0415

    valkey, storage = stack.enter_context(running_valkey()), stack.enter_context(running_fake_gcs())
    return {
        "REDIS_URL": valkey.url,
        "DOCUMENTS_URL": f"gs://{storage.new_bucket()}/draiv",
        "KEYS_URL": f"gs://{storage.new_bucket()}",
        "GCS_ENDPOINT": storage.url,
    }


def master_key() -> str:
    """A new master key, in the form of ``TOKEN_KEYS``."""
    return f"local:{base64.b64encode(secrets.token_bytes(32)).decode()}"


def issue_key(environ: Mapping[str, str], scopes: frozenset[Scope] = ALL_SCOPES) -> str:
    """A new API key of a new caller, in the store of a service with these variables. Raises SettingsError."""
    return asyncio.run(_issued(load(environ), scopes))


async def _issued(settings: Settings, scopes: frozenset[Scope]) -> str:
    store = open_store(settings)
    try:
        return (await KeyBook(store, SystemClock()).issue("local", scopes)).text
    finally:
        await store.aclose()
