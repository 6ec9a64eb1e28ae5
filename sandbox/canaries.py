"""Secrets to plant in everything that a service is told, and how to find them again wherever they come out.

Each is a text that occurs nowhere else. They hold characters that every encoding changes, where their place allows
it, so that a leak is found in each of its forms: as it is, in another case, percent-encoded, base64 at any alignment,
hexadecimal, and escaped for JSON, HTML or Python.
"""

import base64
import html
import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import quote, quote_plus

CANARIES: Final[Mapping[str, str]] = MappingProxyType({
    # what a caller proves itself with
    "api key": "draiv_CanaryKeyId00000000001_CanaryKeySecret0000000000000000000000000000009f3c1b7a",
    "bearer": "eyJhbGciOiJSUzI1NiJ9"
    ".eyJzdWIiOiJDYW5hcnktc3ViamVjdCJ9"
    ".Q2FuYXJ5LXNpZ25hdHVyZS0wMTIz",
    "basic": "Y2FuYXJ5LXVzZXI6Y2FuYXJ5LWJhc2ljLXBhc3N3b3Jk",
    "cookie": "canary_session=Kx7Qz2mW9pLrT4vB8nYd",
    # what the envelope holds
    "email": "canary.driver+7q@example.org",
    "password": 'Cänary/p4ss+word="7q"&x',
    "captcha": "P1_Canary-captcha-token-Zx81kQw0+/=mN5",
    "phone": "8613812345678",
    "vin": "WBACANARY7Q000001",
    "action": "explode Cänary/act10n+7q",
    "account": "acc_CanaryAccount000000007",
    "unknown field": "Cänary/f1eld+7q",
    "region": "Cänary/reg1on+7q",
    "place": "Cänary Stra\u00dfe 71/b + Hof",
    "latitude": "48.13712347",
    "longitude": "11.57541958",
    "command id": "cmd_CanaryAccount000000007_CanaryCommand000000007",
    "code": "CanaryConfirmation7777",
    # headers and the request line
    "idempotency key": "Canary/1dempotency+key=7q&x",
    "origin": "https://canary-or1gin.example.org",
    "user agent": "Canary/agent (7q; +x)",
    "method": "CANARYM3TH0D7Q",
    "path": "Canary-p4th-7q-Qz2mW9",
    "query": "Canary-qu3ry-7q-Qz2mW9",
    # what the maker says
    "upstream words": 'upstream says "Cänary/w0rds+7q"',
    "upstream data": "Cänary/d4ta+7q",
    "upstream header": "Canary/h3ader+7q=x",
    "access token": "Canary.access-T0ken_7qKx7Qz2mW9pLrT4vB8nYdCanaryAccess",
    "refresh token": "Canary.refresh-T0ken_7qKx7Qz2mW9pLrT4vB8nYdCanaryRefresh",
    "subject": "7ca9a1e0-ca9a-4e1e-8a7c-0ca9a1e0ca9a",
})  # fmt: skip
"""By what they are."""

_ASCII_ESCAPED, _PLAIN = json.JSONEncoder(ensure_ascii=True), json.JSONEncoder(ensure_ascii=False)


def forms(secret: str) -> frozenset[bytes]:
    """Every form in which ``secret`` may come out, in lower case. Search lower-case text for them."""
    raw = secret.encode()
    as_json, as_plain_json = _ASCII_ESCAPED.encode(secret)[1:-1], _PLAIN.encode(secret)[1:-1]
    texts = {
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        quote(quote(secret, safe=""), safe=""),
        "".join(f"%{byte:02x}" for byte in raw),
        as_json,
        as_plain_json,
        as_json.replace("/", "\\/"),
        _PLAIN.encode(as_plain_json)[1:-1],
        "".join(f"\\u{ord(char):04x}" for char in secret),
        html.escape(secret),
        repr(secret)[1:-1],
        repr(raw)[2:-1],
        raw.hex(),
        secret.encode("latin-1", "replace").hex(),
    }
    return frozenset(text.lower().encode() for text in texts) | _base64_forms(raw)


def _base64_forms(raw: bytes) -> frozenset[bytes]:
    """Base64 of ``raw`` wherever it begins in what is encoded: without the characters that its neighbours share."""
    found = set()
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw)
        whole = (before + len(raw)) * 8 // 6
        inner = encoded[(0, 2, 3)[before] : whole]
        found |= {inner.lower(), inner.translate(bytes.maketrans(b"+/", b"-_")).lower()}
    return frozenset(found)


class Search:
    """Looks for secrets; building it once is cheaper than for every text."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._forms = {name: forms(secret) for name, secret in secrets.items()}

    def found_in(self, haystack: bytes) -> list[str]:
        """The names of those that stand in ``haystack``, in whatever form."""
        lowered = haystack.lower()
        return [name for name, shapes in self._forms.items() if any(shape in lowered for shape in shapes)]


def only(names: Iterable[str]) -> dict[str, str]:
    """Some of the canaries."""
    return {name: CANARIES[name] for name in names}
