"""``python -m ops.monitoring.screenshot``: the Grafana dashboard under load, as a picture for the documentation.

With ``--url`` the picture is of a Grafana that runs already. Without, the service is started in front of the simulated
maker, called and troubled for some minutes and scraped by a real Prometheus, whose answers to the dashboard's queries
are drawn by Grafana's own panel components.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ops.monitoring.definitions import FOLDER
from ops.monitoring.screenshot import chromium, page, stage
from ops.monitoring.screenshot.dashboard import empty_panels, height_px, kiosk, unready
from ops.monitoring.screenshot.prometheus import PrometheusError
from ops.processes import StartFailed
from ops.stack import ROOT

_PACKAGES = ROOT / ".run/screenshot"


class _Empty(Exception):
    """A panel has nothing to show."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 1 where the picture cannot be taken, 2 where something is not installed."""
    parser = argparse.ArgumentParser(prog="ops.monitoring.screenshot", description=__doc__)
    parser.add_argument("--url", help="of the dashboard in a running Grafana, such as http://127.0.0.1:3000/d/draiv")
    parser.add_argument("--minutes", type=float, default=4, help="how much time the picture shows; default: 4")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/img/grafana.png", help="default: %(default)s")
    given = parser.parse_args(argv)
    if missing := _missing(given.url is None):
        print(f"Not installed: {', '.join(missing)}. On Debian: apt-get install {' '.join(missing)}", file=sys.stderr)
        return 2
    dashboard = json.loads((FOLDER / "grafana/draiv.json").read_text())
    try:
        if given.url:
            _take(kiosk(given.url, given.minutes), dashboard, given.output)
        else:
            _draw(dashboard, given.minutes, given.output)
    except (StartFailed, PrometheusError, page.BuildFailed, chromium.NotDrawn, _Empty) as failure:
        print(failure, file=sys.stderr)
        return 1
    print(f"{given.output}: {given.output.stat().st_size // 1000} kB")
    return 0


def _missing(is_all_ours: bool) -> list[str]:
    needed = ["npm", "prometheus", "pngquant"] if is_all_ours else ["pngquant"]
    return [*filter(lambda name: not shutil.which(name), needed), *(() if chromium.program() else ("chromium",))]


def _draw(dashboard: Mapping[str, Any], minutes: float, output: Path) -> None:
    print("Installing and bundling Grafana's components ...", flush=True)
    site = page.build(_PACKAGES)
    print(f"The service is under load for {minutes:g} minutes ...", flush=True)
    with tempfile.TemporaryDirectory(prefix="draiv-screenshot-") as folder:
        picture = stage.measure(dashboard, minutes, Path(folder), lambda says: print(f"  {says}", flush=True))
    if empty := empty_panels(dashboard, picture["answers"]):
        raise _Empty(f"No data: {', '.join(empty)}")
    with page.served(site, {**picture, "width_px": chromium.WIDTH_PX}) as url:
        _take(url, dashboard, output)


def _take(url: str, dashboard: Mapping[str, Any], output: Path) -> None:
    chromium.take(url, output, height_px=height_px(dashboard), problem=lambda dom: unready(dashboard, dom))


if __name__ == "__main__":
    sys.exit(main())
