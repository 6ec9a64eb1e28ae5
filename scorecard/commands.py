"""Rows 11 to 15: a command never runs twice and never lies about its outcome."""

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from scorecard.row import Finding, Row, Say
from scorecard.service import Deployment, Instance, deployed

ROUNDS = 100
_FLEET = f"fleet-{ROUNDS}@example.com"
_CLAIMS_SUCCESS = frozenset({"executed", "confirmed"})

SEND_FAULTS: dict[str, dict[str, Any]] = {
    "500": {"fault": "status", "status": 500},
    "500 after taking effect": {"fault": "status", "status": 500, "perform": True},
    "503": {"fault": "status", "status": 503},
    "429": {"fault": "status", "status": 429},
    "401": {"fault": "status", "status": 401},
    "403 quota": {"fault": "status", "status": 403, "replenish_s": 1},
    "connection reset": {"fault": "reset"},
    "reset after taking effect": {"fault": "reset_after"},
    "no answer": {"fault": "hang", "perform": True},
    "malformed answer": {"fault": "malformed"},
    "truncated answer": {"fault": "truncated"},
    "answer of a wrong type": {"fault": "wrong_type"},
    "empty answer": {"fault": "empty"},
    "reported ERROR": {"fault": "event", "outcome": "ERROR"},
    "reported IGNORED": {"fault": "event", "outcome": "IGNORED"},
}
"""What goes wrong with the request that sends the command."""
POLL_FAULTS: dict[str, dict[str, Any]] = {
    "503 while asking": {"fault": "status", "status": 503},
    "reset while asking": {"fault": "reset"},
    "malformed while asking": {"fault": "malformed"},
}
"""What goes wrong with the requests that ask for the outcome."""


def _two_hundred_unlocks(_say: Say) -> Finding:
    with deployed(4) as service:
        account = service.connect("one@example.com", "row-11")
        for instance in service.instances:
            instance.post(action="status", account=account)
        service.maker.zero_stats()
        headers = {"Idempotency-Key": "row-11"}

        def unlock(number: int) -> httpx.Response:
            return service.instances[number % 4].post(headers, action="unlock", account=account)

        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(unlock, range(200)))
        sends = service.sends()
    statuses = Counter(answer.status_code for answer in answers)
    shown = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
    return Finding(f"{sends} POST upstream; {shown}", sends == 1 and set(statuses) <= {200, 202, 409})


def _faults_at_each_step(say: Say) -> Finding:
    sent_twice = false_successes = commands = 0
    for name, fault in {**SEND_FAULTS, **POLL_FAULTS}.items():
        say(f"{name} x {ROUNDS}")
        path = "eventStatus" if name in POLL_FAULTS else "door-unlock"
        # A deployment a fault, so that one fault's open circuit does not hide the next one's commands.
        with deployed(1, UPSTREAM_TIMEOUT_S="0.3", BREAKER_FAILURE_THRESHOLD="1000000") as service:
            account = service.connect(_FLEET, f"row-12-{name.replace(' ', '-')}")
            vehicles = [
                v["vin"]
                for v in service.instances[0].post(action="vehicles", account=account).json()["result"]["vehicles"]
            ]
            service.maker.fault(match={"path": path}, every=1, **fault)
            records = _unlock_all(service.instances[0], account, vehicles)
            service.maker.clear_faults()
            truth = service.maker.stats()["commands"]
            routes = service.sends()
        commands += len(vehicles)
        for vin in vehicles:
            counts = truth.get(vin, {}).get("door-unlock", {"received": 0, "executed": 0})
            sent_twice += counts["executed"] > 1
            false_successes += records[vin] in _CLAIMS_SUCCESS and counts["executed"] == 0
        # A 401 is answered before execution and may be sent once more with a new token.
        sent_twice += max(0, routes - len(vehicles) * (2 if name == "401" else 1))
    measured = f"{commands} commands under {len(SEND_FAULTS) + len(POLL_FAULTS)} faults: "
    measured += f"{sent_twice} sent twice, {false_successes} false `executed`"
    return Finding(measured, sent_twice == 0 and false_successes == 0)


def _unlock_all(instance: Instance, account: str, vehicles: list[str]) -> dict[str, str]:
    """The state that the service gives for an unlock of each vehicle, as good as it gets."""

    def unlock(vin: str) -> tuple[str, str]:
        answered = instance.post({"Idempotency-Key": vin}, action="unlock", account=account, vin=vin, wait_s=0.3)
        body = answered.json()
        command_id = body["result"]["command_id"] if body["success"] else body["error"]["details"].get("command_id")
        if command_id is None:
            return vin, "refused"
        asked = instance.post(action="command_status", params={"command_id": command_id}).json()
        return vin, asked["result"]["state"] if asked["success"] else "not known"

    with ThreadPoolExecutor(8) as pool:
        return dict(pool.map(unlock, vehicles))


