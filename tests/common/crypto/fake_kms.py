"""As much of Cloud KMS's REST interface as wrapping needs, over real HTTP, with versions that a test can rotate."""

import base64
import binascii
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import google_crc32c
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_NAME = "projects/demo/locations/europe-west3/keyRings/draiv/cryptoKeys/tokens"

Answer = tuple[int, dict[str, Any]]


@dataclass
class FakeKms:
    """One crypto key. ``spoil`` may change each answer, ``requests`` are the bodies that came."""

    url: str = ""
    primary: int = 1
    disabled: set[int] = field(default_factory=set)
    spoil: Callable[[Answer], Answer] = lambda answer: answer
    requests: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, path: str, body: dict[str, Any]) -> Answer:
        """What KMS answers to a POST."""
        self.requests.append(body)
        name, _, verb = path.partition("?")[0].removeprefix("/v1/").partition(":")
        if name != KEY_NAME:
            return _failure(404, "NOT_FOUND")
        try:
            return self._encrypt(body) if verb == "encrypt" else self._decrypt(body)
        except (InvalidTag, binascii.Error, ValueError):
            return _failure(400, "INVALID_ARGUMENT")

    def _encrypt(self, body: dict[str, Any]) -> Answer:
        plaintext, context = _field(body, "plaintext"), _field(body, "additionalAuthenticatedData")
        nonce = len(self.requests).to_bytes(12, "big")
        ciphertext = bytes([self.primary]) + nonce + _cipher(self.primary).encrypt(nonce, plaintext, context)
        return 200, {
            "name": f"{KEY_NAME}/cryptoKeyVersions/{self.primary}",
            "ciphertext": base64.b64encode(ciphertext).decode(),
            "ciphertextCrc32c": str(google_crc32c.value(ciphertext)),
            "verifiedPlaintextCrc32c": True,
            "verifiedAdditionalAuthenticatedDataCrc32c": True,
        }

    def _decrypt(self, body: dict[str, Any]) -> Answer:
        ciphertext, context = _field(body, "ciphertext"), _field(body, "additionalAuthenticatedData")
        if ciphertext[0] in self.disabled:
            return _failure(400, "FAILED_PRECONDITION")
        plaintext = _cipher(ciphertext[0]).decrypt(ciphertext[1:13], ciphertext[13:], context)
        return 200, {
            "plaintext": base64.b64encode(plaintext).decode(),
            "plaintextCrc32c": str(google_crc32c.value(plaintext)),
        }


def _field(body: dict[str, Any], name: str) -> bytes:
    """A field whose checksum came with it and fits."""
    raw = base64.b64decode(body.get(name, ""))
    if int(body[f"{name}Crc32c"]) != google_crc32c.value(raw):
        raise ValueError(name)
    return raw


def _cipher(version: int) -> AESGCM:
    return AESGCM(bytes([version]) * 32)


def _failure(status: int, code: str) -> Answer:
    return status, {"error": {"code": status, "message": "no", "status": code}}


@contextmanager
def running_fake_kms() -> Iterator[FakeKms]:
    """A server on a free port of the loopback interface."""
    kms = FakeKms()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = kms.spoil(kms.answer(self.path, body))
            if status == 0:
                self.close_connection = True  # and no answer
                return
            encoded = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kms.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield kms
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
