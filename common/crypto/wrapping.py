"""The port behind which master keys live: they wrap data keys and never leave."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from common.crypto.errors import SealBroken


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key that only its master key can open."""

    kid: str
    """Which master key."""
    blob: bytes = field(repr=False)


class KeyWrapper(Protocol):
    """Wraps data keys under master keys. ``context`` is authenticated: without the same one nothing unwraps."""

    async def active_kid(self) -> str:
        """The id under which a key would be wrapped now. Raises StoreUnavailable."""
        ...

    def holds(self, kid: str) -> bool:
        """Whether a key that was wrapped under ``kid`` is for this wrapper to open."""
        ...

    async def wrap(self, key: bytes, context: bytes) -> WrappedKey:
        """Wrap under the active master key. Raises StoreUnavailable."""
        ...

    async def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """The data key. Raises SealBroken, StoreUnavailable."""
        ...


class Succession:
    """Wrappers of different kinds, for the move from one to another: the first wraps, all of them unwrap."""

    def __init__(self, wrappers: Sequence[KeyWrapper]) -> None:
        self._wrappers = wrappers

    async def active_kid(self) -> str:
        """See :class:`KeyWrapper`."""
        return await self._wrappers[0].active_kid()

    def holds(self, kid: str) -> bool:
        """See :class:`KeyWrapper`."""
        return any(wrapper.holds(kid) for wrapper in self._wrappers)

    async def wrap(self, key: bytes, context: bytes) -> WrappedKey:
        """See :class:`KeyWrapper`."""
        return await self._wrappers[0].wrap(key, context)

    async def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """See :class:`KeyWrapper`."""
        for wrapper in self._wrappers:
            if wrapper.holds(wrapped.kid):
                return await wrapper.unwrap(wrapped, context)
        raise SealBroken("its key is wrapped under a master key that is not at hand")
