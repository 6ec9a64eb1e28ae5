"""One document over real HTTP: bounded, and never from anywhere else."""

import asyncio
import gzip
import itertools
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from common.clock import SystemClock
from common.fetch import FetchFailed, HttpFetch
from sandbox.issuer import Answer, SimulatedIssuer


@pytest.fixture
def server() -> Iterator[SimulatedIssuer]:
    with SimulatedIssuer(SystemClock()) as issuer:
        yield issuer


async def test_a_document_comes_as_it_was_sent(server: SimulatedIssuer) -> None:
    server.replies["/doc"] = Answer(body=b"\x00document")
    fetched = await HttpFetch()(f"{server.origin}/doc")
    assert (fetched.body, fetched.fresh_s) == (b"\x00document", None)


@pytest.mark.parametrize(
    ("headers", "fresh_s"),
    [
        ({"Cache-Control": "max-age=600"}, 600.0),
        ({"Cache-Control": "public, Max-Age=600 , must-revalidate"}, 600.0),
        ({"Cache-Control": 'max-age="600"'}, 600.0),
        ({"Cache-Control": "max-age=600", "Age": "250"}, 350.0),
        ({"Cache-Control": "max-age=600", "Age": "700"}, 0.0),
        ({"Cache-Control": "max-age=600", "Age": "soon"}, 600.0),
        ({"Cache-Control": "s-maxage=600"}, None),
        ({"Cache-Control": "max-age"}, None),
        ({"Cache-Control": "max-age=-1"}, None),
        ({"Cache-Control": "max-age=1e9"}, None),
        ({"Cache-Control": "max-age=" + "9" * 400}, None),
        ({"Cache-Control": "no-store"}, None),
    ],
)
async def test_how_long_it_may_be_kept_is_what_its_sender_says(
    server: SimulatedIssuer, headers: dict[str, str], fresh_s: float | None
) -> None:
    server.replies["/doc"] = Answer(headers=headers)
    assert (await HttpFetch()(f"{server.origin}/doc")).fresh_s == fresh_s


@pytest.mark.parametrize("status", [201, 204, 304, 401, 404, 429, 500, 503])
async def test_any_status_but_200_is_no_document(server: SimulatedIssuer, status: int) -> None:
    server.replies["/doc"] = Answer(status=status)
    with pytest.raises(FetchFailed, match=f"status {status}"):
        await HttpFetch()(f"{server.origin}/doc")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(server: SimulatedIssuer, status: int) -> None:
    server.replies["/doc"] = Answer(status=status, headers={"Location": f"{server.origin}/elsewhere"})
    with pytest.raises(FetchFailed, match=f"status {status}"):
        await HttpFetch()(f"{server.origin}/doc")
    assert server.fetched["/elsewhere"] == 0


async def test_a_document_may_be_as_large_as_the_limit_and_no_larger(server: SimulatedIssuer) -> None:
    fetch = HttpFetch(max_bytes=1000)
    server.replies["/doc"] = Answer(body=b"x" * 1000)
    assert len((await fetch(f"{server.origin}/doc")).body) == 1000
    server.replies["/doc"] = Answer(body=b"x" * 1001)
    with pytest.raises(FetchFailed, match="too large"):
        await fetch(f"{server.origin}/doc")


async def test_an_endless_document_is_given_up_at_the_limit(server: SimulatedIssuer) -> None:
    server.replies["/doc"] = Answer(body=itertools.repeat(b"x" * 65_536))
    with pytest.raises(FetchFailed, match="too large"):
        await HttpFetch()(f"{server.origin}/doc")


async def test_a_compressed_document_is_not_unpacked(server: SimulatedIssuer) -> None:
    bomb = gzip.compress(bytes(20_000_000))
    server.replies["/doc"] = Answer(body=bomb, headers={"Content-Encoding": "gzip"})
    assert (await HttpFetch()(f"{server.origin}/doc")).body == bomb


async def test_a_server_that_says_nothing_is_given_up_in_time(server: SimulatedIssuer) -> None:
    server.replies["/doc"] = Answer(wait_for=threading.Event())
    with pytest.raises(FetchFailed):
        await HttpFetch(timeout_s=1.0)(f"{server.origin}/doc")
    assert server.fetched["/doc"] == 1


async def test_a_server_that_always_says_a_little_is_given_up_in_time(server: SimulatedIssuer) -> None:
    never = threading.Event()

    def drip() -> Iterator[bytes]:
        while not never.wait(0.005):
            yield b"x"

    server.replies["/doc"] = Answer(body=drip())
    with pytest.raises(FetchFailed, match="TimeoutError"):
        await HttpFetch(timeout_s=0.1)(f"{server.origin}/doc")


async def test_a_server_that_is_not_there_is_a_failure(server: SimulatedIssuer) -> None:
    server.stop()
    with pytest.raises(FetchFailed, match="ConnectError"):
        await HttpFetch()(f"{server.origin}/doc")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/doc", "http://", "https://\u2603.\u2603..example/"])
async def test_what_is_no_address_of_the_web_is_a_failure(url: str) -> None:
    with pytest.raises(FetchFailed):
        await HttpFetch()(url)


async def test_a_server_that_speaks_no_tls_is_a_failure(server: SimulatedIssuer) -> None:
    with pytest.raises(FetchFailed):
        await HttpFetch()(server.origin.replace("http:", "https:") + "/doc")
    assert server.fetched.total() == 0


async def test_a_server_whose_certificate_nobody_vouches_for_is_told_nothing(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path / "certificate.pem"))
    told: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(FetchFailed):
            await HttpFetch()(f"https://127.0.0.1:{port}/doc")
    assert told == []


def self_signed(file: Path) -> Path:
    """A certificate of 127.0.0.1 for 127.0.0.1, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)
    )
    return file
