"""``make run``: the API on this machine in front of simulated car makers, until Ctrl-C.

``INSTANCES=4`` runs four workers behind the port, which share a Valkey and a Cloud Storage server.
"""

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from ops.console import log_line
from ops.processes import StartFailed, is_free
from ops.stack import ROOT, Stack, running

_DEMO = '"email":"demo@example.com","password":"demo-password"'
_KEY_FILE = "api-key"
_MOST_INSTANCES = 16
_VIN = '"vin":"WBA00000000DEMO01"'


def curl_lines(url: str, key_file: str = ".run/api-key") -> list[str]:
    """Requests to begin with, sent with the key in a file.

    A captcha token works once, so the first one makes up a new one each time.
    """
    bodies = [
        f"""'{{"action":"connect",{_DEMO},"hcaptcha":"'$(date +%s)'"}}'""",
        f"""'{{"action":"fuel",{_DEMO},{_VIN}}}'""",
        f"""'{{"action":"lock",{_DEMO},{_VIN},"wait_s":10}}'""",
    ]
    headers = f"""-H "X-API-Key: $(cat {key_file})" -H 'Content-Type: application/json'"""
    return [f"curl -s {url} {headers} -d {body} | python3 -m json.tool" for body in bodies]


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="ops.run", description=__doc__)
    parser.add_argument("--state-dir", type=Path, default=ROOT / ".run", help="for the database and the API's log")
    state_dir: Path = parser.parse_args(argv).state_dir
    given = os.environ.get("PORT") or "8080"
    if not given.isdecimal() or not 0 < (port := int(given)) < 65536:
        print("PORT must be a number from 1 to 65535.", file=sys.stderr)
        return 2
    wanted = os.environ.get("INSTANCES") or "1"
    if not wanted.isdecimal() or not 0 < (instances := int(wanted)) <= _MOST_INSTANCES:
        print(f"INSTANCES must be a number from 1 to {_MOST_INSTANCES}.", file=sys.stderr)
        return 2
    if not is_free(port):
        print(f"Port {port} is taken. Take another: make run PORT={port + 1}", file=sys.stderr)
        return 1

    over = threading.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, lambda _number, _frame: over.set())

    greeted = threading.Event()

    def show(line: str) -> None:
        if greeted.is_set():
            print(log_line(line), flush=True)

    _start_afresh(state_dir)
    print("Starting the simulated makers and the API ...", flush=True)
    try:
        with running(state_dir, os.environ, port=port, instances=instances, on_line=show, give_up=over.is_set) as stack:
            _keep(stack.key, state_dir / _KEY_FILE)
            if not over.is_set():
                _greet(stack, state_dir)
                # Before the words that promise it: whoever asks at once sees his line too.
                greeted.set()
                log = _relative(state_dir / "api.log")
                print(f"The API's log follows, shortened (in full in {log}). Ctrl-C ends all.\n", flush=True)
            return _serve(stack, over)
    except StartFailed as failure:
        print(failure, file=sys.stderr)
        return 1


def _start_afresh(state_dir: Path) -> None:
    # The simulated maker forgets its sessions when it ends, so links and tokens of an earlier run are of no use.
    state_dir.mkdir(parents=True, exist_ok=True)
    for name in (
        *(f"draiv{kind}.db{part}" for kind in ("", ".keys") for part in ("", "-wal", "-shm")),
        _KEY_FILE,
        "api.log",
    ):
        (state_dir / name).unlink(missing_ok=True)


def _keep(key: str, path: Path) -> None:
    path.touch(mode=0o600)
    path.write_text(key)


def _serve(stack: Stack, over: threading.Event) -> int:
    while not over.wait(0.5):
        if not stack.api.is_running:
            print(f"The API ended by itself:\n{stack.api.tail()}", file=sys.stderr)
            return 1
    print("\nStopping ...", flush=True)
    return 0


def _greet(stack: Stack, state_dir: Path) -> None:
    key_file = _relative(state_dir / _KEY_FILE)
    first, second, third = curl_lines(stack.api_url, key_file)
    print(
        f"""
The API answers on {stack.api_url}; the simulated MyBMW is {stack.sandbox.origin}.
Callers need an API key. One that may do everything was made for you: {stack.key}
In another terminal in this directory, connect the demo account, read one of its nine cars and lock it:

  {first}

  {second}

  {third}

BMW's CarData is simulated too, on {stack.cardata.origin}; docs/cardata.md links the client id
{stack.cardata.demo["client_id"]} and reads its cars.
"""
    )


def _relative(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    sys.exit(main())
