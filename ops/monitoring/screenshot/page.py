"""The page that draws the dashboard with Grafana's own components: installed, bundled and served on this machine."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent / "page"
_ICONS = "node_modules/@grafana/ui/dist/public/img"
_INSTALL_TIMEOUT_S, _BUILD_TIMEOUT_S = 900.0, 120.0


class BuildFailed(Exception):
    """npm could not do it; the message is the end of what it said."""


def build(folder: Path) -> Path:
    """Install and bundle the page in ``folder``; the folder to serve. Raises BuildFailed.

    Nothing is installed anew while the lock file is the same: the packages are half a gigabyte.
    """
    installed, lock = folder / "installed.json", (SOURCE / "package-lock.json").read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    for file in filter(Path.is_file, SOURCE.iterdir()):
        shutil.copyfile(file, folder / file.name)
    if not installed.exists() or installed.read_bytes() != lock:
        _npm(folder, _INSTALL_TIMEOUT_S, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
        installed.write_bytes(lock)
    site = folder / "site"
    shutil.rmtree(site, ignore_errors=True)
    _npm(folder, _BUILD_TIMEOUT_S, "run", "build")
    shutil.copyfile(folder / "index.html", site / "index.html")
    # Where Grafana's components look for their icons.
    shutil.copytree(folder / _ICONS, site / "public/build/img")
    return site


def _npm(folder: Path, timeout_s: float, *words: str) -> None:
    ran = subprocess.run(["npm", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=timeout_s)
    if ran.returncode:
        raise BuildFailed(f"npm {words[0]}: {(ran.stdout + ran.stderr)[-2000:]}")


@contextmanager
def served(site: Path, picture: Mapping[str, Any]) -> Iterator[str]:
    """Serve ``site`` and the picture that it draws on the loopback interface; the page's address."""
    (site / "picture.json").write_text(json.dumps(picture))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/index.html"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        pass
