"""BMW as a provider. Importing this module imports bimmer-connected, so import it only where BMW is used."""

import functools

from bimmer_connected.api.utils import get_x_user_agent_buildstring

from common.clock import Clock
from common.loops import needs_loop
from functions.providers.mybmw.auth_manager import AuthManager
from functions.providers.mybmw.failures import BMWAPIError
from functions.providers.mybmw.remote_services import RemoteServiceManager
from functions.providers.mybmw.session import bind
from functions.providers.mybmw.transport import PooledTransport
from functions.providers.mybmw.vehicle_manager import IMAGE_VIEWS, VehicleManager
from functions.providers.pool import SILENT, Watch
from functions.providers.port import Provider
from functions.tokens import ANSWER_WITHIN_S, TokenKeeper

NAME = "mybmw"


def build(
    *,
    tokens: TokenKeeper,
    clock: Clock,
    origin: str | None = None,
    request_timeout_s: float = 10.0,
    max_connections: int = 100,
    session_ttl_s: float = 86_400.0,
    renewal_timeout_s: float = ANSWER_WITHIN_S,
    watch: Watch = SILENT,
) -> Provider:
    """BMW, with one pool of connections. Touches no network; use it on one loop, and ``close`` it there.

    ``origin`` (``http://127.0.0.1:8901``) stands in for all of BMW's servers; ``watch`` is told what goes out.
    ``renewal_timeout_s`` is for the answer that brings new tokens, ``request_timeout_s`` for all others.
    """
    bind()
    # The library computes this for every client; its first time looks for network cards, with a subprocess if need be.
    get_x_user_agent_buildstring()  # type: ignore[no-untyped-call]  # the library leaves it untyped
    transport = PooledTransport(
        clock=clock,
        origin=origin,
        timeout_s=request_timeout_s,
        max_connections=max_connections,
        watch=watch,
    )
    auth = AuthManager(transport, tokens, clock, session_ttl_s=session_ttl_s, renewal_timeout_s=renewal_timeout_s)
    vehicles = VehicleManager(auth, clock)
    return Provider(
        name=NAME,
        error=BMWAPIError,
        reads=vehicles,
        log_in=auth,
        images=vehicles,
        image_views=tuple(IMAGE_VIEWS),
        commands=RemoteServiceManager(auth),
        close=functools.partial(_close, transport),
    )


async def _close(transport: PooledTransport) -> None:
    await needs_loop()
    await transport.shutdown()
