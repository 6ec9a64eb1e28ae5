"""Row 26: nothing that the service is told comes out where it should not."""

import random
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import redis

from ops.stack import issue_key, master_key
from ops.valkey import running_valkey
from sandbox.canaries import CANARIES, Search, only
from sandbox.process import RunningSandbox
from scorecard.fuzzing import Target
from scorecard.planting import Owner, last_words, planted, quoting_faults, quoting_login
from scorecard.raw import exchange
from scorecard.row import Finding, Row, Say
from scorecard.service import Instance, deployed

REQUESTS = 10_000
_PASSWORD = "demo-password"  # noqa: S105 - it is public
_OWNER_EMAIL, _OTHER_EMAIL, _TOKEN_EMAIL = "one@example.com", "mini@example.com", "user-26@example.com"
_VIN, _LATITUDE, _LONGITUDE = "WBA00000000DEMO01", "48.26174358", "11.67143692"
OWNERS = {
    "email of a linked account": _OWNER_EMAIL,
    "its password": _PASSWORD,
    "its VIN": _VIN,
    "where its car stands": _LATITUDE,
    "and how far east": _LONGITUDE,
}
"""What is known of an account that is in use."""
NEVER_ECHOED = (
    "api key", "bearer", "basic", "cookie", "password", "captcha", "upstream words", "upstream header", "access token",
    "refresh token", "subject",
)  # fmt: skip
"""What does not even come back to whoever sent it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the secrets."""

    hits: dict[str, list[str]]
    """By place, the names of those that were found there."""
    faults: int
    """Answers of the maker that quoted secrets."""
    log: str
    cache_bytes: int
    database_bytes: int


def plant_and_search(count: int, redis_url: str, say: Say) -> Outcome:
    """Send so many requests full of secrets, and look for them wherever something comes out or is kept."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "ENVIRONMENT": "development",
            "CALLERS": "api_keys",
            "TOKEN_KEYS": master_key(),
            "LOG_LEVEL": "DEBUG",
            "DOCUMENTS_URL": f"sqlite:///{folder}/documents.db",
            "REDIS_URL": redis_url,
            "BREAKER_FAILURE_THRESHOLD": "1000000",
            "READ_ATTEMPTS": "1",
            "AUDIT_KEY": "an audit key of thirty-two letters",
        }
        with deployed(1, event_step_s=0, **settings) as service:
            instance, maker = service.instances[0], service.maker
            other = _Other(instance, issue_key(settings))
            owner = Owner(service.connect(_OWNER_EMAIL, "row-26"), _OWNER_EMAIL, _PASSWORD, _VIN)
            place = {"coordinates": {"latitude": float(_LATITUDE), "longitude": float(_LONGITUDE)}}
            maker.control("POST", f"cars/{_OWNER_EMAIL}/{_VIN}", {"state": {"location": place}})
            quoting_login(maker, _TOKEN_EMAIL)
            instance.post(action="connect", email=_TOKEN_EMAIL, password=_PASSWORD, hcaptcha=CANARIES["captcha"] + "2")
            quoting_faults(maker)
            own = _send(instance, owner, other, count - count // 50, 26, say)
            faults, cache = _fired(maker), _dump(redis_url)
            last_words(maker)
            own += _send(instance, owner, other, count // 50, 27, say)
            faults += _fired(maker)
            pages = b"".join(_page(instance, path) for path in ("/metrics", "/health"))
            document = _page(instance, "/openapi.json")
            cache += _dump(redis_url)
            log = instance.log()
        database = b"".join(path.read_bytes() for path in sorted(Path(folder).iterdir()))
    everything, never_echoed = Search({**CANARIES, **OWNERS}), Search(only(NEVER_ECHOED))
    hits = {
        "log": everything.found_in(log.encode()),
        "other callers' replies": everything.found_in(bytes(other.received)),
        "metrics and health": everything.found_in(pages),
        "OpenAPI": Search(CANARIES).found_in(document),
        "shared cache": everything.found_in(cache),
        "database": everything.found_in(database),
        "sender's replies": never_echoed.found_in(own),
    }
    return Outcome(hits, faults, log, len(cache), len(database))


def _hygiene(say: Say) -> Finding:
    with running_valkey() as valkey:
        outcome = plant_and_search(REQUESTS, valkey.url, say)
    found = "; ".join(f"{place}: {', '.join(names)}" for place, names in outcome.hits.items() if names) or "0 hits"
    tracebacks = outcome.log.count("Traceback")
    measured = (
        f"{REQUESTS} requests, {len(CANARIES) + len(OWNERS)} secrets, {outcome.faults} answers of the maker that "
    )
    measured += (
        f"quote them: {found} in {len(outcome.log) >> 20} MiB of log, {outcome.cache_bytes >> 10} KiB of cache, "
    )
    measured += f"{outcome.database_bytes >> 10} KiB of database, the metrics and the replies; {tracebacks} tracebacks"
    planted_enough = outcome.faults > REQUESTS // 100 and outcome.cache_bytes and outcome.database_bytes
    return Finding(measured, bool(planted_enough) and not any(outcome.hits.values()) and not tracebacks)


class _Other:
    """Another caller with an account of its own, who asks now and then."""

    def __init__(self, instance: Instance, key: str) -> None:
        self._instance = instance
        self._key = {"X-API-Key": key}
        form = {"action": "connect", "email": _OTHER_EMAIL, "password": _PASSWORD, "hcaptcha": "row-26-other"}
        connected = instance.post(self._key, **form).json()
        self._account = connected["result"]["account"]
        self.received = bytearray()

    def ask(self) -> None:
        """One read of what is there, one of what is not, and the accounts."""
        for fields in (
            {"action": "status", "account": self._account},
            {"action": "status", "account": CANARIES["account"]},
            {"action": "accounts"},
        ):
            answered = self._instance.post(self._key, **fields)
            self.received += str(answered.headers).encode() + answered.content


def _send(instance: Instance, owner: Owner, other: _Other, count: int, seed: int, say: Say) -> bytes:
    """The replies to so many requests, while somebody else asks too."""
    rng = random.Random(seed)
    target = Target(instance.key, owner.account)
    own = bytearray()
    statuses: Counter[str] = Counter()
    with ThreadPoolExecutor(4) as pool:
        requests = [planted(target, owner, rng) for _ in range(count)]
        for number, received in enumerate(pool.map(lambda sent: exchange(instance.port, sent), requests), start=1):
            own += received
            statuses[received[9:12].decode()] += 1
            if number % 50 == 0:
                other.ask()
            if number % 2_500 == 0:
                say(f"{number} sent: " + ", ".join(f"{times} x {status}" for status, times in statuses.items()))
    return bytes(own)


def _fired(maker: RunningSandbox) -> int:
    return sum(rule["fired"] for rule in maker.faults())


def _page(instance: Instance, path: str) -> bytes:
    return httpx.get(f"http://127.0.0.1:{instance.port}{path}", trust_env=False).content


def _dump(url: str) -> bytes:
    """All that the shared store holds: its keys, and what ``DUMP`` gives for each."""
    with redis.Redis.from_url(url) as client:
        return b"\n".join(key + b" " + (client.dump(key) or b"") for key in client.scan_iter(count=1_000))


ROWS = (Row(26, "10,000 requests with planted secrets", "0 hits in any encoding, anywhere", _hygiene),)
