"""One event loop a worker, and the seam between the server's threads and it.

The server calls us on one of many threads; everything that waits for I/O runs on a single background loop, so that
connections, locks and single-flights are shared. Handing a request over to that loop costs two thread switches, more
than a cached answer costs to compute. So a request *begins* on the server's thread, as an ordinary coroutine stepped
by hand, and moves to the loop at the first ``await needs_loop()`` it meets. A request that is answered from memory
never meets one and never leaves its thread.

The rule for authors: whatever is about to wait calls ``await needs_loop()`` first, and everything that runs before
it must be safe to run on any thread. On the loop itself ``needs_loop`` does nothing.
"""

import asyncio
import threading
import types
from collections.abc import Coroutine, Generator
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_CROSSING = object()


@types.coroutine
def needs_loop() -> Generator[object, None, None]:
    """Continue on the worker's event loop; does nothing where one is running already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        yield _CROSSING


class _Rest:
    """What is left of a coroutine that was already begun elsewhere; awaiting it finishes it."""

    def __init__(self, begun: Coroutine[Any, Any, T]) -> None:
        self._begun = begun

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from self._begun.__await__())


class LoopThread:
    """An event loop on a daemon thread of its own.

    Must be built after the server has forked its workers: a thread does not survive a fork.
    """

    def __init__(self, name: str = "loop") -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` to its end: here as far as it goes from memory, on the loop from its first wait on.

        Raises whatever ``work`` raises.
        """
        try:
            met = work.send(None)
        except StopIteration as done:
            result: T = done.value
            return result
        if met is not _CROSSING:
            work.close()
            raise RuntimeError("a request waited for I/O without `await needs_loop()`")
        return self.submit(_finish(work)).result()

    def submit(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Start ``work`` on the loop and return at once."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self, timeout_s: float = 5.0) -> None:
        """Cancel what still runs, then end the loop and its thread."""
        if self._thread.is_alive():
            self.submit(_cancel_others()).result(timeout_s)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout_s)
        self._loop.close()


async def _finish(begun: Coroutine[Any, Any, T]) -> T:
    result: T = await _Rest(begun)
    return result


async def _cancel_others() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
