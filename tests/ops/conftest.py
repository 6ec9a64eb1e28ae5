"""The service as it is deployed, in front of the simulated maker: real processes, real sockets."""

import os
from collections.abc import Iterator

import pytest

from ops.stack import Stack, running


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Both servers, one pair for all tests of a worker."""
    with running(tmp_path_factory.mktemp("stack"), {**os.environ, "POLL_INTERVAL_S": "0.05"}, event_step_s=0) as both:
        yield both
