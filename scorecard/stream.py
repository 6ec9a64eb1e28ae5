"""One stream worker with 500 customers: what it costs, what kills lose, how soon another one takes over.

``python -m scorecard.stream [CUSTOMERS]`` prints the figures and exits with 1 where one falls short.
"""

import argparse
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
import psutil

from scorecard.stream_stage import RunningWorker, Stage, staged

_MILEAGE = "vehicle.vehicle.travelledDistance"
_KILLS = 10
_STOPS = 3
_SHORT_LEASE_S = 6.0
_LEASE_S = 30.0
_WATCHED_S = 20.0
_CAR_SPEAKS_EVERY_S = 10.0


class Fleet:
    """Linked customers, with a car each that speaks."""

    def __init__(self, stage: Stage, count: int) -> None:
        self._stage = stage
        customers = stage.cardata.add_customers(count)
        accounts = stage.link(customers)
        self._cars = {customer["gcid"]: (accounts[customer["gcid"]], min(customer["vins"])) for customer in customers}
        self._gcids = sorted(self._cars)
        self.size = count
        self._number = 0

    def speak(self, gcid: str, value: int) -> bool:
        """One message of the customer's car; whether anybody was connected."""
        vin, now = self._cars[gcid][1], datetime.now(UTC).isoformat()
        data = {_MILEAGE: {"timestamp": now, "value": value, "unit": "km"}}
        document = {"vin": vin, "entityId": "e", "topic": vin, "timestamp": now, "data": data}
        sent = self._stage.cardata.publish(gcid, vin=vin, raw=orjson.dumps(document).decode())
        return bool(sent["delivered"])

    @contextmanager
    def speaking(self) -> Iterator[Mapping[str, int]]:
        """Cars speak in turn meanwhile; what each told last and has reached the worker's connection, by GCID."""
        told: dict[str, int] = {}
        is_over = threading.Event()

        def speak_in_turn() -> None:
            pause_s = _CAR_SPEAKS_EVERY_S / self.size
            while not is_over.wait(pause_s):
                self._number += 1
                gcid = self._gcids[self._number % self.size]
                if self.speak(gcid, self._number):
                    told[gcid] = self._number

        speaker = threading.Thread(target=speak_in_turn)
        speaker.start()
        try:
            yield told
        finally:
            is_over.set()
            speaker.join()

    def kept(self, gcids: Iterable[str]) -> dict[str, int]:
        """What no kill can take away: the newer of what is in the journal and what is stored."""
        return self._stage.values({gcid: self._cars[gcid] for gcid in gcids}, _MILEAGE, with_journal=True)

    def stored(self, gcids: Iterable[str]) -> dict[str, int]:
        """What readers find."""
        return self._stage.values({gcid: self._cars[gcid] for gcid in gcids}, _MILEAGE)


