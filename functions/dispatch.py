"""One action, from its envelope to its answer: row, scope, parameters, account, vehicle, then the action's function.

A request is one action; a batch is up to twenty, each of which passes here by itself, with the same checks.
"""

import functools
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from common.callers import Caller
from common.errors import ApiError, InsufficientScope, InternalError, UnknownAction, ValidationFailed
from common.tracing import NO_TRACING, Tracing
from functions import wire
from functions.actions import catalogue
from functions.actions.accounts import DEFAULT_PROVIDER, credentials
from functions.actions.spec import ActionSpec, Answer, Call, Kind, Part, Services, Source, Target
from functions.contract import Envelope, NoParams, ReadParams
from functions.limits import RequestLimits
from functions.links import Link
from functions.telemetry import Telemetry, Trail

_NO_SOURCE: dict[str, Any] = {
    "cached": False,
    "stale": False,
    "fetched_at": None,
    "measured_at": None,
    "age_s": None,
}

_ALL_DEFAULTS: Mapping[type[BaseModel], BaseModel] = {NoParams: NoParams(), ReadParams: ReadParams()}
"""Most requests have no parameters; these need not be made anew for each."""


class Served(NamedTuple):
    """An action that was performed."""

    spec: ActionSpec
    call: Call
    answer: Answer


class Dispatcher:
    """Performs actions. Holds no state of its own."""

    def __init__(
        self,
        services: Services,
        limits: RequestLimits,
        telemetry: Telemetry,
        environment: str,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._services = services
        self._limits = limits
        self._telemetry = telemetry
        self._environment = environment
        self._tracing = tracing
        self._admit_caller = tracing.wrap("limits", limits.admit_caller)
        self._link = tracing.wrap("link", self._find_link)
        self._vehicle = tracing.wrap("vehicle", services.vehicles.find)
        self._serve_part = tracing.wrap("part", self._part)

    async def serve(self, envelope: Envelope, caller: Caller, key: str | None, trail: Trail) -> Served:
        """Perform one action; raises whatever ApiError stops it."""
        try:
            spec = catalogue.find(envelope.action)
        except UnknownAction:
            await self.count_unreadable(caller, trail)
            raise
        trail.action = spec.name
        await self._admit_caller(caller.principal, spec.kind, trail.tally)
        call = await self._prepare(spec, envelope, key, caller, trail)
        answer = await self._tracing.wrap("act", spec.handler)(self._services, call)
        if answer.source is not None:
            trail.cached, trail.stale = answer.source.cached, answer.source.stale
        return Served(spec, call, answer)

    async def count_unreadable(self, caller: Caller, trail: Trail) -> None:
        """Count a request that names no action: nonsense is limited too. Raises LimitRefused."""
        await self._limits.admit_caller(caller.principal, Kind.SERVICE, trail.tally)

    def payload(self, served: Served, request_id: str) -> dict[str, Any]:
        """The contract's success object."""
        link, vehicle, source = served.call.link, served.call.vehicle, served.answer.source
        return {
            "success": True,
            "action": served.spec.name,
            "brand": vehicle.brand if vehicle else None,
            "vehicle_name": vehicle.name if vehicle else None,
            "vin": vehicle.vin if vehicle else None,
            "result": served.answer.result,
            "timestamp": self._services.clock.utc(),
            "environment": self._environment,
            "meta": {
                "request_id": request_id,
                "provider": link.account.provider if link else None,
                **(_shown(source) if source else _NO_SOURCE),
                "quota": source.quota if source else None,
            },
        }

    async def _prepare(
        self, spec: ActionSpec, envelope: Envelope, key: str | None, caller: Caller, trail: Trail
    ) -> Call:
        """Everything that must hold before an action's function runs."""
        if spec.scope is not None and spec.scope not in caller.scopes:
            raise InsufficientScope(details={"scope": spec.scope.value})
        params = _params(spec, envelope)
        if spec.target is Target.NOTHING:
            serve_part = functools.partial(self._serve_part, trail)
            return Call(envelope, params, caller, key, serve_part=serve_part, arrived_s=trail.arrived_s)
        trail.link = link = await self._link(envelope, caller)
        await self._limits.admit_account(link.account.id, spec.kind, trail.tally)
        if spec.kind is Kind.COMMAND:
            # Another instance may have disconnected the account since this one looked.
            link = await self._services.accounts.by_id(caller.principal, link.account.id, max_age_s=0)
        if spec.target is Target.ACCOUNT:
            return Call(envelope, params, caller, key, link, arrived_s=trail.arrived_s)
        vehicle = await self._vehicle(link, envelope.vin, cache_only=envelope.cache_only)
        trail.vin = vehicle.vin
        return Call(envelope, params, caller, key, link, vehicle, arrived_s=trail.arrived_s)

    async def _find_link(self, envelope: Envelope, caller: Caller) -> Link:
        if envelope.account is not None:
            return await self._services.accounts.by_id(caller.principal, envelope.account)
        if envelope.email is None:
            problem = "Name the account: `account`, or `email` and `password`."
            raise ValidationFailed(details={"fields": [{"path": "account", "problem": problem}]})
        return await self._services.accounts.by_credentials(caller.principal, DEFAULT_PROVIDER, credentials(envelope))

    async def _part(self, whole: Trail, envelope: Envelope, caller: Caller, key: str | None) -> Part:
        """One action of a batch: its own checks, its own error, its own event."""
        clock = self._services.clock
        started_s, trail = clock.monotonic(), replace(whole, action="unknown", cached=None, stale=None)
        body: Mapping[str, Any]
        try:
            served = await self.serve(envelope, caller, key, trail)
            status, body = served.answer.status, self.payload(served, trail.request_id)
        except ApiError as error:
            status, body = type(error).status, self._failed(error, trail, clock.utc())
        except Exception as defect:  # noqa: BLE001 - one part's defect must not take the others' answers
            status, body = InternalError.status, self._failed(InternalError(), trail, clock.utc())
            self._telemetry.defect(defect)
        self._telemetry.part(trail, status, clock.monotonic() - started_s)
        return Part(status, body)

    def _failed(self, error: ApiError, trail: Trail, now: datetime) -> Mapping[str, Any]:
        self._telemetry.refusal(error, trail)
        return {"success": False, "error": wire.error_payload(error, trail.request_id, now)}


def _params(spec: ActionSpec, envelope: Envelope) -> Any:  # noqa: ANN401 - an instance of the row's model
    if not envelope.params and spec.params in _ALL_DEFAULTS:
        return _ALL_DEFAULTS[spec.params]
    try:
        return spec.params.model_validate(envelope.params)
    except ValidationError as bad:
        raise ValidationFailed(details={"fields": wire.problems(bad, "params")}) from None


def _shown(source: Source) -> Mapping[str, Any]:
    return {
        "cached": source.cached,
        "stale": source.stale,
        "fetched_at": source.fetched_at,
        "measured_at": source.measured_at,
        "age_s": round(source.age_s, 3),
    }
