"""The paths of the MyBMW API: what each is called in metrics, and which of them command a car."""

import re

_TEMPLATES = (
    (re.compile(r"/eadrax-crccs/v\d+/vehicles/[^/]+/([a-z-]{1,40})"), "/eadrax-crccs/vehicles/{{vin}}/{0}"),
    (re.compile(r"/eadrax-dcs/v\d+/user/[^/]+/send-to-car"), "/eadrax-dcs/user/{{gcid}}/send-to-car"),
    (re.compile(r"/eadrax-vrccs/v\d+/presentation/remote-commands/([A-Za-z-]{1,40})"), "/eadrax-vrccs/{0}"),
    (re.compile(r"/eadrax-([a-z]{1,10})/v\d+/(?:presentation/)?([a-z/-]{1,60})"), "/eadrax-{0}/{1}"),
    (re.compile(r"/gcdm/oauth/(authenticate|token)"), "/gcdm/oauth/{0}"),
)
_ASKS = re.compile(
    r"/eadrax-(?:coas/.+|vcs/v\d+/vehicle-list|vrccs/v\d+/presentation/remote-commands/event(?:Status|Position))"
)


def template(path: str) -> str:
    """A path without versions, VINs and ids, from a small set: a label for metrics."""
    for pattern, name in _TEMPLATES:
        if found := pattern.fullmatch(path):
            return name.format(*found.groups())
    return "other"


def is_command(method: str, path: str) -> bool:
    """Whether a request may move something in a car.

    A GET asks. Of the rest, only what is known to ask or to log in is not a command: an endpoint that a new version
    of the library brings is one until somebody says otherwise.
    """
    return method != "GET" and "/eadrax-" in path and _ASKS.fullmatch(path) is None
