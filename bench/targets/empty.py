"""The bound: a function that returns the reply of our cached read, byte for byte, and does nothing else."""

import os
from pathlib import Path

import flask
import flask.typing
import functions_framework

REPLY = Path(os.environ["BENCH_REPLY_FILE"]).read_bytes()


@functions_framework.http
def empty(_request: flask.Request) -> flask.typing.ResponseReturnValue:
    """Answer anything."""
    return REPLY, 200, {"Content-Type": "application/json"}
