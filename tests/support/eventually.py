"""Waiting for what another process or the network brings about, without guessing how long that takes."""

import asyncio
from collections.abc import Awaitable, Callable

_LONGEST_S = 30.0
_LOOK_EVERY_S = 0.002


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return as soon as ``holds``; TimeoutError where it never does."""
    async with asyncio.timeout(_LONGEST_S):
        while not await holds():  # noqa: ASYNC110 - what is waited for lies in another process
            await asyncio.sleep(_LOOK_EVERY_S)
