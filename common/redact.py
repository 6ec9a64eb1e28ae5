"""The last line of defence of the logs: masks what must not leave, in text that is already formatted.

Our own events hold nothing secret to begin with; this is for what slips through, mostly the words of libraries.
What is masked, wherever it stands:

- the value of a secret-like key (password, token, captcha, cookie, authorization, e-mail, position ...) in JSON, in
  JSON inside a string, in a query or form, in a header, in Python's ``repr``;
- VINs in either case, e-mail addresses, Bearer and Basic credentials, JWTs, UUIDs (a ``gcid`` is one), Chinese phone
  numbers, pairs of coordinates;
- long runs of [A-Za-z0-9+/=_-] that look random: 32 or more characters, or 20 between two separators; and base64 of
  any length from 17 that decodes to something readable, whatever that is;
- percent-encoded and backslash-escaped text which holds any of the above once decoded.

What is kept, by its exact shape: our ids ``req_`` + 26, ``acc_`` + 22, ``cmd_`` + 22 + ``_`` + 22 characters, a trace
id behind ``traces/``, and as value of ``request_id`` what callers commonly send (UUID, ULID, 32 or 16 hex). Hashes made
by :func:`fingerprint` are 12 characters, too short for any rule. Runs made of words, like ``RATE_LIMIT_EXCEEDED`` or
``/vehicle-data/profile``, are kept too. Where in doubt it masks too much. It cannot know a password that stands alone.

A line that is JSON is parsed, cleaned and written again, so it stays valid JSON; a clean line comes back unchanged.
Most lines are clean: two linear-time scans of Rust's regex engine, which pydantic brings, tell so in 1 to 4 us, where
Python's ``re`` needs 30 and more.
"""

import base64
import hashlib
import hmac
import operator
import os
import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, unquote_plus

import orjson
from pydantic_core import SchemaValidator, core_schema

SECRET, TOKEN, EMAIL, PHONE, VIN = "<masked>", "<opaque>", "<address>", "<number>", "<vin>"
POSITION, ID, ENCODED, DEEP = "<position>", "<id>", "<encoded>", "<deep>"
"""What stands in place of what was masked. No rule matches these again, so redacting twice changes nothing."""

_MAX_DEPTH = 32
_TOKEN_LENGTH = 20
"""Letters and digits without a separator that are not a word are a token from this length on."""
_MAX_PEELS = 3
"""Layers of percent-encoding and escapes that are looked through."""

# --- shapes shared by the fast and the thorough way -----------------------------------------------------------------
_OWN_ID = r"req_[0-9a-f]{26}|cmd_[0-9A-Za-z]{22}_[0-9A-Za-z]{22}|acc_[0-9A-Za-z]{22}"
_ID_VALUE = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}|[0-9a-f]{32}|[0-9a-f]{16}|[0-9A-HJKMNP-TV-Z]{26}"
_ID_KEYS = r"request_id|logging\.googleapis\.com/(?:trace|spanId)"
_WORD = r"(?:[A-Z]{1,24}|(?:MyBMW)?[a-z]{0,24}(?:[A-Z]{1,4}[a-z]{2,20}){0,6}(?:Id)?|[0-9]{1,6}|[A-Za-z0-9]{1,4})"
_WORDS = rf"{_WORD}(?:[-_/.]{_WORD})*"
_KEY_STEMS = (
    r"passw|pwd|captcha|token|secret|authori[sz]ation|cookie|credential|api[_-]?key|private[_-]?key|user[_-]?name"
    r"|mail|mobile|phone|gcid|verifier|latitude|longitude|heading"
)
_KEY_NAMES = r"code|lat|lng|lon|auth|nonce|coordinates"


def _rust(pattern: str) -> SchemaValidator:
    return SchemaValidator(core_schema.str_schema(pattern=pattern, strict=True))


