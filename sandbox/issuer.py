"""A simulated OpenID Connect issuer: real keys, real HTTP, and every way in which a real one can let us down.

>>> with SimulatedIssuer(SystemClock()) as issuer:  # doctest: +SKIP
...     issuer.token(sub="user-1")
...     issuer.rotate()
...     issuer.replies["/jwks"] = Answer(status=503)
"""

import base64
import json
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import Algorithm, get_default_algorithms

from common.clock import Clock

AUDIENCE: Final = "draiv-demo"
DISCOVERY: Final = "/.well-known/openid-configuration"
JWKS: Final = "/jwks"
LIFETIME_S: Final = 3_600

Json = Mapping[str, Any]
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_CURVES: Final[Mapping[str, type[ec.EllipticCurve]]] = {
    "ES256": ec.SECP256R1,
    "ES384": ec.SECP384R1,
    "ES512": ec.SECP521R1,
}
_ALGORITHMS: Final[Mapping[str, Algorithm]] = get_default_algorithms()


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key pair, its id, and the algorithm that it signs with."""

    kid: str
    algorithm: str
    private: PrivateKey = field(repr=False)

    def jwk(self, **more: object) -> dict[str, Any]:
        """The public half as a JWK; ``more`` adds and replaces members, and None takes one away."""
        public = _ALGORITHMS[self.algorithm].to_jwk(self.private.public_key(), as_dict=True)
        # Each library has its own idea of `key_ops`; most issuers leave it out.
        jwk = {**public, "key_ops": None, "kid": self.kid, "alg": self.algorithm, "use": "sig", **more}
        return {name: value for name, value in jwk.items() if value is not None}

    def sign(self, message: bytes, algorithm: str | None = None) -> bytes:
        """The raw signature of ``message``."""
        return _ALGORITHMS[algorithm or self.algorithm].sign(message, self.private)


def new_key(kid: str, algorithm: str = "ES256", *, bits: int = 2048) -> SigningKey:
    """A new key pair; ``bits`` is the size of an RSA key."""
    if algorithm == "EdDSA":
        return SigningKey(kid, algorithm, ed25519.Ed25519PrivateKey.generate())
    if algorithm in _CURVES:
        return SigningKey(kid, algorithm, ec.generate_private_key(_CURVES[algorithm]()))
    return SigningKey(kid, algorithm, rsa.generate_private_key(65_537, bits))


@dataclass(slots=True)
class Answer:
    """What the issuer answers instead of the document at a path."""

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_for: threading.Event | None = None
    """Say nothing until then, or until the issuer closes."""


def b64(raw: bytes) -> str:
    """Base64url without padding, as in tokens."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def segment(part: Json | bytes) -> str:
    """One part of a token: JSON of an object, or bytes as they are."""
    return b64(part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode())


def signed(header: Json | bytes, claims: Json | bytes, key: SigningKey, algorithm: str | None = None) -> str:
    """A token of exactly this header and these claims, signed by ``key``."""
    message = f"{segment(header)}.{segment(claims)}"
    return f"{message}.{b64(key.sign(message.encode(), algorithm))}"


class SimulatedIssuer:
    """An issuer listening on a free port of 127.0.0.1 while the ``with`` block runs."""

    def __init__(self, clock: Clock, *keys: SigningKey) -> None:
        self.keys = list(keys) or [new_key("key-1")]
        """The last one signs."""
        self.published = [key.jwk() for key in self.keys]
        """What the JWK set holds."""
        self.headers: dict[str, str] = {"Cache-Control": "public, max-age=3600"}
        """Sent with the JWK set."""
        self.replies: dict[str, Answer] = {}
        """By path: answers instead of the documents."""
        self.fetched: Counter[str] = Counter()
        """Requests by path, whatever they were answered."""
        self.asked = threading.Event()
        """Set by each request as it comes in."""
        self._clock = clock
        self._counting = threading.Lock()
        self._closing = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def origin(self) -> str:
        """Its identifier, such as ``http://127.0.0.1:38017``."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def current(self) -> SigningKey:
        """The key that signs."""
        return self.keys[-1]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; after :meth:`stop` on the same port again."""
        self._closing.clear()
        self._server = _Server(("127.0.0.1", self._port), _handler(self))
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Refuse every connection from now on."""
        self._closing.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def rotate(self, algorithm: str = "ES256", *, keep: bool = True) -> SigningKey:
        """Sign with a new key from now on; without ``keep`` the JWK set holds no other."""
        key = new_key(f"key-{len(self.keys) + 1}", algorithm)
        self.keys.append(key)
        self.published = [*(self.published if keep else ()), key.jwk()]
        return key

    def claims(self, **changes: object) -> dict[str, Any]:
        """The claims of a good token; ``changes`` adds and replaces, and None takes one away."""
        now = int(self._clock.utc().timestamp())
        good = {"iss": self.origin, "aud": AUDIENCE, "sub": "user-1", "iat": now, "exp": now + LIFETIME_S}
        return {name: value for name, value in (good | changes).items() if value is not None}

    def header(self, **changes: object) -> dict[str, Any]:
        """The header of a good token; ``changes`` as for :meth:`claims`."""
        good = {"typ": "JWT", "alg": self.current.algorithm, "kid": self.current.kid}
        return {name: value for name, value in (good | changes).items() if value is not None}

    def token(self, **claims: object) -> str:
        """A token signed as a good one is; ``claims`` as for :meth:`claims`."""
        return signed(self.header(), self.claims(**claims), self.current)

    def asked_for(self, path: str) -> Answer:
        """Count a request for ``path``; what it gets."""
        with self._counting:
            self.fetched[path] += 1
        self.asked.set()
        if path in self.replies:
            return self.replies[path]
        if path == JWKS:
            return Answer(body=json.dumps({"keys": self.published}).encode(), headers=self.headers)
        if path == DISCOVERY:
            return Answer(body=json.dumps({"issuer": self.origin, "jwks_uri": self.origin + JWKS}).encode())
        return Answer(status=404)

    def wait(self, until: threading.Event) -> bool:
        """Wait for ``until``; False where the issuer closes first."""
        while not until.wait(0.01):
            if self._closing.is_set():
                return False
        return True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256


def _handler(issuer: SimulatedIssuer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = issuer.asked_for(self.path)
            if answer.wait_for is not None and not issuer.wait(answer.wait_for):
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for chunk in [answer.body] if isinstance(answer.body, bytes) else answer.body:
                    self.wfile.write(chunk)
            except ConnectionError:
                return

        def log_message(self, *_args: object) -> None:
            pass

    return Handler
