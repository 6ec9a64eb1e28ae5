"""The service with a defect, as a revision that somebody deployed: ``functions-framework --source`` this file.

Every ``FAULT_EVERY``-th request that is no question for a page fails; each takes ``FAULT_DELAY_MS`` longer.
"""

import itertools
import os
import sys
import time
from pathlib import Path

from flask import Request, Response

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
# functions-framework puts this file's own folder on the path, and not the checkout's.
import main

_EVERY = int(os.environ.get("FAULT_EVERY", "0"))
_DELAY_S = float(os.environ.get("FAULT_DELAY_MS", "0")) / 1000
_numbers = itertools.count(1)


def bmw_api(request: Request) -> Response:
    """The entry point."""
    if request.method != "POST" or not request.headers.get("X-API-Key"):
        return main.bmw_api(request)
    time.sleep(_DELAY_S)
    if _EVERY and next(_numbers) % _EVERY == 0:
        return Response('{"success": false}', 500, content_type="application/json")
    return main.bmw_api(request)
