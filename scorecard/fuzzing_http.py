"""Abuse of HTTP around a body that is fine: paths, methods, headers, lengths, chunks and bytes that are no HTTP."""

import random
from collections.abc import Callable, Iterator

from scorecard.fuzzing import Attempt, Target, mutate, request

_OK = b'{"action":"actions"}'
_PATHS: tuple[bytes, ...] = (
    b"//", b"/.", b"/..", b"/../../etc/passwd", b"/%2e%2e/%2e%2e/etc/passwd", b"/%00", b"/%ff%fe", b"/%", b"/%zz",
    b"/;a=b", b"/?a=b&a=c", b"/?" + b"a" * 6_000, b"/" + b"a" * 9_000, b"/" + b"a/" * 4_000, b"/" + b"a" * 70_000,
    b"*", b"localhost:80", b"http://localhost/", b"http://other.example.com/health", b"https://[::1]/", b"http://",
    b"/#fragment", b"/\\", b"/health", b"/health/", b"/health?x=%00", b"/metrics", b"/metrics/x", b"/openapi.json",
    b"/robots.txt", b"/favicon.ico", b"/\xc3\xa9", b"/a b", b"/\x00", b"/\t", b"/health%2f", b"/%68ealth", b"",
)  # fmt: skip
_METHODS: tuple[bytes, ...] = (
    b"GET", b"HEAD", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT", b"PROPFIND", b"post", b"P\xd6ST",
    b"POST\x00", b"", b"A" * 100, b"POST POST", b"PRI", b"GE\tT", b"$", b"-",
)  # fmt: skip
_VERSIONS: tuple[bytes, ...] = (
    b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9", b"HTTP/1", b"HTTP/1.10", b"http/1.1", b"HTTP/-1.1", b"",
    b"RTSP/1.0",
)  # fmt: skip
_VALUES: tuple[bytes, ...] = (
    b"", b" ", b"\x00", b"a\x00b", b"\x7f", b"\xff\xfe", b"\xc3\xa9", b"a\rb", b"a\nb", b"a\r\nX-Injected: 1",
    b"a\r\n folded", b"\t", b"a" * 8_000, b"a" * 9_000, b"%0d%0aX: 1", b"{}", b"'\"<script>", b"\xed\xa0\x80", b"..",
    b"${jndi:ldap://localhost}", b"() { :;}; echo", b"-1", b"1e400", b"NaN", b",", b"a,b,c", b"\\", b"%s%n",
)  # fmt: skip
_NAMES: tuple[bytes, ...] = (
    b"X-API-Key", b"Authorization", b"Idempotency-Key", b"X-Request-ID", b"traceparent", b"X-Cloud-Trace-Context",
    b"Origin", b"Accept", b"Content-Type", b"Host", b"Cookie", b"User-Agent", b"X-Forwarded-For", b"Forwarded",
    b"X-Forwarded-Proto", b"Content-Encoding", b"Function-Execution-Id", b"Range", b"If-None-Match", b"Via",
)  # fmt: skip
_BAD_NAMES: tuple[bytes, ...] = (
    b"", b" ", b"X Y", b"X\x00", b"X:Y", b"\xc3\xa9", b"X_API_Key", b"X-API-Key ", b" X-API-Key", b"(", b"a" * 9_000,
)  # fmt: skip
_LENGTHS: tuple[bytes, ...] = (
    b"", b"-1", b"+20", b"0x14", b"20, 20", b"20,21", b"1e1", b"99999999999999999999999", b"20.0", b" 20 ", b"\xb220",
    b"0", b"5", b"21", b"16385", b"16384", b"65537", b"020", b"2 0", b"nonsense",
)  # fmt: skip
_ENCODINGS: tuple[bytes, ...] = (
    b"chunked", b"Chunked", b"gzip", b"gzip, chunked", b"chunked, chunked", b"identity", b"", b"xchunked",
    b"chunked\x0b",
    b" chunked", b"chunked;a=b", b"\xffchunked",
)  # fmt: skip
_CHUNKS: tuple[bytes, ...] = (
    b"14\r\n" + _OK + b"\r\n0\r\n\r\n", b"14\r\n" + _OK + b"\r\n0\r\n", b"14\r\n" + _OK + b"XX0\r\n\r\n", b"0\r\n\r\n",
    b"14;" + b"a" * 5_000 + b"\r\n" + _OK + b"\r\n0\r\n\r\n", b"14;a\rb\r\n" + _OK + b"\r\n0\r\n\r\n", b"-1\r\n\r\n",
    b"FFFFFFFFFFFFFFFF\r\n" + _OK, b"ffffffff\r\n" + _OK, b"0x14\r\n" + _OK, b"14\n" + _OK + b"\n0\n\n", b"\r\n" * 50,
    b"1\r\n{\r\n" * 9_000 + b"0\r\n\r\n", b"14\r\n" + _OK + b"\r\n0\r\nContent-Length: 5\r\n\r\n", b"nonsense",
    b"14\r\n" + _OK + b"\r\n0\r\nX: " + b"a" * 9_000 + b"\r\n\r\n",
    b"14\r\n" + _OK + b"\r\n0\r\n\r\nGET /health HTTP/1.1",
)  # fmt: skip
_CONTENT_TYPES: tuple[bytes, ...] = (
    b"text/plain", b"application/json; charset=utf-16", b"application/json;;;", b"APPLICATION/JSON",
    b"application/json, text/html",
    b"application/jsonp", b"multipart/form-data", b"multipart/form-data; boundary=x",
    b"application/x-www-form-urlencoded",
    b"application/cloudevents+json", b"application/xml", b"a/b/c", b"/", b"json", b"application/json\x00", b"\xff", b"",
)  # fmt: skip
_GARBAGE: tuple[bytes, ...] = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\n\r\n", b"\r\n\r\n", b"\r\n" * 1_000, b"\n\n",
    b"\x00" * 100,
    b"GET", b"GET /", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\n\n", b":\r\n\r\n", b"SSH-2.0-x\r\n",
)  # fmt: skip


