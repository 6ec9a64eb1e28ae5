"""CarData as a provider."""

import functools
from dataclasses import dataclass
from typing import Final

from common.clock import Clock
from common.loops import needs_loop
from common.stores.documents import Documents
from functions.providers.cardata.auth_manager import REFRESH_TOKEN_LIVES, AuthManager
from functions.providers.cardata.containers import ContainerBook
from functions.providers.cardata.failures import CarDataError
from functions.providers.cardata.garage_store import GarageBook
from functions.providers.cardata.planning import Planner
from functions.providers.cardata.quota import QuotaLedger
from functions.providers.cardata.rest import Rest
from functions.providers.cardata.signal_store import DocumentSignals, StreamWatch
from functions.providers.cardata.signals import SignalStore
from functions.providers.cardata.stream_index import StreamIndex
from functions.providers.cardata.transport import Transport
from functions.providers.cardata.vehicle_manager import IMAGE_VIEWS, VehicleManager
from functions.providers.pool import SILENT, Watch
from functions.providers.port import Provider
from functions.tokens import ANSWER_WITHIN_S, TokenKeeper, TokenSet

NAME: Final = "cardata"
COMMANDS_ADVICE: Final = (
    "BMW CarData is read-only: BMW lets no third party send commands to a car. "
    "Use the My BMW or MINI app, or the car's key, for this."
)


@dataclass(frozen=True, slots=True)
class CarData:
    """The provider and the managers behind it, for what the port does not speak of."""

    provider: Provider
    auth: AuthManager
    vehicles: VehicleManager
    planner: Planner
    signals: SignalStore
    streams: StreamWatch


@dataclass(frozen=True, slots=True)
class _Follows:
    """Implements :class:`functions.providers.port.FollowLinks`."""

    index: StreamIndex
    garages: GarageBook

    async def linked(self, account_id: str, tokens: TokenSet) -> None:
        await self.garages.outdate(account_id)
        await self.index.linked(account_id, tokens)

    async def unlinked(self, account_id: str) -> None:
        await self.index.unlinked(account_id)


def assemble(  # noqa: PLR0913 - collaborators and settings, each by its name
    *,
    tokens: TokenKeeper,
    documents: Documents,
    clock: Clock,
    signals: SignalStore | None = None,
    auth_origin: str | None = None,
    api_origin: str | None = None,
    request_timeout_s: float = 10.0,
    renewal_timeout_s: float = ANSWER_WITHIN_S,
    watch: Watch = SILENT,
) -> CarData:
    """All of it, with one pool of connections. Touches no network; use it on one loop, and close it there.

    ``auth_origin`` and ``api_origin`` (``http://127.0.0.1:8902``) stand in for BMW's servers; ``signals`` for the
    document store as the place of the latest signals; ``watch`` is told what goes out.
    """
    transport = Transport(clock=clock, timeout_s=request_timeout_s, watch=watch)
    auth = AuthManager(transport, tokens, clock, origin=auth_origin, renewal_timeout_s=renewal_timeout_s)
    ledger, garages = QuotaLedger(documents, clock), GarageBook(documents)
    rest = Rest(transport, auth, ledger, origin=api_origin)
    kept, streams = signals or DocumentSignals(documents), StreamWatch(documents)
    planner = Planner(auth, ledger, garages, kept, streams, clock)
    containers = ContainerBook(rest, documents, clock)
    vehicles = VehicleManager(rest, containers, garages, kept, clock, spent=planner.spent)
    provider = Provider(
        name=NAME,
        error=CarDataError,
        reads=vehicles,
        device=auth,
        planner=planner,
        follows=_Follows(StreamIndex(documents), garages),
        idle_life=REFRESH_TOKEN_LIVES,
        commands_advice=COMMANDS_ADVICE,
        images=vehicles,
        image_views=IMAGE_VIEWS,
        charges=vehicles,
        tyres=vehicles,
        charging_places=vehicles,
        close=functools.partial(_close, transport),
    )
    return CarData(provider, auth, vehicles, planner, kept, streams)


def build(
    *,
    tokens: TokenKeeper,
    documents: Documents,
    clock: Clock,
    auth_origin: str | None = None,
    api_origin: str | None = None,
    request_timeout_s: float = 10.0,
    watch: Watch = SILENT,
) -> Provider:
    """The provider alone; see :func:`assemble`."""
    return assemble(
        tokens=tokens,
        documents=documents,
        clock=clock,
        auth_origin=auth_origin,
        api_origin=api_origin,
        request_timeout_s=request_timeout_s,
        watch=watch,
    ).provider


async def _close(transport: Transport) -> None:
    await needs_loop()
    await transport.shutdown()
