"""What the stream worker can be set to, from the environment; the rest is :mod:`common.settings`."""

import math
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from common.settings import SettingsError

STREAM_URL: Final = "mqtts://customer.streaming-cardata.bmwgroup.com:9000"
LEASE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """Every setting of its own that the worker has."""

    broker_host: str
    broker_port: int
    ca_file: str | None = None
    """Whom to trust instead of the public authorities, a PEM file: for the sandbox."""
    auth_origin: str | None = None
    api_origin: str | None = None
    bind_host: str = "127.0.0.1"
    """Where ``/health`` and ``/metrics`` are served; a container needs ``0.0.0.0``."""
    bind_port: int = 8080
    lease_s: float = LEASE_S
    """After the death of a worker at the latest, another one has its customers."""
    store_every_s: float | None = None
    """At least this long between two writes of one account's signals to the document store."""

    def tls(self) -> ssl.SSLContext:
        """TLS 1.3 and nothing older. Raises OSError where there is no such CA file."""
        context = ssl.create_default_context(cafile=self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return context


def load_stream(environ: Mapping[str, str]) -> StreamSettings:
    """From ``CARDATA_*`` and ``PORT``; in staging ``STAGING_CARDATA_*`` comes first. Raises SettingsError."""
    prefixes = ("STAGING_", "") if environ.get("ENVIRONMENT") == "staging" else ("",)

    def find(name: str) -> str | None:
        return next((environ[prefix + name] for prefix in prefixes if environ.get(prefix + name)), None)

    def number(name: str, default: float | None) -> float | None:
        text = find(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            raise SettingsError(f"{name}: not a number") from None
        if not (math.isfinite(value) and value >= 0):
            raise SettingsError(f"{name}: not a number of seconds")
        return value

    host, port = _address(find("CARDATA_STREAM_URL") or STREAM_URL)
    lease_s = number("CARDATA_STREAM_LEASE_S", LEASE_S) or 0.0
    if lease_s < 1:
        raise SettingsError("CARDATA_STREAM_LEASE_S: at least 1 s")
    bind_port = find("PORT") or "8080"
    if not bind_port.isdecimal() or int(bind_port) > 65_535:
        raise SettingsError("PORT: not a port")
    return StreamSettings(
        broker_host=host,
        broker_port=port,
        ca_file=find("CARDATA_CA_FILE"),
        auth_origin=find("CARDATA_AUTH_ORIGIN"),
        api_origin=find("CARDATA_API_ORIGIN"),
        bind_host=find("CARDATA_STREAM_BIND") or "127.0.0.1",
        bind_port=int(bind_port),
        lease_s=lease_s,
        store_every_s=number("CARDATA_STREAM_STORE_EVERY_S", None),
    )


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "mqtts" or not parts.hostname or not port:
        raise SettingsError("CARDATA_STREAM_URL: not mqtts://host:port")
    return parts.hostname, port
