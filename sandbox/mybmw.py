"""A simulated MyBMW service on a real socket: ``python -m sandbox.mybmw --port 8901``. See README.md."""

import argparse
import asyncio
import signal
import sys

from common.clock import Clock, SystemClock
from sandbox.mybmw_server import Sandbox
from sandbox.mybmw_world import Settings


def create_app(settings: Settings | None = None, clock: Clock | None = None) -> Sandbox:
    """A sandbox that does not listen yet."""
    return Sandbox(settings or Settings(), clock or SystemClock())


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line. Exits with a message where it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.mybmw", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8901, help="0 takes a free one")
    parser.add_argument("--event-step-s", type=float, default=Settings().event_step_s, help="0: each poll is a step")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="added to every request")
    parser.add_argument("--stop-on-eof", action="store_true", help="end when standard input does, as a parent's death")
    return parser.parse_args(arguments)


async def serve(options: argparse.Namespace) -> None:
    """Listen until SIGINT or SIGTERM."""
    sandbox = create_app(Settings(latency_ms=options.latency_ms, event_step_s=options.event_step_s))
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_number, over.set)
    if options.stop_on_eof:
        loop.add_reader(sys.stdin.fileno(), over.set)
    origin = await sandbox.start(options.host, options.port)
    print(f"sandbox mybmw listening on {origin}", flush=True)
    await over.wait()
    await sandbox.stop()


if __name__ == "__main__":
    asyncio.run(serve(parse_arguments(sys.argv[1:])))