_PLAIN_TEXT = rf"/?(?:{_WORDS})?/?|{_OWN_ID}|projects/[a-z][a-z0-9-]{{5,29}}/traces/[0-9a-f]{{32}}|[0-9a-f]{{12}}"
_PLAIN_STRING = (
    rf'"(?:{_PLAIN_TEXT}|[0-9]{{1,5}}\.[0-9]{{1,6}}s'
    r'|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z)"'
)
_PLAIN_NUMBER = r"-?[0-9]{1,10}(?:\.[0-9]{1,17})?(?:e-?[0-9]{1,3})?"
_PLAIN_MEMBER = (
    rf'"(?:{_ID_KEYS})":"(?:{_ID_VALUE})"'
    rf'|"(?:{_WORDS})":(?:{_PLAIN_STRING}|{_PLAIN_NUMBER}|true|false|null|\{{\}}|\{{)'
)
_PLAIN_LINE = _rust(rf"^\{{(?:(?:{_PLAIN_MEMBER})\}}*,?)*$")
"""A line of short words, numbers and our own ids, every string of which the thorough way would keep."""
_SUSPICIOUS = _rust(
    rf'(?i:{_KEY_STEMS}|bearer|basic|dpop|"(?:lat|lng|lon|auth|nonce|coordinates)"|[a-f]{{8}}-[0-9a-f]{{4}}-)'
    r'|eyJ[A-Za-z0-9_-]*\.|"(?i:code)":(?:[^"]|"[A-Z_]*[^A-Z_"]|"[A-Z_]{41})'
)

_PLAIN_VALUE = _rust(rf"^(?:{_PLAIN_TEXT})$")
_NAMES_SECRET = _rust(rf"(?i:{_KEY_STEMS}|{_KEY_NAMES}|bearer|basic|dpop)")
"""Whether the expensive rules for keys and credentials can match at all."""