def main(arguments: list[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m scorecard.stream", description=__doc__)
    parser.add_argument("customers", nargs="?", type=int, default=500)
    count = parser.parse_args(arguments).customers
    with staged(lease_s=_SHORT_LEASE_S) as stage:
        fleet = Fleet(stage, count)
        worker = stage.start()
        _say(f"{count} customers connected after {_until_connected(worker, count):.1f} s")
        _cost(fleet, worker)
        lost = _kills(stage, fleet, worker)
    with staged(lease_s=_LEASE_S) as stage:
        taken_over_s = _take_over(stage, count)
    return 0 if lost == 0 and taken_over_s <= _LEASE_S else 1


def _cost(fleet: Fleet, worker: RunningWorker) -> None:
    process = psutil.Process(worker.pid)
    used_s, since_s = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(_WATCHED_S)
    idle = (sum(process.cpu_times()[:2]) - used_s) / (time.monotonic() - since_s)
    used_s, since_s, before = sum(process.cpu_times()[:2]), time.monotonic(), worker.received()
    with fleet.speaking():
        time.sleep(_WATCHED_S)
    busy = (sum(process.cpu_times()[:2]) - used_s) / (time.monotonic() - since_s)
    rate = (worker.received() - before) / _WATCHED_S
    _say(f"CPU of one core: {idle:.1%} silent, {busy:.1%} at {rate:.0f} messages/s")
    _say(f"memory: {process.memory_info().rss / 2**20:.0f} MiB, threads {process.num_threads()}")
    figures = worker.figures()
    for stage in ("kept", "stored"):
        mean_s = figures[f"{stage}_seconds_sum", ""] / max(1.0, figures[f"{stage}_seconds_count", ""])
        _say(f"receipt to {stage}: mean {mean_s * 1000:.0f} ms, {_percentiles(figures, f'{stage}_seconds_bucket')}")


def _kills(stage: Stage, fleet: Fleet, worker: RunningWorker) -> int:
    """Kill the worker at any moment while the cars speak, over and over; how many messages it had kept and lost.

    A message has come from the socket and is not kept for a few milliseconds, or is still in the socket: nothing brings
    those back after a kill, for the stream repeats nothing. They are counted apart.
    """
    lost = in_flight = told = 0
    for number in range(1, _KILLS + _STOPS + 1):
        is_kill = number <= _KILLS
        with fleet.speaking() as spoken:
            time.sleep(random.uniform(1.0, 3.0))
            heard = dict(spoken)
            begun_s = time.monotonic()
            if is_kill:
                worker.kill()
        if not is_kill:
            heard = dict(spoken)
            worker.end()
        ended_s = time.monotonic() - begun_s
        kept = fleet.kept(heard)
        worker = stage.start()
        again_s = _until_connected(worker, fleet.size)
        _until_stored(worker)
        stored = fleet.stored(heard)
        lacks = sum(stored[gcid] < value for gcid, value in kept.items())
        flying = sum(kept[gcid] < value for gcid, value in heard.items())
        lost, in_flight, told = lost + lacks, in_flight + flying, told + len(heard)
        how = "kill -9" if is_kill else f"SIGTERM, ended in {ended_s:.1f} s"
        _say(f"{number:>2}. {how}: all connected again after {again_s:.1f} s; lost {lacks}, in flight {flying}")
    _say(
        f"of {told} cars' last messages: {lost} lost between kept and stored, {in_flight} in flight when it was killed"
    )
    return lost


def _take_over(stage: Stage, count: int) -> float:
    """How long after one of two workers was killed the other has all customers, at the usual lease."""
    Fleet(stage, count)
    first, second = stage.start(), stage.start()
    _timed(
        lambda: (
            first.connected() + second.connected() == count and min(first.connected(), second.connected()) > count / 3
        )
    )
    _say(f"two workers share: {first.connected()} and {second.connected()}")
    first.kill()
    taken_over_s = _until_connected(second, count)
    _say(f"the second one has all of them {taken_over_s:.1f} s after the first was killed, lease {_LEASE_S:.0f} s")
    return taken_over_s


def _until_connected(worker: RunningWorker, count: int) -> float:
    return _timed(lambda: worker.connected() == count)


def _until_stored(worker: RunningWorker) -> float:
    return _timed(lambda: worker.health()["unsaved_cars"] == 0)


def _percentiles(figures: Mapping[tuple[str, str], Any], name: str) -> str:
    buckets = sorted((float(label), count) for (found, label), count in figures.items() if found == name)
    total = buckets[-1][1]
    shown = []
    for part in (0.5, 0.99):
        bound_s = next(bound for bound, count in buckets if count >= part * total)
        shown.append(f"p{part * 100:.0f} <= {bound_s * 1000:.0f} ms")
    return ", ".join(shown)


def _timed(holds: Callable[[], bool], within_s: float = 120.0) -> float:
    """Seconds until ``holds``. Raises TimeoutError."""
    begun_s = time.monotonic()
    while not holds():
        if time.monotonic() > begun_s + within_s:
            raise TimeoutError
        time.sleep(0.05)
    return time.monotonic() - begun_s


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
