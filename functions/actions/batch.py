"""Several actions in one request: each with its own checks and its own answer, in the order in which they were sent."""

import asyncio
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from common.loops import needs_loop
from functions.actions.commands import COMMANDS
from functions.actions.reads import READS
from functions.actions.spec import ActionSpec, Answer, Call, Kind, Part, Services, Target
from functions.contract import MAX_WAIT_S, BatchParams, BatchPart, Envelope, ReadParams

_AT_ONCE = 8
"""Vehicles of one batch that are asked about at the same time: a batch must not starve everybody else."""
_FAILED_FETCH = frozenset({429, *range(500, 600)})
_OF_THE_SNAPSHOT = frozenset(row.name for row in READS if row.params is ReadParams)

_COMMANDS = frozenset(name for row in COMMANDS if row.kind is Kind.COMMAND for name in (row.name, *row.aliases))
_MEANING = ("action", "account", "email", "region", "vin", "params", "idempotency_key")


class _Lane:
    """What the parts of one vehicle share. The batch is one request, which came at ``arrived_s``, monotonic."""

    def __init__(self, arrived_s: float) -> None:
        self._waits_end_s = arrived_s + MAX_WAIT_S
        self._since_s = arrived_s
        """What was read from here on is as fresh as anything that the batch asks for."""
        self._has_read = False
        self._has_failed = False

    def fields(self, part: BatchPart, now_s: float) -> dict[str, Any]:
        """The part as a request of its own, without what the parts before it have seen to."""
        fields = part.model_dump(exclude={"idempotency_key"}, exclude_unset=True)
        if part.wait_s:
            fields["wait_s"] = min(part.wait_s, max(0.0, self._waits_end_s - now_s))
        if part.action in _OF_THE_SNAPSHOT and (part.fresh or part.max_age_s is not None):
            if self._has_read:
                fields.pop("fresh", None)
                fields.pop("max_age_s", None)
            elif self._has_failed:
                # So that the failure which is remembered answers, and nothing that was read before the batch.
                fields.pop("fresh", None)
                fields["max_age_s"] = max(part.max_age_s or 0.0, now_s - self._since_s)
        return fields

    def note(self, part: BatchPart, answered: Part, now_s: float) -> None:
        """How a part ended."""
        if part.action not in _OF_THE_SNAPSHOT:
            # A command may have changed the car.
            self._has_read, self._has_failed, self._since_s = False, False, now_s
        elif answered.status in _FAILED_FETCH:
            self._has_failed = True
        elif answered.status == 200 and not part.params.get("explain"):
            reads_now = part.fresh or part.max_age_s == 0
            self._has_read = self._has_read or reads_now or not answered.body["meta"]["cached"]


async def _batch(services: Services, call: Call) -> Answer:
    await needs_loop()
    if call.serve_part is None:
        raise LookupError("the dispatcher gives every call without a target the means to serve parts")
    params: BatchParams = call.params
    if call.idempotency_key is not None and any(map(_is_sent, params.requests)):
        meaning = [_meaning(part) for part in params.requests]
        await services.commands.bind_batch(call.caller.principal, call.idempotency_key, meaning)
    lanes, serve, clock = asyncio.Semaphore(_AT_ONCE), call.serve_part, services.clock
    arrived_s = clock.monotonic() if call.arrived_s is None else call.arrived_s

    async def run(parts: Sequence[tuple[int, BatchPart]]) -> list[tuple[int, Part]]:
        done, lane = [], _Lane(arrived_s)
        async with lanes:
            for index, part in parts:
                envelope = Envelope.model_validate(lane.fields(part, clock.monotonic()))
                answered = await serve(envelope, call.caller, _key(call, part, index))
                lane.note(part, answered, clock.monotonic())
                done.append((index, answered))
        return done

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(lane)) for lane in _lanes(params.requests)]
    parts = [part for _, part in sorted((found for task in tasks for found in task.result()), key=lambda at: at[0])]
    failed = sum(part.status >= 400 for part in parts)
    return Answer(
        {
            "responses": [{"status": part.status, **part.body} for part in parts],
            "count": len(parts),
            "succeeded": len(parts) - failed,
            "failed": failed,
        }
    )


def _lanes(parts: Sequence[BatchPart]) -> list[list[tuple[int, BatchPart]]]:
    """What runs one after the other, in the order given: the parts of one vehicle. Different vehicles run at once.

    A part that names no vehicle may mean any of its account's, or all: then the whole account's parts keep their order.
    """

    def owner(part: BatchPart) -> str:
        return part.account or (part.email or "").strip().casefold()

    whole = {owner(part) for part in parts if part.vin is None}

    def vehicle(numbered: tuple[int, BatchPart]) -> tuple[str, str]:
        part = numbered[1]
        return owner(part), "" if owner(part) in whole else (part.vin or "").upper()

    ordered = sorted(enumerate(parts), key=lambda numbered: (vehicle(numbered), numbered[0]))
    return [list(lane) for _, lane in groupby(ordered, key=vehicle)]


def _is_sent(part: BatchPart) -> bool:
    return part.action in _COMMANDS and not part.params.get("dry_run")


def _meaning(part: BatchPart) -> dict[str, Any]:
    """What a part asks for, without who asks and how: another order or another car under one key is a mistake."""
    fields = part.model_dump(include=set(_MEANING))
    return {**fields, "params": {name: value for name, value in part.params.items() if name != "confirm"}}


def _key(call: Call, part: BatchPart, index: int) -> str | None:
    """A part's own key, or one made of the whole request's: the same batch again is the same commands again."""
    if part.idempotency_key is not None or call.idempotency_key is None:
        return part.idempotency_key
    return f"{call.idempotency_key}#{index}"


BATCH = ActionSpec(
    "batch",
    Kind.SERVICE,
    None,
    Target.NOTHING,
    "Up to twenty requests at once; one answer or error each, in order.",
    _batch,
    BatchParams,
    example={
        "requests": [
            {"action": "fuel", "account": "acc_AAAAAAAAAAAAAAAAAAAAAA", "vin": "WBA00000000DEMO01"},
            {"action": "is_locked", "account": "acc_AAAAAAAAAAAAAAAAAAAAAA", "vin": "WBA00000000DEMO01"},
        ]
    },
)
