"""Clients that are slow, in front of a real server with the usual 32 threads: nobody else notices."""

from collections.abc import Iterator

import pytest

from scorecard.fuzzing import Target, request
from scorecard.hostile import Others, refused_in_ms
from scorecard.service import Deployment, deployed
from scorecard.slow import SlowClient, slow_clients

MORE_THAN_THREADS = 64
LIMIT_MS = 250.0
TARGET = Target("no key at all", "acc_0")


@pytest.fixture(scope="module")
def service() -> Iterator[Deployment]:
    with deployed(1) as running:
        yield running


@pytest.fixture(scope="module")
def others(service: Deployment) -> Others:
    account = service.connect("one@example.com", "slow")
    service.instances[0].post(action="fuel", account=account)
    return Others(service, account)


def kinds() -> tuple[SlowClient, ...]:
    return slow_clients(request(TARGET, b"{}"))


@pytest.mark.parametrize("kind", kinds(), ids=[kind.name for kind in kinds()])
def test_more_slow_clients_than_threads_slow_nobody_else_down(
    service: Deployment, others: Others, kind: SlowClient
) -> None:
    with kind.attacking(service.instances[0].port, MORE_THAN_THREADS):
        # Clients that hold threads hold them for seconds; a processor that is busy elsewhere is soon back.
        assert any(others.p99_ms(0.7) < LIMIT_MS for _ in range(5))


def test_too_large_a_body_is_refused_while_it_is_still_being_sent(service: Deployment) -> None:
    sent = request(Target(service.instances[0].key, ""), b"{" + b" " * 33_000_000)
    assert min(refused_in_ms(service.instances[0].port, sent, 413) for _ in range(5)) < LIMIT_MS


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"[" * 100_000, 413), (b'{"params":' + b"[" * 8_000 + b"]" * 8_000 + b"}", 400)],
    ids=["100,000 levels", "8,000 levels"],
)
def test_a_deep_body_is_refused_at_once(service: Deployment, body: bytes, status: int) -> None:
    sent = request(Target(service.instances[0].key, ""), body)
    assert min(refused_in_ms(service.instances[0].port, sent, status) for _ in range(5)) < LIMIT_MS
