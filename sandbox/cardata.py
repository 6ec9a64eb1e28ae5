"""A simulated CarData service on real sockets: ``python -m sandbox.cardata --port 8902``. See README.md."""

import argparse
import asyncio
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from common.clock import Clock, ManualClock, SystemClock
from sandbox.cardata_server import CarData
from sandbox.cardata_time import parse_iso
from sandbox.cardata_tls import Certificates
from sandbox.cardata_world import Settings


def create_app(
    settings: Settings | None = None, clock: Clock | None = None, certificates: Certificates | None = None
) -> CarData:
    """A sandbox that does not listen yet."""
    return CarData(settings or Settings(), clock or SystemClock(), certificates)


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line. Exits with a message where it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.cardata", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8902, help="auth and REST; 0 takes a free one")
    parser.add_argument("--stream-port", type=int, default=0, help="MQTT; 0 takes a free one")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="added to every request")
    parser.add_argument("--frozen-at", type=_moment, help="a clock that stands still at this time until it is moved")
    parser.add_argument("--live-stream", action="store_true", help="cars stream as the clock goes")
    parser.add_argument("--ca-file", type=Path, help="where to write the certificate that stream clients trust")
    parser.add_argument("--stop-on-eof", action="store_true", help="end when standard input does, as a parent's death")
    return parser.parse_args(arguments)


async def serve(options: argparse.Namespace) -> None:
    """Listen until SIGINT or SIGTERM."""
    clock = SystemClock() if options.frozen_at is None else ManualClock(wall=options.frozen_at)
    sandbox = create_app(Settings(latency_ms=options.latency_ms, live_stream=options.live_stream), clock)
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_number, over.set)
    if options.stop_on_eof:
        loop.add_reader(sys.stdin.fileno(), over.set)
    origin = await sandbox.start(options.host, options.port, options.stream_port)
    if options.ca_file is not None:
        options.ca_file.write_text(sandbox.stream.certificates.authority_pem)
    stream = "mqtts://{}:{}".format(*sandbox.stream.address)
    print(f"sandbox cardata, stream {stream}, listening on {origin}", flush=True)
    await over.wait()
    await sandbox.stop()


def _moment(text: str) -> datetime:
    return datetime.fromtimestamp(parse_iso(text), UTC)


if __name__ == "__main__":
    asyncio.run(serve(parse_arguments(sys.argv[1:])))
