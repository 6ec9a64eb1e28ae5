"""Several actions in one request: each with its own checks and its own answer, in the order in which they were sent."""

import asyncio
from collections.abc import Sequence
from itertools import groupby

from common.loops import needs_loop
from functions.actions.reads import READS
from functions.actions.spec import ActionSpec, Answer, Call, Kind, Part, Services, Target
from functions.contract import BatchParams, BatchPart, Envelope, ReadParams

_AT_ONCE = 8
"""Vehicles of one batch that are asked about at the same time: a batch must not starve everybody else."""
_OF_THE_SNAPSHOT = frozenset(row.name for row in READS if row.params is ReadParams)


async def _batch(_services: Services, call: Call) -> Answer:
    await needs_loop()
    if call.serve_part is None:
        raise LookupError("the dispatcher gives every call without a target the means to serve parts")
    params: BatchParams = call.params
    lanes, serve = asyncio.Semaphore(_AT_ONCE), call.serve_part

    async def run(lane: Sequence[tuple[int, BatchPart]]) -> list[tuple[int, Part]]:
        done, just_read = [], False
        async with lanes:
            for index, part in lane:
                reads = part.action in _OF_THE_SNAPSHOT
                fields = part.model_dump(exclude={"idempotency_key"}, exclude_unset=True)
                if just_read and reads:
                    # The batch is one request: what it has just read is as fresh as anything that it asks for.
                    fields.pop("fresh", None)
                answered = await serve(Envelope.model_validate(fields), call.caller, _key(call, part, index))
                done.append((index, answered))
                if not reads:
                    just_read = False  # a command may have changed the car
                elif part.fresh and not part.params.get("explain"):
                    just_read = answered.status == 200
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
