"""One worker: says that it lives, takes its share of the customers, and serves each in a session of its own.

A worker that could not say so in time must take it that others have its customers by now: it ends every session and
begins anew.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final, Literal

from common.clock import Clock
from common.errors import StoreUnavailable
from common.stores.documents import VersionConflict
from functions.providers.cardata.stream_index import Customer, Customers
from functions.providers.cardata.stream_leases import Leases, Roster
from functions.providers.cardata.stream_session import Session, SessionParts
from functions.providers.cardata.stream_shares import share_of

_TTL_PART: Final = 2 / 3
_BEAT_PART: Final = 1 / 6
"""Of the lease: from a worker's death to its successor it takes at most the one, a beat and a look around."""
_IMPATIENT_S: Final = 1.0
"""How soon to look again while another worker has not let go yet."""
_AT_ONCE: Final = 16
_END_WITHIN_S: Final = 3.0
"""At the process's end. A session that is connecting takes longer; it hears nothing any more."""
_DRAIN_WITHIN_S: Final = 4.0

Status = Literal["healthy", "degraded", "unhealthy"]


def ttl_s(lease_s: float) -> float:
    """How long a worker's word that it lives holds."""
    return lease_s * _TTL_PART


@dataclass(eq=False)
class _Served:
    session: Session
    task: "asyncio.Task[None]"


class Worker:
    """Serves its share until told to stop.

    ``lease_s``: after a worker's death its customers are another's at the latest. ``hear`` is awaited at each look
    around, to learn what the API's instances have said meanwhile.
    """

    def __init__(
        self,
        customers: Customers,
        roster: Roster,
        leases: Leases,
        parts: SessionParts,
        *,
        lease_s: float,
        hear: Callable[[], Awaitable[object]],
    ) -> None:
        self._customers = customers
        self._roster = roster
        self._leases = leases
        self._parts = parts
        self._beat_every_s = lease_s * _BEAT_PART
        self._hear = hear
        self._served: dict[str, _Served] = {}
        self._lives_until_s = float("-inf")
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self.workers = 0
        """How many there are, this one among them."""
        self.waits_for = 0
        """Customers of ours that another worker still has."""

    @property
    def clock(self) -> Clock:
        """The worker's."""
        return self._parts.clock

    @property
    def status(self) -> Status:
        """Unhealthy while it cannot say that it lives; degraded while it does not serve all of its share."""
        if not self._is_alive:
            return "unhealthy"
        return "degraded" if self.waits_for or self._fallen() else "healthy"

    def states(self) -> dict[str, int]:
        """This worker's customers, by what their sessions are doing."""
        return dict(Counter(served.session.state.value for served in self._served.values()))

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop``, then end in good order: listen no more, store everything, let others take over."""
        await self.beat()
        loops = [asyncio.create_task(self._keep_beating()), asyncio.create_task(self._keep_looking())]
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({*loops, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*loops, stopping):
                task.cancel()
            await asyncio.wait({*loops, stopping})
            await self._leave()
        for task in loops:
            if not task.cancelled():
                task.result()

    async def beat(self) -> None:
        """Say that this worker lives; where it was silent too long, end every session first."""
        if self._served and not self._is_alive:
            self._parts.report.worker("stream_lease_lost", count=len(self._served))
            await self._drop(list(self._served), release=False)
        try:
            self._lives_until_s = await self._roster.beat()
        except (StoreUnavailable, VersionConflict) as error:
            self._parts.report.worker("stream_beat_failed", error=error)

    async def look(self) -> None:
        """Look around once: let go of what is another's now, take what is ours."""
        if not self._is_alive:
            return
        await self._hear()
        try:
            customers = {customer.name: customer for customer in await self._customers.customers()}
            alive = await self._roster.alive()
        except StoreUnavailable as error:
            self._parts.report.worker("stream_look_failed", error=error)
            return
        self.workers = len(alive)
        for name in self._fallen():
            self._parts.report.worker("stream_session_failed", error=_why(self._served.pop(name).task))
        ours = share_of(self._roster.me, customers, alive)
        gone = {account for one in self._served.values() for account in one.session.customer.accounts} - {
            account for customer in customers.values() for account in customer.accounts
        }
        for account_id in gone:
            self._parts.intake.forget(account_id)
        await self._drop([name for name in self._served if name not in ours], release=True)
        for name in ours & self._served.keys():
            self._served[name].session.customer = customers[name]
        wanted = [customers[name] for name in sorted(ours - self._served.keys())]
        taken = await asyncio.gather(*[self._take(customer, alive) for customer in wanted])
        self.waits_for = taken.count(False)
        if any(taken):
            self._parts.report.worker("stream_customers_taken", count=sum(taken))

    def _fallen(self) -> list[str]:
        """Whose sessions have ended, which none does unless told to: by a defect of ours."""
        return [name for name, served in self._served.items() if served.task.done()]

    @property
    def _is_alive(self) -> bool:
        return self.clock.monotonic() < self._lives_until_s

    async def _keep_beating(self) -> None:
        while True:
            await self._parts.sleep(self._beat_every_s)
            await self.beat()

    async def _keep_looking(self) -> None:
        while True:
            await self.look()
            impatient = self.waits_for or not self._is_alive
            await self._parts.sleep(min(_IMPATIENT_S, self._beat_every_s) if impatient else self._beat_every_s)

    async def _take(self, customer: Customer, alive: frozenset[str]) -> bool:
        async with self._turns:
            try:
                if not await self._leases.take(customer.name, alive):
                    return False
            except StoreUnavailable:
                return False
        # The lapse may have come while the store took its time: then this lease is not ours.
        if not self._is_alive:
            return False
        session = Session(customer, self._parts)
        self._served[customer.name] = _Served(session, asyncio.create_task(session.run()))
        return True

    async def _drop(self, names: Collection[str], *, release: bool) -> None:
        """End sessions; to ``release`` them, what they have received is stored before anybody else is let in."""
        if not names:
            return
        dropped = {name: self._served.pop(name) for name in names}
        for one in dropped.values():
            one.task.cancel()
        # Whoever is let in too early is evicted by a session of ours that is just connecting.
        await asyncio.wait({one.task for one in dropped.values()}, timeout=None if release else _END_WITHIN_S)
        if release:
            accounts = [account for one in dropped.values() for account in one.session.customer.accounts]
            await self._parts.intake.drain(accounts, within_s=_DRAIN_WITHIN_S)
            await asyncio.gather(*[self._release(name) for name in dropped])
            self._parts.report.worker("stream_customers_released", count=len(dropped))

    async def _release(self, name: str) -> None:
        async with self._turns:
            try:
                await self._leases.release(name)
            except StoreUnavailable as error:
                # It ends with us at the latest.
                self._parts.report.worker("stream_release_failed", error=error)

    async def _leave(self) -> None:
        count = len(self._served)
        await self._drop(list(self._served), release=False)
        await self._parts.intake.drain(within_s=_DRAIN_WITHIN_S)
        try:
            await self._roster.leave()
        except StoreUnavailable as error:
            self._parts.report.worker("stream_leave_failed", error=error)
        self._parts.report.worker("stream_stopped", count=count)


def _why(task: "asyncio.Task[None]") -> Exception:
    error = None if task.cancelled() else task.exception()
    return error if isinstance(error, Exception) else RuntimeError("a session ended without being told to")
