"""A page as headless Chromium shows it, as a PNG file."""

import base64
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ops.monitoring.screenshot.devtools import Browser, DevToolsError

NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDTH_PX, SCALE = 1280, 1.25
"""A page of 1280 pixels becomes a picture of 1600, in which the legends can still be read."""
_READY_WITHIN_S, _LOOKS_EVERY_S, _SETTLES_S = 60.0, 0.5, 1.0
_NO_SCROLL_BAR = "document.documentElement.style.setProperty('overflow', 'hidden', 'important')"
_DOCUMENT = "document.documentElement?.outerHTML ?? ''"


class NotDrawn(Exception):
    """The page did not show what it should, or could not be shown."""


def program() -> str | None:
    """The Chromium of this machine."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def take(url: str, output: Path, *, height_px: int, problem: Callable[[str], str]) -> None:
    """Save the page at ``url`` as soon as ``problem`` finds none in its document. Raises NotDrawn."""
    with tempfile.TemporaryDirectory(prefix="draiv-chromium-", ignore_cleanup_errors=True) as folder:
        picture = Path(folder) / "picture.png"
        try:
            picture.write_bytes(_photograph(url, Path(folder), height_px, problem))
        except DevToolsError as failure:
            raise NotDrawn(f"{url}: {failure}") from failure
        output.parent.mkdir(parents=True, exist_ok=True)
        # A dashboard has few colours: with a palette the file is a third as large, and looks the same.
        subprocess.run(["pngquant", "--force", "--output", str(output), "256", str(picture)], check=True)


def _photograph(url: str, folder: Path, height_px: int, problem: Callable[[str], str]) -> bytes:
    command = [program() or NAMES[0], "--headless", f"--user-data-dir={folder}/profile"]
    if os.geteuid() == 0:
        # Its sandbox refuses to run as root, as in containers.
        command.append("--no-sandbox")
    with Browser(command) as browser:
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        size = {"width": WIDTH_PX, "height": height_px, "deviceScaleFactor": SCALE, "mobile": False}
        browser.call("Emulation.setDeviceMetricsOverride", session, **size)
        if error := browser.call("Page.navigate", session, url=url).get("errorText"):
            raise NotDrawn(f"{url}: {error}")
        until = time.monotonic() + _READY_WITHIN_S
        while found := problem(browser.call("Runtime.evaluate", session, expression=_DOCUMENT)["result"]["value"]):
            if time.monotonic() > until:
                raise NotDrawn(f"{url}: {found}")
            time.sleep(_LOOKS_EVERY_S)
        # Grafana's page always has a scroll bar; panels take the room that it leaves.
        browser.call("Runtime.evaluate", session, expression=_NO_SCROLL_BAR)
        time.sleep(_SETTLES_S)
        return base64.b64decode(browser.call("Page.captureScreenshot", session, format="png")["data"])
