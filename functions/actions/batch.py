"""Several actions in one request: each with its own checks and its own answer, in the order in which they were sent."""

import asyncio
from collections.abc import Sequence
from itertools import groupby

from common.loops import needs_loop
from functions.actions.spec import ActionSpec, Answer, Call, Kind, Part, ServePart, Services, Target
from functions.contract import BatchParams, BatchPart, Envelope

_AT_ONCE = 8
"""Vehicles of one batch that are asked about at the same time: a batch must not starve everybody else."""
_SAME_MOMENT_S = 0.001


async def _batch(services: Services, call: Call) -> Answer:
    await needs_loop()
    if call.serve_part is None:
        raise LookupError("the dispatcher gives every call without a target the means to serve parts")
    params: BatchParams = call.params
    began_s = services.clock.monotonic()
    lanes = asyncio.Semaphore(_AT_ONCE)

    async def run(lane: Sequence[tuple[int, BatchPart]]) -> list[tuple[int, Part]]:
        async with lanes:
            return [(index, await one(index, part)) for index, part in lane]

    async def one(index: int, part: BatchPart) -> Part:
        # The batch is one request: what was read since it began is as fresh as anything that it asks for.
        elapsed_s = services.clock.monotonic() - began_s + _SAME_MOMENT_S
        fields = part.model_dump(exclude={"idempotency_key", "fresh"}, exclude_unset=True)
        if part.fresh:
            fields["max_age_s"] = elapsed_s
        return await serve(Envelope.model_validate(fields), call.caller, _key(call, part, index))

    serve: ServePart = call.serve_part
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
    """What runs one after the other, in the order given: the parts of one vehicle. Different vehicles run at once."""

    def vehicle(numbered: tuple[int, BatchPart]) -> tuple[str, str]:
        part = numbered[1]
        return part.account or part.email or "", (part.vin or "").upper()

    ordered = sorted(enumerate(parts), key=lambda numbered: (vehicle(numbered), numbered[0]))
    return [list(lane) for _, lane in groupby(ordered, key=vehicle)]


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
