"""What a worker process does last when it is asked to end. Registered by whoever has something to finish."""

import logging
from collections.abc import Callable

_log = logging.getLogger(__name__)
_endings: list[Callable[[], None]] = []


def at_end(ending: Callable[[], None]) -> None:
    """Have ``ending`` called before the process ends: after the last request, where the server allows it.

    The platform kills a process 10 s after it asked it to end, so be quick.
    """
    _endings.append(ending)


def end() -> None:
    """Call each of them once, the last one first. For the server, where it ends. Raises nothing."""
    while _endings:
        ending = _endings.pop()
        try:
            ending()
        except Exception as failed:  # noqa: BLE001 - the others have their turn all the same
            _log.error("an ending failed: %s", type(failed).__qualname__)