def _killed(say: Say) -> Finding:
    rng = random.Random(13)
    sent_twice = lies = answered = 0
    ends: dict[str, str] = {}
    with deployed(4, UPSTREAM_TIMEOUT_S="5") as service:
        account = service.connect(_FLEET, "row-13")
        vehicles = service.vehicles(account)
        for vin in vehicles:
            service.instances[0].post(action="status", account=account, vin=vin)
        service.maker.settings(latency_ms=20)
        delays_s = [rng.uniform(0.0, 0.12) for _ in vehicles]
        done = threading.Semaphore(0)

        def one(instance: Instance, share: list[tuple[str, float]]) -> list[str | None]:
            ids = []
            for vin, delay_s in share:
                ids.append(_unlock_and_kill(instance, account, vin, delay_s))
                done.release()
            return ids

        shares = [list(zip(vehicles, delays_s, strict=True))[number::4] for number in range(4)]
        with ThreadPoolExecutor(4) as pool:
            futures = [
                pool.submit(one, instance, share) for instance, share in zip(service.instances, shares, strict=True)
            ]
            for count in range(1, len(vehicles) + 1):
                done.acquire()
                if count % 20 == 0:
                    say(f"{count} of {len(vehicles)} killed")
            ids = [found for future in futures for found in future.result()]
        answered = sum(found is not None for found in ids)
        # The same key again, at an instance that lives: it must find out, and must not send again what was sent.
        before = service.maker.stats()["commands"]
        for vin in vehicles:
            replay = service.instances[0].post(
                {"Idempotency-Key": vin}, action="unlock", account=account, vin=vin, wait_s=1
            )
            body = replay.json()
            ends[vin] = body["result"]["state"] if body["success"] else body["error"]["code"]
        after = service.maker.stats()["commands"]
        for vin in vehicles:
            first, second = (_count(stats, vin) for stats in (before, after))
            sent_twice += second["received"] > 1
            claims_too_much = ends[vin] in _CLAIMS_SUCCESS and second["executed"] == 0
            lies += claims_too_much or second["executed"] > 1 or (first["received"] == 1 and second["received"] != 1)
    shown = ", ".join(f"{count} {state}" for state, count in Counter(ends.values()).most_common())
    measured = f"{len(vehicles)} kills, {answered} replied before; asked again: {shown}; "
    measured += f"{sent_twice} sent twice, {lies} false ends"
    return Finding(measured, sent_twice == 0 and lies == 0)


def _count(stats: dict[str, Any], vin: str) -> dict[str, int]:
    counts: dict[str, int] = stats.get(vin, {}).get("door-unlock", {"received": 0, "executed": 0})
    return counts


def _unlock_and_kill(instance: Instance, account: str, vin: str, delay_s: float) -> str | None:
    """Send an unlock, kill its server ``delay_s`` later, start it again; the command's id if it was told in time."""
    killer = threading.Timer(delay_s, instance.kill)
    killer.start()
    try:
        body = instance.post({"Idempotency-Key": vin}, action="unlock", account=account, vin=vin).json()
        told: str | None = body["result"]["command_id"] if body["success"] else None
    except (httpx.HTTPError, RuntimeError):  # RuntimeError: the client was closed by the kill
        told = None
    killer.join()
    instance.start()
    return told


def _expired(_say: Say) -> Finding:
    refused = 0
    with deployed(1, COMMAND_TTL_S="0.25", UPSTREAM_TIMEOUT_S="5") as service:
        account = service.connect("fleet-50@example.com", "row-14")
        instance, maker = service.instances[0], service.maker
        vehicles = service.vehicles(account)
        for vin in vehicles:
            instance.post(action="status", account=account, vin=vin)
        # Each command needs a new token first, and the maker is slow to give it: by then the command has expired.
        maker.fault(match={"path": "/gcdm/oauth/token"}, fault="slow", delay_ms=400)
        for vin in vehicles:
            # The renewal that the last command began goes on without it; its token must not serve the next one.
            while maker.stats()["in_flight"]:
                continue
            maker.expire_access("fleet-50@example.com")
            late = instance.post(action="unlock", account=account, vin=vin).json()
            refused += late["success"] is False and late["error"]["may_have_succeeded"] is False
        accepted = maker.stats()["commands_received"]
    measured = f"{len(vehicles)} commands delayed past their time: {accepted} accepted by the maker, {refused} said so"
    return Finding(measured, accepted == 0 and refused == len(vehicles))


def _keys(_say: Say) -> Finding:
    wrong: Counter[str] = Counter()
    with deployed(2, REQUIRE_IDEMPOTENCY_KEY="true") as service:
        account = service.connect(_FLEET, "row-15")
        first, second = service.instances
        vehicles = service.vehicles(account)
        for vin in vehicles:
            first.post(action="status", account=account, vin=vin)
            second.post(action="status", account=account, vin=vin)
        service.maker.fault(match={"path": "door-unlock"}, fault="slow", delay_ms=250)
        for vin in vehicles:
            target = {"account": account, "vin": vin}
            wrong["missing"] += first.post(action="unlock", **target).status_code != 400
            key = {"Idempotency-Key": f"row-15-{vin}"}
            wrong["in flight"] += _while_in_flight(service, key, target) != 409
            wrong["reused"] += second.post(key, action="lock", **target).status_code != 422
    return Finding(
        f"{len(vehicles)} each: {wrong['missing']} wrong of 400, {wrong['reused']} of 422, {wrong['in flight']} of 409",
        wrong.total() == 0,
    )


def _while_in_flight(service: Deployment, key: dict[str, str], target: dict[str, str]) -> int:
    """The status of a second request at another instance while the maker is working on the first."""
    first, second = service.instances
    before = service.sends()
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(lambda: first.post(key, action="unlock", **target))
        while service.sends() == before and not sending.done():
            continue
        status = second.post(key, action="unlock", **target).status_code
        sending.result()
    return status


ROWS = (
    Row(11, "200 unlocks with one key from 4 processes", "1 POST upstream", _two_hundred_unlocks),
    Row(12, "a fault at each step of a command, x100", "<= 1 executed each; 0 false `executed`", _faults_at_each_step),
    Row(13, "kill -9 between intent and reply, x100", "0 sent twice; every end known or `unknown`", _killed),
    Row(14, "expired or delayed command", "0 sent after expires_at", _expired),
    Row(15, "key missing where required / reused / in flight", "400 / 422 / 409, always", _keys),
)
