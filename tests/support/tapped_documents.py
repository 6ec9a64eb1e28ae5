"""A document store with somebody listening: a test fails, delays or kills at any operation it chooses."""

import builtins
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from common.errors import StoreUnavailable
from common.stores.documents import Body, Document, Documents

T = TypeVar("T")


class When(Enum):
    """Before an operation has had any effect, or after it was done and before anybody knows."""

    BEFORE = "before"
    AFTER = "after"


Tap = Callable[[When, str, str], Awaitable[None]]
"""Told of each operation: when, its name, the key or prefix. What it raises is raised to the caller."""


async def _silent(_when: When, _operation: str, _key: str) -> None:
    pass


@dataclass
class TappedDocuments:
    """Any store, with ``tap`` called around each operation; ``seen`` lists ``"operation key"``."""

    inner: Documents
    tap: Tap = _silent
    seen: builtins.list[str] = field(default_factory=list)

    async def get(self, key: str) -> Document | None:
        return await self._around("get", key, self.inner.get(key))

    async def create(self, key: str, body: Body) -> Document:
        return await self._around("create", key, self.inner.create(key, body))

    async def replace(self, document: Document, body: Body) -> Document:
        return await self._around("replace", document.key, self.inner.replace(document, body))

    async def delete(self, key: str, version: str | None = None) -> bool:
        return await self._around("delete", key, self.inner.delete(key, version))

    async def list(self, prefix: str, *, limit: int = 1000, after: str | None = None) -> builtins.list[str]:
        return await self._around("list", prefix, self.inner.list(prefix, limit=limit, after=after))

    async def ping(self) -> None:
        await self.inner.ping()

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def _around(self, operation: str, key: str, work: Coroutine[Any, Any, T]) -> T:
        try:
            await self.tap(When.BEFORE, operation, key)
            done = await work
        finally:
            work.close()
        self.seen.append(f"{operation} {key}")
        await self.tap(When.AFTER, operation, key)
        return done


def failing(times: int, operation: str, key: str = "", when: When = When.BEFORE) -> Tap:
    """Make the next ``times`` of an operation on keys that begin so fail as if the store were out of reach."""
    left = times

    async def tap(moment: When, name: str, of: str) -> None:
        nonlocal left
        if left > 0 and moment is when and name == operation and of.startswith(key):
            left -= 1
            raise StoreUnavailable

    return tap
