"""The way of one request, readable top to bottom.

decode -> identify the caller -> find the action's row and parse its params -> authorise (scope, link, vehicle) ->
the action -> encode -> one log event and the metrics, whatever happened.

Steps that answer from memory do not wait, so a cached read never leaves the server's thread (:mod:`common.loops`).
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from common.callers import Caller, Callers
from common.errors import (
    ApiError,
    EndpointNotFound,
    InsufficientScope,
    InternalError,
    MethodNotAllowed,
    ValidationFailed,
)
from common.trace import format_traceparent, request_id, trace_context
from functions import wire
from functions.actions import catalogue
from functions.actions.accounts import DEFAULT_PROVIDER, credentials
from functions.actions.spec import ActionSpec, Answer, Call, Kind, Services, Source, Target
from functions.contract import Envelope
from functions.links import Link
from functions.pages import Pages
from functions.telemetry import Telemetry, Trail
from functions.wire import RawRequest, Reply

_NO_SOURCE: dict[str, Any] = {
    "cached": False,
    "stale": False,
    "fetched_at": None,
    "measured_at": None,
    "age_s": None,
}


class Pipeline:
    """Serves requests. Holds no state of its own."""

    def __init__(
        self,
        *,
        services: Services,
        callers: Callers,
        pages: Pages,
        telemetry: Telemetry,
        environment: str,
        max_body_bytes: int,
        cors_origins: tuple[str, ...] = (),
    ) -> None:
        self._services = services
        self._clock = services.clock
        self._callers = callers
        self._pages = pages
        self._telemetry = telemetry
        self._environment = environment
        self._max_body_bytes = max_body_bytes
        self._cors_origins = frozenset(cors_origins)

    async def handle(self, request: RawRequest) -> Reply:
        """The reply to a request. Raises nothing."""
        started_s = self._clock.monotonic()
        headers = request.headers
        trace = trace_context(headers.get("traceparent"), headers.get("x-cloud-trace-context"))
        trail = Trail(request_id(headers.get("x-request-id")), trace)
        try:
            reply = await self._route(request, trail)
        except ApiError as error:
            trail.error = type(error).code
            if isinstance(error, InternalError):
                self._telemetry.defect(error)
            reply = wire.error_reply(error, trail.request_id, self._clock.utc())
        except Exception as defect:  # noqa: BLE001 - the last line: no traceback ever reaches a caller
            trail.error = InternalError.code
            self._telemetry.defect(defect)
            reply = wire.error_reply(InternalError(), trail.request_id, self._clock.utc())
        reply = self._with_common_headers(request, reply, trail)
        self._telemetry.request(request, reply, trail, self._clock.monotonic() - started_s)
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
        trail.caller = await self._callers.identify(request.headers)
        envelope = wire.decode(request, self._max_body_bytes)
        spec = catalogue.find(envelope.action)
        trail.action = spec.name
        call = await self._prepare(spec, envelope, _idempotency_key(request), trail.caller, trail)
        answer = await spec.handler(self._services, call)
        if answer.source is not None:
            trail.cached, trail.stale = answer.source.cached, answer.source.stale
        return self._encode(spec, call, answer, trail)

    async def _prepare(
        self, spec: ActionSpec, envelope: Envelope, key: str | None, caller: Caller, trail: Trail
    ) -> Call:
        """Everything that must hold before an action's function runs."""
        if spec.scope not in caller.scopes:
            raise InsufficientScope(details={"scope": spec.scope.value})
        try:
            params = spec.params.model_validate(envelope.params)
        except ValidationError as bad:
            raise ValidationFailed(details={"fields": wire.problems(bad, "params")}) from None
        if spec.target is Target.NOTHING:
            return Call(envelope, params, caller, key)
        trail.link = link = await self._find_link(envelope, caller)
        if spec.kind is Kind.COMMAND:
            # Another instance may have disconnected the account since this one looked.
            link = await self._services.accounts.by_id(caller.principal, link.account.id, max_age_s=0)
        if spec.target is Target.ACCOUNT:
            return Call(envelope, params, caller, key, link)
        vehicle = await self._services.vehicles.find(link, envelope.vin, cache_only=envelope.cache_only)
        trail.vin = vehicle.vin
        return Call(envelope, params, caller, key, link, vehicle)

    async def _find_link(self, envelope: Envelope, caller: Caller) -> Link:
        if envelope.account is not None:
            return await self._services.accounts.by_id(caller.principal, envelope.account)
        if envelope.email is None:
            problem = "Name the account: `account`, or `email` and `password`."
            raise ValidationFailed(details={"fields": [{"path": "account", "problem": problem}]})
        return await self._services.accounts.by_credentials(caller.principal, DEFAULT_PROVIDER, credentials(envelope))

    def _encode(self, spec: ActionSpec, call: Call, answer: Answer, trail: Trail) -> Reply:
        headers = _freshness_headers(spec, answer.source)
        if answer.png is not None:
            return Reply(200, answer.png, "image/png", headers)
        link, vehicle = call.link, call.vehicle
        payload = {
            "success": True,
            "action": spec.name,
            "brand": vehicle.brand if vehicle else None,
            "vehicle_name": vehicle.name if vehicle else None,
            "vin": vehicle.vin if vehicle else None,
            "result": answer.result,
            "timestamp": self._clock.utc(),
            "environment": self._environment,
            "meta": {
                "request_id": trail.request_id,
                "provider": link.account.provider if link else None,
                **(_shown(answer.source) if answer.source else _NO_SOURCE),
                "quota": None,
            },
        }
        return Reply(answer.status, wire.encode(payload), headers=headers)

    def _with_common_headers(self, request: RawRequest, reply: Reply, trail: Trail) -> Reply:
        headers = {
            **reply.headers,
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


_MAX_KEY_LENGTH = 255
_CORS_REQUEST_HEADERS = "Authorization, Content-Type, Idempotency-Key, X-API-Key, X-Request-ID, traceparent"
_CORS_REPLY_HEADERS = "Age, RateLimit, RateLimit-Policy, Retry-After, X-Request-ID, traceparent"


def _idempotency_key(request: RawRequest) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not (1 <= len(key) <= _MAX_KEY_LENGTH and key.isascii() and key.isprintable()):
        problem = f"1 to {_MAX_KEY_LENGTH} printable ASCII characters."
        raise ValidationFailed(details={"fields": [{"path": "Idempotency-Key", "problem": problem}]})
    return key


def _shown(source: Source) -> Mapping[str, Any]:
    return {
        "cached": source.cached,
        "stale": source.stale,
        "fetched_at": source.fetched_at,
        "measured_at": source.measured_at,
        "age_s": round(source.age_s, 3),
    }


def _freshness_headers(spec: ActionSpec, source: Source | None) -> dict[str, str]:
    # Private data behind one URL and a POST: no cache on the way may keep it, but Age still tells how old it is.
    headers = {"Cache-Control": "private, no-store"}
    if spec.kind is Kind.READ and source is not None:
        headers["Age"] = str(int(source.age_s))
    return headers