def _path(target: Target, rng: random.Random) -> bytes:
    return request(target, _OK, path=rng.choice(_PATHS), method=rng.choice((b"POST", b"GET", b"HEAD", b"OPTIONS")))


def _method(target: Target, rng: random.Random) -> bytes:
    return request(target, rng.choice((b"", _OK)), method=rng.choice(_METHODS), path=rng.choice((b"/", b"/health")))


def _version(target: Target, rng: random.Random) -> bytes:
    return request(target, _OK, version=rng.choice(_VERSIONS))


def _value(target: Target, rng: random.Random) -> bytes:
    pairs = [(rng.choice(_NAMES), rng.choice(_VALUES)) for _ in range(rng.choice((1, 1, 2, 3)))]
    return request(target, _OK, headers=pairs, path=rng.choice((b"/", b"/", b"/metrics", b"/health")))


def _random_value(target: Target, rng: random.Random) -> bytes:
    return request(target, _OK, headers=[(rng.choice(_NAMES), rng.randbytes(rng.randrange(1, 60)))])


def _name(target: Target, rng: random.Random) -> bytes:
    return request(target, _OK, headers=[(rng.choice(_BAD_NAMES), rng.choice((b"1", *_VALUES)))])


def _repeated(target: Target, rng: random.Random) -> bytes:
    name = rng.choice((*_NAMES, b"Content-Length", b"Transfer-Encoding", b"Expect", b"Connection"))
    return request(target, _OK, headers=[(name, rng.choice((b"1", b"20", b"chunked"))) for _ in range(2)])


def _many(target: Target, rng: random.Random) -> bytes:
    count = rng.choice((90, 101, 1_000, 5_000))
    return request(target, _OK, headers=[(b"X-%d" % number, b"1") for number in range(count)])


