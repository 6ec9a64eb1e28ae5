"""The service as it is deployed, in front of the simulated maker: real processes, real sockets. And who deploys it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.stack import Stack, running
from sandbox.gcloud_install import Installed
from tests.support.operator import EMPTY, Checkout, Operator


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Both servers, one pair for all tests of a worker."""
    with running(tmp_path_factory.mktemp("stack"), {**os.environ, "POLL_INTERVAL_S": "0.05"}, event_step_s=0) as both:
        yield both


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("deploy"))


@pytest.fixture(scope="module")
def made(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """An operator who has run bootstrap, once for all tests."""
    operator = Operator(checkout, Installed(tmp_path_factory.mktemp("made"), {"configured": "p1"}))
    operator.do("bootstrap", "staging")
    return operator


@pytest.fixture
def operator(made: Operator, tmp_path: Path) -> Operator:
    """Somebody with a project of his own in which everything was made and nothing deployed."""
    return Operator(made.checkout, Installed(tmp_path / "gcloud", made.project.world()))


@pytest.fixture
def newcomer(checkout: Checkout, tmp_path: Path) -> Operator:
    """Somebody with an empty project."""
    return Operator(checkout, Installed(tmp_path / "gcloud", EMPTY))
