"""``python -m ops.canary_guard PROJECT REGION SERVICE REVISION``: takes the traffic back if the canary dies.

It reads standard input, which the canary and each of its gcloud hold open. A dismissal ends it. The end of the input
without one means that nobody is left who could move traffic: then all of it goes to REVISION.
"""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ops.canary_gcloud import Gcloud, Traffic
from ops.canary_rollout import SplitLeft, go_back

_ROOT = Path(__file__).resolve().parent.parent
_DISMISSED = b"dismissed\n"


def start(traffic: Traffic, revision: str) -> Callable[[], None]:
    """Start a guard of ``traffic``; what dismisses it."""
    guard = subprocess.Popen(
        [sys.executable, "-m", "ops.canary_guard", traffic.project, traffic.region, traffic.service, revision],
        stdin=subprocess.PIPE,
        start_new_session=True,
        cwd=_ROOT,
        env=traffic.gcloud.environ,
    )
    pipe = guard.stdin
    assert pipe is not None  # noqa: S101 - it was opened as a pipe
    traffic.gcloud.pass_fds = (pipe.fileno(),)

    def dismiss() -> None:
        traffic.gcloud.pass_fds = ()
        # A guard that has died needs no dismissal, and must not spoil a roll-out that is over.
        with contextlib.suppress(OSError):
            pipe.write(_DISMISSED)
            pipe.close()
        guard.wait()

    return dismiss


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    project, region, service, revision = argv
    if sys.stdin.buffer.read() == _DISMISSED:
        return 0
    print(f"canary: it died; back to {revision}", file=sys.stderr, flush=True)
    try:
        go_back(Traffic(Gcloud(), project, region, service), revision, time.sleep, lambda _text: None)
    except SplitLeft as left:
        print(f"canary: {left}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