def _length(target: Target, rng: random.Random) -> bytes:
    pairs = [(b"Content-Length", rng.choice(_LENGTHS)) for _ in range(rng.choice((1, 1, 2)))]
    return request(target, _OK, headers=pairs)


def _encoding(target: Target, rng: random.Random) -> bytes:
    pairs: list[tuple[bytes, bytes]] = [(b"Transfer-Encoding", rng.choice(_ENCODINGS))]
    if rng.random() < 0.3:
        pairs.append((b"Content-Length", rng.choice(_LENGTHS)))
    proper = request(target, b"", headers=pairs)
    return proper.replace(b"Content-Length: 0\r\n", b"") + rng.choice(_CHUNKS)


def _content_type(target: Target, rng: random.Random) -> bytes:
    return request(target, rng.choice((_OK, b"a=b", b"")), headers=[(b"Content-Type", rng.choice(_CONTENT_TYPES))])


def _expect(target: Target, rng: random.Random) -> bytes:
    value = rng.choice((b"100-continue", b"100-Continue", b"200-ok", b"", b"100-continue, x"))
    version = rng.choice((b"HTTP/1.1", b"HTTP/1.0"))
    return request(target, rng.choice((_OK, b"")), headers=[(b"Expect", value)], version=version)


def _connection(target: Target, rng: random.Random) -> bytes:
    value = rng.choice((b"close", b"keep-alive", b"Upgrade", b"upgrade, HTTP2-Settings", b"\x00", b"close, close"))
    pairs = [(b"Connection", value), (b"Upgrade", rng.choice((b"h2c", b"websocket", b"TLS/1.0")))]
    return request(target, _OK, headers=[*pairs, (b"HTTP2-Settings", b"AAMAAABkAARAAAAAAAIAAAAA")])


def _pipelined(target: Target, rng: random.Random) -> bytes:
    behind = rng.choice(
        (request(target, _OK), b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"garbage", b"\r\n", b"\x00")
    )
    return request(target, rng.choice((_OK, b"{"))) + behind * rng.choice((1, 2, 5))


def _cut(target: Target, rng: random.Random) -> bytes:
    whole = request(target, _OK)
    return whole[: rng.randrange(1, len(whole))]


def _flipped(target: Target, rng: random.Random) -> bytes:
    whole = bytearray(request(target, _OK))
    for _ in range(rng.choice((1, 1, 2, 4))):
        mutate(whole, rng)
    return bytes(whole)


def _garbage(_target: Target, rng: random.Random) -> bytes:
    return rng.choice((*_GARBAGE, rng.randbytes(rng.randrange(1, 400))))


def _line_ends(target: Target, rng: random.Random) -> bytes:
    return request(target, _OK).replace(b"\r\n", rng.choice((b"\n", b"\r", b"\r\n\r\n", b"\n\r", b"\r\r\n")))


_ABUSES: tuple[tuple[str, Callable[[Target, random.Random], bytes]], ...] = (
    ("path", _path),
    ("method", _method),
    ("version", _version),
    ("header value", _value),
    ("random header value", _random_value),
    ("header name", _name),
    ("repeated header", _repeated),
    ("many headers", _many),
    ("length", _length),
    ("transfer encoding", _encoding),
    ("content type", _content_type),
    ("expectation", _expect),
    ("connection", _connection),
    ("pipelined", _pipelined),
    ("cut short", _cut),
    ("flipped bytes", _flipped),
    ("garbage", _garbage),
    ("line ends", _line_ends),
)


def abused(target: Target, rng: random.Random, count: int) -> Iterator[Attempt]:
    """Bytes around a body that is fine, or that ought to be."""
    for _ in range(count):
        name, abuse = rng.choice(_ABUSES)
        yield Attempt(name, abuse(target, rng))
