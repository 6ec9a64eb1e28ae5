"""Which providers there are: name -> factory, an explicit table. Each is built when it is first needed."""

import functools
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from common.clock import Clock
from common.errors import NotSupported
from common.metrics import Metrics
from common.settings import Settings
from common.stores.documents import Documents
from functions.providers.pool import Watch
from functions.providers.port import Provider
from functions.tokens import TokenKeeper


@dataclass(frozen=True, slots=True)
class Parts:
    """What a provider may be built from."""

    settings: Settings
    tokens: TokenKeeper
    documents: Documents
    clock: Clock
    metrics: Metrics


def _watch(metrics: Metrics, provider: str) -> Watch:
    return Watch(
        functools.partial(metrics.upstream, provider), functools.partial(metrics.upstream_connection, provider)
    )


Factory = Callable[[Parts], Provider]


def _mybmw(parts: Parts) -> Provider:
    # bimmer-connected costs 170 ms to import: only a process that serves MyBMW pays for it.
    from functions.providers.mybmw import provider  # noqa: PLC0415

    return provider.build(
        tokens=parts.tokens,
        clock=parts.clock,
        origin=parts.settings.mybmw_origin,
        request_timeout_s=parts.settings.upstream_timeout_s,
        session_ttl_s=parts.settings.session_ttl_s,
        watch=_watch(parts.metrics, "mybmw"),
    )


def _cardata(parts: Parts) -> Provider:
    # As above: what only one maker needs is imported where that maker is served.
    from functions.providers.cardata import provider  # noqa: PLC0415

    return provider.build(
        tokens=parts.tokens,
        documents=parts.documents,
        clock=parts.clock,
        auth_origin=parts.settings.cardata_auth_origin,
        api_origin=parts.settings.cardata_api_origin,
        request_timeout_s=parts.settings.upstream_timeout_s,
        watch=_watch(parts.metrics, "cardata"),
    )


FACTORIES: Mapping[str, Factory] = {"mybmw": _mybmw, "cardata": _cardata}


class Providers:
    """The providers that this deployment offers."""

    def __init__(self, names: Iterable[str], parts: Parts, factories: Mapping[str, Factory] = FACTORIES) -> None:
        """Raises ValueError for a name that has no factory."""
        self.names = tuple(names)
        unknown = sorted(set(self.names) - set(factories))
        if unknown:
            raise ValueError(f"PROVIDERS names unknown providers: {', '.join(unknown)}")
        self._parts = parts
        self._factories = factories
        self._built: dict[str, Provider] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Provider:
        """A provider, built at the first call; raises NotSupported where this deployment does not offer it."""
        provider = self._built.get(name)
        if provider is not None:
            return provider
        if name not in self.names:
            raise NotSupported(f"This deployment does not offer {name}.")
        with self._lock:
            if name not in self._built:
                self._built[name] = self._factories[name](self._parts)
            return self._built[name]

    async def close(self) -> None:
        """Release the connections of those that were built."""
        for provider in self._built.values():
            await provider.close()
