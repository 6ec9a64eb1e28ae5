"""Rows 24 and 25: nothing that is sent to the service breaks it, slows others down or is read in two ways."""

import contextlib
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from common.errors import BY_CODE
from common.settings import Settings
from scorecard import fuzzing, fuzzing_http
from scorecard.fuzzing import Attempt, Target
from scorecard.raw import exchange, replies
from scorecard.row import Finding, Row, Say
from scorecard.service import Deployment, deployed
from scorecard.slow import slow_clients

_FROM_SCHEMA, _MUTATED, _DUPLICATES, _ABUSED = 2_000, 3_000, 1_000, 4_000
_WITH_LIMITS = 1_000
_EMAIL = "one@example.com"


class Judge:
    """Tells what is wrong with replies, and counts what was answered."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        """By kind of attempt and what was wrong with the answer."""

    def answer(self, attempt: Attempt, port: int) -> list[int]:
        """Send it; the statuses of the answers."""
        try:
            received = exchange(port, attempt.sent)
            found = replies(received, to_head=attempt.is_head)
        except TimeoutError:
            self._note(attempt, "no answer in time")
            return []
        except ValueError:
            self._note(attempt, "not HTTP")
            return []
        if b"Traceback" in received:
            self._note(attempt, "a traceback")
        for reply in found:
            self.statuses[str(reply.status)] += 1
            if not reply.is_json:
                if reply.status >= 500:
                    self._note(attempt, f"{reply.status} outside the contract")
            elif not (attempt.is_head or _keeps_to_contract(reply.status, reply.body)):
                self._note(attempt, f"{reply.status} that is not the contract's")
        if not found:
            self.statuses["hung up"] += 1
        return [reply.status for reply in found]

    def _note(self, attempt: Attempt, problem: str) -> None:
        self.wrong[f"{attempt.kind}: {problem}"] += 1


def _keeps_to_contract(status: int, body: bytes) -> bool:
    if status == 204:
        return not body
    answered = json.loads(body)
    if answered.get("success") is not False:
        return status < 500
    leaf = BY_CODE.get(answered["error"]["code"])
    return leaf is not None and leaf.status == status and status != 500


def attempts(target: Target, share: float = 1.0) -> Iterator[Attempt]:
    """All kinds of requests, the same for every target but for its names; ``share`` of the full number of each."""
    rng = random.Random(24)
    # Made for somebody else, because what a changed byte makes of a name depends on the name.
    stand_in = Target("K" * len(target.key), "acc_" + "Z" * (len(target.account) - 4))
    for attempt in chain(
        fuzzing.facts(stand_in),
        fuzzing.from_the_schema(stand_in, round(_FROM_SCHEMA * share)),
        fuzzing.mutated_bodies(stand_in, rng, round(_MUTATED * share)),
        fuzzing.duplicate_keys(stand_in, rng, round(_DUPLICATES * share)),
        fuzzing_http.abused(stand_in, rng, round(_ABUSED * share)),
    ):
        sent = attempt.sent.replace(stand_in.key.encode(), target.key.encode())
        yield Attempt(attempt.kind, sent.replace(stand_in.account.encode(), target.account.encode()))


def _fuzzed(say: Say) -> Finding:
    judge = Judge()
    with deployed(1) as service:
        instance = service.instances[0]
        target = _target(service)
        count, refused, duplicates = _send(judge, attempts(target), instance.port, say)
        sends = service.sends()
        log = instance.log()
        whole = instance.post(action="actions").status_code == 200 and "Booting worker" not in log
        # The counter that saw no command does see one.
        instance.post(action="unlock", account=target.account)
        counts = service.sends() == 1
    say(f"{_WITH_LIMITS} of them, with the limits on")
    differences = _with_limits()
    tracebacks = log.count("Traceback") + log.count('"internal_error"')
    problems = ", ".join(f"{number} x {problem}" for problem, number in judge.wrong.most_common(5)) or "0"
    shown = ", ".join(f"{number} x {status}" for status, number in judge.statuses.most_common(8))
    measured = f"{count} requests: {problems} wrong answers, {tracebacks} tracebacks in the log; "
    measured += f"{duplicates - refused} of {duplicates} duplicate keys not refused, {sends} commands sent; {shown}; "
    measured += f"with limits {differences} other answers than 429"
    passed = not judge.wrong and not tracebacks and not sends and refused == duplicates
    return Finding(measured, passed and whole and counts and not differences)


def _send(judge: Judge, todo: Iterable[Attempt], port: int, say: Say) -> tuple[int, int, int]:
    """How many were sent; of those with duplicate keys how many were refused, and how many there were."""
    count = refused = duplicates = 0
    with ThreadPoolExecutor(4) as pool:
        for attempt, statuses in pool.map(lambda one: (one, judge.answer(one, port)), todo):
            count += 1
            if attempt.kind == "duplicate key":
                duplicates += 1
                refused += statuses == [400]
            if count % 2_500 == 0:
                say(f"{count} sent")
    return count, refused, duplicates


def _with_limits() -> int:
    """How many requests are answered otherwise than without limits, and not by 429."""
    limits = {name.upper(): field.default for name, field in Settings.model_fields.items() if name.startswith("limit_")}
    answers = []
    for settings in ({}, limits):
        with deployed(1, **settings) as service:
            judge, port = Judge(), service.instances[0].port
            sample = attempts(_target(service), _WITH_LIMITS / (_FROM_SCHEMA + _MUTATED + _DUPLICATES + _ABUSED))
            answers.append([judge.answer(attempt, port) for attempt in sample])
    free, limited = answers
    limited_at_all = any(429 in statuses for statuses in limited) and not any(429 in statuses for statuses in free)
    pairs = zip(free, limited, strict=True)
    return sum(_differ(*pair) for pair in pairs) if limited_at_all else len(free)


def _differ(free: list[int], limited: list[int]) -> bool:
    return len(free) != len(limited) or any(
        status not in (429, usual) for usual, status in zip(free, limited, strict=True)
    )


def _target(service: Deployment) -> Target:
    account = service.connect(_EMAIL, "fuzz")
    service.instances[0].post(action="status", account=account)
    service.maker.zero_stats()
    return Target(service.instances[0].key, account)


_REFUSED_IN_MS = 50.0
_OTHERS_P99_MS = 250.0
_SLOW_CLIENTS = 64
_FOR_S = 5.0


def _large_deep_slow(say: Say) -> Finding:
    shown = []
    passed = True
    with deployed(1) as service:
        instance = service.instances[0]
        target = _target(service)
        others = Others(service, target.account)
        for name, body, status in (
            ("33 MB", b"{" + b" " * 33_000_000, 413),
            ("100k deep", b"[" * 100_000, 413),
            ("8k deep in 16 KiB", b'{"params":' + b"[" * 8_000 + b"]" * 8_000 + b"}", 400),
        ):
            took_ms = [refused_in_ms(instance.port, fuzzing.request(target, body), status) for _ in range(30)]
            passed &= max(took_ms) < _REFUSED_IN_MS
            shown.append(f"{name}: {status} in at most {max(took_ms):.0f} ms")
        baseline_ms = others.p99_ms(_FOR_S / 2)
        worst_ms = 0.0
        for kind in slow_clients(fuzzing.request(target, b"{}")):
            with kind.attacking(instance.port, _SLOW_CLIENTS):
                p99_ms = others.p99_ms(_FOR_S)
            say(f"{_SLOW_CLIENTS} clients with {kind.name}: p99 of others {p99_ms:.1f} ms")
            worst_ms = max(worst_ms, p99_ms)
    shown.append(
        f"{_SLOW_CLIENTS} slow clients at 32 threads: others' p99 at most {worst_ms:.1f} ms, "
        f"{baseline_ms:.1f} ms without them"
    )
    return Finding("; ".join(shown), passed and worst_ms < _OTHERS_P99_MS)


class Others:
    """A caller who has nothing to do with it all and reads from the cache."""

    def __init__(self, service: Deployment, account: str) -> None:
        self._instance = service.instances[0]
        self._account = account

    def p99_ms(self, seconds: float) -> float:
        """The 99th percentile of how long requests take, one after the other for ``seconds``."""
        took_ms = []
        until_s = time.perf_counter() + seconds
        while (began_s := time.perf_counter()) < until_s:
            self._instance.post(action="fuel", account=self._account).raise_for_status()
            took_ms.append((time.perf_counter() - began_s) * 1000)
        return sorted(took_ms)[int(len(took_ms) * 0.99)]


def refused_in_ms(port: int, sent: bytes, status: int) -> float:
    """How long after the first byte of a request its refusal begins; infinite where the answer is another."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        began_s = time.perf_counter()
        sending = threading.Thread(target=_send_all, args=(connection, sent), name="upload")
        sending.start()
        beginning = connection.recv(12)
        took_ms = (time.perf_counter() - began_s) * 1000
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        sending.join()
    return took_ms if beginning == b"HTTP/1.1 %d" % status else float("inf")


def _send_all(connection: socket.socket, sent: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(sent)


ROWS = (
    Row(24, "10,000 fuzzed requests + the inputs above", "0 5xx, 0 tracebacks, 0 duplicate-key commands", _fuzzed),
    Row(25, "33 MB / 100k deep / slow client", "413/400 in < 50 ms; others' p99 < 250 ms", _large_deep_slow),
)
