"""The service under load and in trouble, watched by a real Prometheus: what the picture is of."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from common.clock import SystemClock
from common.settings import Settings
from ops.monitoring.screenshot.dashboard import SCRAPE_S, queries, window
from ops.monitoring.screenshot.incidents import INCIDENTS, LATENCY_MS, Outside
from ops.monitoring.screenshot.load import Callers
from ops.monitoring.screenshot.prometheus import Prometheus, scraping
from ops.stack import running
from sandbox.issuer import AUDIENCE, SimulatedIssuer

WARM_UP_S = 35
"""Left out of the picture, at the least: the first reads find nothing cached, and a rate needs four scrapes."""
_MINUTE_S = 60


def service_settings(issuer: str) -> dict[str, str]:
    """The service's settings: as in production, but hurried, so that minutes show what hours would."""
    no_limits = {name.upper(): "" for name in Settings.model_fields if name.startswith("limit_")}
    return {
        **no_limits,
        "ENVIRONMENT": "production",
        "CALLERS": "api_keys,oidc",
        "OIDC_ISSUERS": json.dumps([{"issuer": issuer, "audience": [AUDIENCE], "scopes": ["read"]}]),
        "LIMIT_CALLER_SERVICE": "5/minute",
        "READ_TTL_S": "5",
        "BREAKER_RECOVERY_TIMEOUT_S": "15",
        "POLL_INTERVAL_S": "0.2",
        "CONFIRM_WINDOW_S": "1",
    }


def warm_up_s(now_s: float, range_s: float) -> float:
    """How long to warm up so that the picture ends half a minute past, where no label of an axis is cut."""
    return WARM_UP_S + (_MINUTE_S / 2 - (now_s + WARM_UP_S + range_s)) % _MINUTE_S


def measure(dashboard: Mapping[str, Any], minutes: float, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Run it all for ``minutes``; the dashboard and what Prometheus answered to it. Files go to ``folder``.

    Raises StartFailed and PrometheusError.
    """
    range_s = minutes * 60
    with _started(folder) as (outside, callers, prometheus):
        accounts = callers.connect()
        over = threading.Event()
        threads = callers.call_until(over, accounts)
        try:
            time.sleep(warm_up_s(time.time(), range_s))
            _trouble(outside, range_s, say)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        over_what = window(time.time() - SCRAPE_S, range_s)
        answers = prometheus.answers(queries(dashboard, over_what), over_what)
    return {"dashboard": dashboard, "window": over_what.as_json(), "answers": answers}


@contextmanager
def _started(folder: Path) -> Iterator[tuple[Outside, Callers, Prometheus]]:
    with ExitStack() as stack:
        issuer = stack.enter_context(SimulatedIssuer(SystemClock()))
        environ = {**os.environ, **service_settings(issuer.origin)}
        service = stack.enter_context(running(folder, environ, event_step_s=0.3))
        service.sandbox.settings(latency_ms=LATENCY_MS)
        prometheus = stack.enter_context(scraping(urlsplit(service.api_url).netloc, folder))
        yield Outside(service.sandbox, issuer), Callers(service.api_url, service.key, issuer), prometheus


def _trouble(outside: Outside, range_s: float, say: Callable[[str], None]) -> None:
    begun_s = time.monotonic()
    for incident in INCIDENTS:
        time.sleep(max(0.0, begun_s + incident.share * range_s - time.monotonic()))
        say(incident.says)
        incident.act(outside)
    time.sleep(max(0.0, begun_s + range_s - time.monotonic()))
