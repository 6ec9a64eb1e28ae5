"""Pure: what a dashboard's file asks of Prometheus, as Grafana would ask it."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

SCRAPE_S = 5
"""How often compose.yaml's Prometheus scrapes, and ours."""
_VARIABLE = re.compile(r"\$\{?\w+")
_ROW_PX, _GAP_PX, _PADDING_PX = 30, 8, 16


@dataclass(frozen=True, slots=True)
class Window:
    """The time range of a picture, in seconds since the epoch, and the time between two points."""

    begin_s: float
    end_s: float
    step_s: int

    @property
    def rate_interval_s(self) -> int:
        """``$__rate_interval``: four scrapes, so that a rate always has points enough to be reckoned from."""
        return max(4 * SCRAPE_S, self.step_s + SCRAPE_S)

    def as_json(self) -> dict[str, float]:
        """In the form in which the page reads it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Query:
    """One query of one panel, without variables."""

    panel: int
    ref: str
    expr: str


def window(end_s: float, range_s: float, points: int = 600) -> Window:
    """The last ``range_s`` seconds before ``end_s``, at most ``points`` of them drawn.

    Begin and end are multiples of the step, as Grafana's are: a picture taken a second later has the same points.
    """
    step_s = max(SCRAPE_S, math.ceil(range_s / points))
    last = math.floor(end_s / step_s) * step_s
    return Window(last - math.floor(range_s / step_s) * step_s, last, step_s)


def queries(dashboard: Mapping[str, Any], over: Window) -> list[Query]:
    """What the panels ask, in their order. Raises ValueError for a variable that nobody here fills in."""
    found = []
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expr = target["expr"].replace("$__rate_interval", f"{over.rate_interval_s}s")
            if unknown := _VARIABLE.search(expr):
                raise ValueError(f"{panel['title']}: {unknown[0]} is not known")
            found.append(Query(panel["id"], target["refId"], expr))
    return found


def height_px(dashboard: Mapping[str, Any]) -> int:
    """How tall a page that shows every panel is, before any scaling."""
    rows: int = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    return rows * (_ROW_PX + _GAP_PX) - _GAP_PX + 2 * _PADDING_PX


def kiosk(url: str, minutes: float) -> str:
    """The address of the same dashboard without Grafana's menus, over the last ``minutes``."""
    return f"{url}{'&' if '?' in url else '?'}kiosk&theme=dark&from=now-{round(minutes * 60)}s&to=now"


def empty_panels(dashboard: Mapping[str, Any], answers: Iterable[Mapping[str, Any]]) -> list[str]:
    """The titles of the panels that have nothing to show."""
    full = {answer["panel"] for answer in answers if answer["series"]}
    return [panel["title"] for panel in dashboard["panels"] if panel["id"] not in full]


def unready(dashboard: Mapping[str, Any], dom: str) -> str:
    """What is missing in a page that should show every panel; empty where nothing is.

    ``dom`` is the document as HTML. Grafana and our page alike mark a panel with its title, and what is in it is a
    plot (the line behind a figure, too) or the words "No data".
    """
    panels = dashboard["panels"]
    headers = [f'data-testid="data-testid Panel header {escape(panel["title"], quote=False)}"' for panel in panels]
    if missing := [panel["title"] for panel, header in zip(panels, headers, strict=True) if header not in dom]:
        return f"there is no panel {', '.join(missing)}"
    drawn = dom.count('class="uplot') + dom.count(">No data<")
    return "" if drawn >= len(panels) else f"{drawn} of {len(panels)} panels are drawn"