# --- the thorough way -----------------------------------------------------------------------------------------------
_SECRET_KEY = re.compile(rf"{_KEY_STEMS}|\A(?:{_KEY_NAMES})\Z", re.IGNORECASE)
_CODE_VALUE = re.compile(r"[A-Z_]{0,40}|[0-9]{3}")
"""``code`` is our own error code, or HTTP's, as well as OAuth's; only the last is a secret, and looks different."""
_KEY_AND_VALUE = re.compile(
    rf"""
    (?P<lead>
        (?P<key> (?:{_KEY_STEMS})[\w.-]{{0,64}}+ | (?<![\w.-])(?:{_KEY_NAMES})(?![\w-]) )
        (?P<closed> \\*["'])? \s*(?(closed)(?:[:=]>?|,)|[:=]>?)\s*
    )
    (?:
        [bru]{{0,2}}(?P<quote> \\*["'])(?P<text> .*?)(?P<end> (?<!\\)(?P=quote) | \Z )
      | [\[({{].*
      | (?P<bare> (?(closed)[^\s,}}\])]+|[^\s&]+) )
    )
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_HEADER = re.compile(rf"((?:authori[sz]ation|cookie)\s*[:=]\s*)(?!{SECRET})[^\s\"'][^\r\n\"']*", re.IGNORECASE)
_EMAIL_PART = r"""[^\s"'<>()\[\]{},;:@\\/&=?]"""
_EMAIL = re.compile(rf"""(?<!{_EMAIL_PART}){_EMAIL_PART}+?(?:@|%40|%2540)[^\s"'<>()\[\]{{}},;\\/&]+""")
_CREDENTIALS = re.compile(r"\b(bearer|basic|dpop)(?:[\s:+]|%20)+[A-Za-z0-9._~+/=%-]{6,}", re.IGNORECASE)
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{0,512}+(?:\.[A-Za-z0-9_-]*)+")
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_PHONE = re.compile(r"(?P<kept>traces/[0-9a-f]{32})|(?:(?<![0-9])|(?<=%[0-9A-Fa-f]{2}))(?:00)?86[0-9]{11}(?![0-9])")
_PAIR = re.compile(
    r"""[\[(]\s{0,4}["']?-?[0-9]{1,3}\.[0-9]+["']?\s{0,4},\s{0,4}["']?-?[0-9]{1,3}(?:\.[0-9]+)?["']?"""
    r"""|[\[(]\s{0,4}-?[0-9]{1,3}\s{0,4},\s{0,4}-?[0-9]{1,3}\.[0-9]+"""
    r"""|(?<![0-9.])-?[0-9]{1,3}\.[0-9]{2,}\s{0,4}[,;\ ]\s{0,4}-?[0-9]{1,3}\.[0-9]{2,}"""
)
_NUMBER = re.compile(r"-?[0-9]{1,4}(?:\.[0-9]+)?")
_RUN = re.compile(r"[A-Za-z0-9+/=_-]{17,}")
_OWN = re.compile(rf"((?<![A-Za-z0-9])(?:{_OWN_ID}|traces/[0-9a-f]{{32}})(?![A-Za-z0-9]))")
_SEPARATORS = re.compile(r"([-_/+=]+)")
_IS_WORD = re.compile(_WORD)
_READABLE = re.compile(rb"[\t\r\n\x20-\x7e]{12}")
_TO_STANDARD_BASE64 = str.maketrans("-_", "+/", "=")
_ENCODED = re.compile(
    r"""(?<![^\s"<>])[^\s"<>]*?(?:%[0-9A-Fa-f]{2}|\\(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[nrt/]))[^\s"<>]*"""
)
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|([nrt/]))")
_IS_ID_KEY, _IS_ID_VALUE = re.compile(_ID_KEYS), re.compile(_ID_VALUE)

_PROCESS_KEY = os.urandom(32)


@lru_cache(maxsize=4096)
def fingerprint(value: str, key: bytes | None = None) -> str:
    """12 hex digits that stand for ``value`` (a VIN, a caller) in logs.

    Keyed (HMAC-SHA256), because the VINs that exist can be tried one by one. Without ``key`` the process makes its
    own, and the same value looks different after a restart.
    """
    return hmac.new(key or _PROCESS_KEY, value.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:12]


def redact(text: str) -> str:
    """``text`` with everything masked that the module's docstring lists; valid JSON stays valid JSON."""
    if _PLAIN_LINE.isinstance_python(text) and not _SUSPICIOUS.isinstance_python(text):
        return text
    return scrub(text)


def scrub(text: str) -> str:
    """What :func:`redact` does, without looking first whether the line is plainly clean."""
    text = text.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair is no text to Rust or to stdout
    if text[:1] in {"{", "["}:
        try:
            document = orjson.loads(text)
        except orjson.JSONDecodeError:
            return _clean_text(text)
        cleaned = _clean(document, 0)
        # ``is``: _clean gives back the very object that it got where nothing in it had to change.
        return text if cleaned is document else orjson.dumps(cleaned).decode()
    return _clean_text(text)


def _clean(value: Any, depth: int) -> Any:  # noqa: ANN401 - a JSON value
    if isinstance(value, str):
        return _clean_text(value)
    if isinstance(value, dict | list):
        return _clean_container(value, depth) if depth < _MAX_DEPTH else DEEP
    if isinstance(value, int) and _PHONE.fullmatch(str(value)):
        return PHONE
    return value


def _clean_container(value: dict[str, Any] | list[Any], depth: int) -> Any:  # noqa: ANN401 - a JSON value
    if isinstance(value, dict):
        members = {_clean_text(key): _clean_member(key, item, depth) for key, item in value.items()}
        return value if _same(members, value) and _same(members.values(), value.values()) else members
    if _is_position(value):
        return POSITION
    items = [_clean(item, depth + 1) for item in value]
    return value if _same(items, value) else items


def _same(cleaned: Collection[Any], given: Collection[Any]) -> bool:
    return len(cleaned) == len(given) and all(map(operator.is_, cleaned, given))


def _clean_member(key: str, value: Any, depth: int) -> Any:  # noqa: ANN401 - a JSON value
    if isinstance(value, str) and _IS_ID_KEY.fullmatch(key) and _IS_ID_VALUE.fullmatch(value):
        return value
    if key.lower() == "code" and _CODE_VALUE.fullmatch(str(value)):
        return value
    if _SECRET_KEY.search(key):
        return value if value is None or isinstance(value, bool) or value == SECRET else SECRET
    return _clean(value, depth + 1)


def _is_position(items: list[Any]) -> bool:
    """Two or three numbers, at least one of them with decimals: [48.1, 11.5]."""
    if len(items) not in {2, 3}:
        return False
    numbers = [str(item) for item in items]
    return all(map(_NUMBER.fullmatch, numbers)) and any("." in number for number in numbers)


def _clean_text(text: str, peels: int = _MAX_PEELS) -> str:
    if _PLAIN_VALUE.isinstance_python(text) and not _SUSPICIOUS.isinstance_python(text):
        return text
    cleaned = text
    if _NAMES_SECRET.isinstance_python(text):
        cleaned = _HEADER.sub(rf"\g<1>{SECRET}", cleaned)
        cleaned = _KEY_AND_VALUE.sub(_mask_value, cleaned)
        cleaned = _CREDENTIALS.sub(rf"\1 {TOKEN}", cleaned)
    if "@" in cleaned or "%40" in cleaned or "%2540" in cleaned:
        cleaned = _EMAIL.sub(EMAIL, cleaned)
    cleaned = _JWT.sub(TOKEN, cleaned)
    cleaned = _PAIR.sub(POSITION, cleaned)
    cleaned = _PHONE.sub(lambda found: found["kept"] or PHONE, cleaned)
    cleaned = _UUID.sub(ID, cleaned)
    cleaned = _RUN.sub(_mask_run, cleaned)
    if peels and ("%" in cleaned or "\\" in cleaned):
        cleaned = _ENCODED.sub(lambda found: _mask_encoded(found[0], peels), cleaned)
    return text if cleaned == text else cleaned


def _mask_value(found: re.Match[str]) -> str:
    value = found["bare"] if found["text"] is None else found["text"]
    if found["key"].lower() == "code" and value is not None and _CODE_VALUE.fullmatch(value.rstrip(".,;)")):
        return found[0]
    return f"{found['lead']}{found['quote'] or ''}{SECRET}{found['end'] or ''}"


def _mask_run(found: re.Match[str]) -> str:
    pieces = _OWN.split(found[0])
    return "".join(piece if index % 2 else _mask_piece(piece) for index, piece in enumerate(pieces))


def _mask_piece(piece: str) -> str:
    """A run of [A-Za-z0-9+/=_-] without our own ids, masked as a whole or only where a VIN stands in it."""
    parts = _SEPARATORS.split(piece)
    opaque = [part for part in parts[::2] if not _IS_WORD.fullmatch(part)]
    if len(piece) < 17 or not opaque:
        return piece
    random_looking = sum(len(part) for part in opaque if not _is_vin(part))
    if max(map(len, opaque)) >= _TOKEN_LENGTH or (len(piece) >= 32 and random_looking >= 12) or _hides_text(piece):
        return TOKEN
    return "".join(VIN if _is_vin(part) else part for part in parts)


def _is_vin(part: str) -> bool:
    """17 letters and digits, I, O and Q too, as in test VINs, and up to two more from an escape before it (``%22``)."""
    return 17 <= len(part) < _TOKEN_LENGTH and not part.isdigit() and not part.isalpha()


def _hides_text(piece: str) -> bool:
    """Whether base64, begun at any of four offsets, decodes to 12 readable characters in a row."""
    standard = piece.translate(_TO_STANDARD_BASE64)
    for offset in range(4):
        body = standard[offset:]
        if _READABLE.search(base64.b64decode(body[: len(body) // 4 * 4])):
            return True
    return False


def _mask_encoded(run: str, peels: int) -> str:
    text = _ESCAPE.sub(_unescape, run).encode("utf-8", "replace").decode()
    # A plus is a space in a form and itself in base64; nothing tells which this is.
    hides = any(_clean_text(decoded, peels - 1) != decoded for decoded in {unquote(text), unquote_plus(text)})
    return ENCODED if hides else run


def _unescape(found: re.Match[str]) -> str:
    digits = found[1] or found[2]
    return chr(int(digits, 16)) if digits else {"n": "\n", "r": "\r", "t": "\t", "/": "/"}[found[3]]
