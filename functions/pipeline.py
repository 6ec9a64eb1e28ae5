"""The way of one request, readable top to bottom.

decode -> identify the caller -> find the action's row and parse its params -> authorise (scope, link, vehicle) ->
the action -> encode -> one log event and the metrics, whatever happened.

Steps that answer from memory do not wait, so a cached read never leaves the server's thread (:mod:`common.loops`).
"""

from collections.abc import Awaitable, Callable

from common.callers import Callers
from common.clock import Clock
from common.errors import ApiError, EndpointNotFound, InternalError, MethodNotAllowed, RequestError, ValidationFailed
from common.trace import format_traceparent, request_id
from common.tracing import NO_TRACING, Tracing
from functions import wire
from functions.actions.spec import ActionSpec, Kind, Source
from functions.contract import MAX_KEY_LENGTH
from functions.decoder import Decoder
from functions.dispatch import Dispatcher, Served
from functions.pages import Pages
from functions.telemetry import Telemetry, Trail
from functions.wire import RawRequest, Reply


class Pipeline:
    """Serves requests. Holds no state of its own."""

    def __init__(  # noqa: PLR0913 - collaborators, each by its name
        self,
        *,
        dispatcher: Dispatcher,
        clock: Clock,
        callers: Callers,
        pages: Pages,
        fence: Callable[[], Awaitable[None]],
        save_tokens: Callable[[], Awaitable[None]],
        telemetry: Telemetry,
        max_body_bytes: int,
        cors_origins: tuple[str, ...] = (),
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._identify = tracing.wrap("identify", callers.identify)
        self._pages = pages
        self._fence = tracing.wrap("fence", fence)
        self._save_tokens = save_tokens
        self._telemetry = telemetry
        self._decode = tracing.wrap_sync("decode", Decoder(max_body_bytes).decode)
        self._encode = tracing.wrap_sync("encode", self._encoded)
        self._tracing = tracing
        self._cors_origins = frozenset(cors_origins)

    async def handle(self, request: RawRequest) -> Reply:
        """The reply to a request. Raises nothing."""
        started_s = self._clock.monotonic()
        headers = request.headers
        trail = Trail(request_id(headers.get("x-request-id")), self._tracing.begin(headers), started_s)
        try:
            reply = await self._route(request, trail)
        except ApiError as error:
            self._telemetry.refusal(error, trail)
            reply = wire.error_reply(error, trail.request_id, self._clock.utc())
        except Exception as defect:  # noqa: BLE001 - the last line: no traceback ever reaches a caller
            trail.error = InternalError.code
            self._telemetry.defect(defect)
            reply = wire.error_reply(InternalError(), trail.request_id, self._clock.utc())
        reply = self._with_common_headers(request, reply, trail)
        self._telemetry.request(request, reply, trail, self._clock.monotonic() - started_s)
        self._tracing.end(trail.action, reply.status, trail.error)
        return reply

    async def _route(self, request: RawRequest, trail: Trail) -> Reply:
        if request.method == "OPTIONS":
            trail.action = "options"
            return Reply(204, b"")
        if request.method in ("GET", "HEAD") and request.path in self._pages.paths:
            trail.action = request.path.strip("/") or "health"
            return await self._pages.get(request)
        if request.path != "/":
            if request.path in self._pages.paths:
                raise MethodNotAllowed("This path answers GET.", details={"allowed": ["GET", "HEAD", "OPTIONS"]})
            raise EndpointNotFound
        if request.method != "POST" or "/" in self._pages.paths:
            allowed = ["GET", "HEAD", "OPTIONS"] if "/" in self._pages.paths else ["POST", "OPTIONS"]
            raise MethodNotAllowed(details={"allowed": allowed})
        return await self._post(request, trail)

    async def _post(self, request: RawRequest, trail: Trail) -> Reply:
        # The caller first: strangers learn nothing, not even whether their JSON was valid.
        trail.caller = await self._identify(request.headers)
        try:
            envelope = self._decode(request)
        except RequestError:
            await self._dispatcher.count_unreadable(trail.caller, trail)
            raise
        # What the store did not take, of whichever account: this may be all the time that the process gets.
        await self._save_tokens()
        # Before anything that is held is believed: another instance may have voided it.
        await self._fence()
        served = await self._dispatcher.serve(envelope, trail.caller, _idempotency_key(request), trail)
        return self._encode(served, trail)

    def _encoded(self, served: Served, trail: Trail) -> Reply:
        headers = _freshness_headers(served.spec, served.answer.source)
        if served.answer.png is not None:
            return Reply(200, served.answer.png, "image/png", headers)
        return Reply(
            served.answer.status, wire.encode(self._dispatcher.payload(served, trail.request_id)), headers=headers
        )

    def _with_common_headers(self, request: RawRequest, reply: Reply, trail: Trail) -> Reply:
        headers = {
            **reply.headers,
            **trail.tally.headers(),
            "X-Request-ID": trail.request_id,
            "traceparent": format_traceparent(trail.trace),
            "X-Content-Type-Options": "nosniff",
        }
        origin = request.headers.get("origin")
        if origin is not None and origin in self._cors_origins:
            headers |= {
                "Access-Control-Allow-Origin": origin,
                "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
                "Access-Control-Allow-Headers": _CORS_REQUEST_HEADERS,
                "Access-Control-Expose-Headers": _CORS_REPLY_HEADERS,
                "Access-Control-Max-Age": "3600",
            }
        if self._cors_origins:
            headers["Vary"] = "Origin"
        return Reply(reply.status, reply.body, reply.content_type, headers)


_CORS_REQUEST_HEADERS = "Authorization, Content-Type, Idempotency-Key, X-API-Key, X-Request-ID, traceparent"
_CORS_REPLY_HEADERS = "Age, RateLimit, RateLimit-Policy, Retry-After, X-Request-ID, traceparent"


def _idempotency_key(request: RawRequest) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not (1 <= len(key) <= MAX_KEY_LENGTH and key.isascii() and key.isprintable()):
        problem = f"1 to {MAX_KEY_LENGTH} printable ASCII characters."
        raise ValidationFailed(details={"fields": [{"path": "Idempotency-Key", "problem": problem}]})
    return key


def _freshness_headers(spec: ActionSpec, source: Source | None) -> dict[str, str]:
    # Private data behind one URL and a POST: no cache on the way may keep it, but Age still tells how old it is.
    headers = {"Cache-Control": "private, no-store"}
    if spec.kind is Kind.READ and source is not None:
        headers["Age"] = str(int(source.age_s))
    return headers
