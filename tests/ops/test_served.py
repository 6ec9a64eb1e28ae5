"""What only a real server shows: bytes that are no proper HTTP, and what SECURITY.md says of h11."""

import json
import socket
from urllib.parse import urlsplit

import pytest

from ops.client import Client
from ops.stack import Stack


def head(stack: Stack, length: bytes) -> bytes:
    """Everything before the body."""
    key = f"X-API-Key: {stack.key}\r\n".encode()
    return b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + key + length + b"\r\n\r\n"


CHUNKED = b"Transfer-Encoding: chunked"


def exchange(url: str, sent: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to raw bytes, which must be the only one."""
    host, _, port = urlsplit(url).netloc.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.count(b"HTTP/1.1 ") == 1
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def test_a_chunked_body_is_read(stack: Stack) -> None:
    status, body = exchange(stack.api_url, head(stack, CHUNKED) + b'14\r\n{"action":"actions"}\r\n0\r\n\r\n')
    assert (status, json.loads(body)["success"]) == (200, True)


@pytest.mark.parametrize(
    "chunks",
    [
        b'14\r\n{"action":"actions"}XX0\r\n\r\n',
        b'14\r\n{"action":"actions"}XXGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n',
        b'nonsense\r\n{"action":"actions"}\r\n0\r\n\r\n',
        b'14\r\n{"act',
    ],
    ids=["bad end of a chunk", "a request behind it", "bad size", "cut short"],
)
def test_a_malformed_chunked_body_is_refused_with_the_contracts_error(stack: Stack, chunks: bytes) -> None:
    status, body = exchange(stack.api_url, head(stack, CHUNKED) + chunks)
    assert status == 400
    assert json.loads(body)["error"]["code"] == "VALIDATION_ERROR"


def test_a_body_that_ends_before_its_length_is_refused_with_the_contracts_error(stack: Stack) -> None:
    status, body = exchange(stack.api_url, head(stack, b"Content-Length: 100") + b'{"action":"actions"}')
    assert status == 400
    assert json.loads(body)["error"]["code"] == "VALIDATION_ERROR"


def test_the_server_speaks_gunicorns_http(stack: Stack) -> None:
    client = Client(stack.api_url, stack.key)
    assert client.get("/health").headers["server"] == "gunicorn"
    client.close()
