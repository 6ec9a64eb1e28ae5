"""What the commands of ``python -m ops.keys`` have in common.

A module of commands has a function ``register(subparsers)`` that adds its parsers. Each parser names what does the
work: ``parser.set_defaults(run=...)``, see :data:`Run`.
"""

import argparse
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from common.clock import Clock, SystemClock
from common.settings import Settings
from common.stores.documents import Documents
from functions.storage import open_storage


class Refused(Exception):
    """What was asked for cannot be done; the message is the one line that is shown."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a command works with."""

    settings: Settings
    clock: Clock
    opener: Callable[[Settings], Documents]

    @asynccontextmanager
    async def documents(self) -> AsyncIterator[Documents]:
        """The service's documents, closed in the end. Raises Refused where the settings name none."""
        try:
            store = self.opener(self.settings)
        except ValueError as unusable:
            raise Refused(f"DOCUMENTS_URL, KEYS_URL, TOKEN_KEYS: {unusable}") from unusable
        try:
            yield store
        finally:
            await store.aclose()


def open_store(settings: Settings) -> Documents:
    """The service's documents, sealed as the service seals them. Raises ValueError."""
    if not settings.token_keys:
        raise ValueError("TOKEN_KEYS must be set, as the service has it")
    return open_storage(settings, SystemClock())[0]


Run: TypeAlias = Callable[[argparse.Namespace, Tools], Coroutine[Any, Any, int]]
"""Does a command's work and returns the exit status. Raises Refused and StoreUnavailable."""

Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """End the program with exit status 2."""
        self.exit(2, f"{self.prog}: {message}; --help tells more\n")
