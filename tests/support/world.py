"""One instance of the service's own layer around a fake maker and any document store, on a clock that waits for us."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from common.breaker import Breakers, CircuitBreaker
from common.cache import Cache
from common.callers import ALL_SCOPES, Caller, Scope
from common.clock import ManualClock
from common.errors import ProviderError
from common.metrics import Metrics
from common.ratelimit_fixed import FixedLimiter
from common.ratelimit_moving import MovingLimiter
from common.retry import ReadRetry, RetryBudget
from common.settings import Settings
from common.stores.documents import Documents
from functions.accounts import AccountManager, Verified
from functions.actions.spec import Services
from functions.audit import AuditTrail
from functions.command_ledger import CommandLedger
from functions.command_outcome import CommandOutcomes, CommandTimes
from functions.command_record import Record
from functions.command_slot import CommandSlots
from functions.commands import CommandManager
from functions.device_login import DeviceLogins
from functions.idempotency import IdempotencyClaims
from functions.limits import LimitPolicy, RequestLimits
from functions.links import Link, LinkBook, identity_of, mask
from functions.login_guard import LoginGuard
from functions.providers.port import Account, Credentials, Provider, Region
from functions.providers.registry import Parts, Providers
from functions.snapshot import Snapshot
from functions.step_up import Capped, StepUp
from functions.storage import NoKeys
from functions.tokens import TokenKeeper, TokenSet
from functions.upstream import BreakerKey, Upstream
from functions.vehicle_names import VehicleNames
from functions.vehicles import VehicleList, VehicleManager
from functions.waiters import Waiters
from tests.support.fake_provider import PASSWORD, USERNAME, FakeMaker

ME = "issuer|me"
STRANGER = "issuer|stranger"
READ_TTL_S = 300.0
LIST_TTL_S = 86_400.0
COMMAND_TTL_S = 30.0
OUTLIVING = frozenset({"audit", "claims", "slots", "caps"})
"""What is left of an account that was disconnected: so that ending it sets nothing back that protects the car."""
TIMES = CommandTimes(poll_interval_s=2, confirm_window_s=60)


def form(
    *,
    username: str = USERNAME,
    password: str = PASSWORD,
    captcha: str | None = None,
    region: Region = Region.REST_OF_WORLD,
) -> Credentials:
    """A credential form."""
    return Credentials(username, password, region, captcha)


def caller(*scopes: Scope, principal: str = ME) -> Caller:
    """A caller with these scopes; with none given, all of them."""
    return Caller(principal, frozenset(scopes) or ALL_SCOPES)


@dataclass
class World:
    """Everything that one instance has."""

    documents: Documents
    clock: ManualClock
    maker: FakeMaker
    providers: Providers
    tokens: TokenKeeper
    links: LinkBook
    vehicles: VehicleManager
    accounts: AccountManager
    ledger: CommandLedger
    step_up: StepUp
    commands: CommandManager
    services: Services
    breakers: Breakers[BreakerKey]
    slept_s: list[float]
    slept: asyncio.Event
    """Somebody has paused."""
    seen: list[Record] = field(default_factory=list)
    """Each state that a command record reached."""

    async def traces(self) -> list[str]:
        """The key of every document, apart from those that outlive what they are about."""
        return [key for key in await self.documents.list("") if key.partition("/")[0] not in OUTLIVING]

    async def placed(self, principal: str = ME) -> Link:
        """A linked account with good tokens, put there without a login and its costly hash."""
        identity = identity_of(principal, "mybmw", Region.REST_OF_WORLD, USERNAME)
        account = Account(await self.links.account_id_for(identity), "mybmw", Region.REST_OF_WORLD)
        link = Link(account, principal, identity, mask(USERNAME), self.clock.utc(), "no hash")
        await self.tokens.save(account.id, TokenSet("access-0", "refresh-0", self.clock.utc() + timedelta(hours=1)))
        await self.links.put(link)
        return link

    async def linked(self, principal: str = ME, captcha: str = "captcha-1") -> Link:
        """Connect the maker's account."""
        return await self.accounts.connect(principal, "mybmw", form(captcha=captcha))


def build_world(
    documents: Documents,
    clock: ManualClock,
    maker: FakeMaker | None = None,
    *,
    provider: Provider | None = None,
    names: Sequence[str] = ("mybmw",),
    require_key: bool = False,
    confirm: frozenset[str] = frozenset(),
    caps_per_hour: Mapping[Capped, int] | None = None,
    limits: LimitPolicy | None = None,
    max_waiters: int = 100,
) -> World:
    """An instance. Two on one store and one maker stand for two instances of a deployment."""
    maker = maker or FakeMaker(clock)
    slept_s: list[float] = []
    slept = asyncio.Event()
    seen: list[Record] = []

    async def sleep(seconds: float) -> None:
        slept_s.append(seconds)
        slept.set()
        clock.advance(seconds)
        await asyncio.sleep(0)

    def cache(name: str, ttl_s: float, stale_s: float = 0.0) -> Cache[Any]:
        return Cache(
            name,
            ttl_s=ttl_s,
            max_bytes=2**20,
            weigh=lambda _: 100,
            clock=clock,
            uniform=lambda _least, _most: 1.0,
            stale_if_error_s=stale_s,
            negative_ttl_s=2.0,
        )

    def breaker(key: BreakerKey) -> CircuitBreaker:
        return CircuitBreaker(5, 60.0, ProviderError, name="/".join(key), clock=clock, uniform=lambda _a, b: b)

    built = provider or maker.provider()
    tokens = TokenKeeper(documents, clock, sleep=sleep)
    providers = Providers(
        names, Parts(Settings(), tokens, documents, clock, Metrics(set())), {name: lambda _: built for name in names}
    )
    breakers = Breakers(breaker)
    retry = ReadRetry(budget=RetryBudget(clock), sleep=sleep, uniform=lambda least, _most: least)
    upstream = Upstream(breakers, retry, clock, {"read": 20, "command": 30, "auth": 45})
    links = LinkBook(documents)
    lists: Cache[VehicleList] = cache("lists", LIST_TTL_S)
    snapshots: Cache[Snapshot] = cache("snapshots", READ_TTL_S, 3_600.0)
    vehicles = VehicleManager(
        providers=providers,
        links=links,
        upstream=upstream,
        clock=clock,
        lists=lists,
        snapshots=snapshots,
        images=cache("images", LIST_TTL_S),
        quotas=cache("quotas", 10.0),
        list_ttl_s=LIST_TTL_S,
    )
    link_cache: Cache[Link] = cache("links", 30.0)
    sessions: Cache[Verified] = cache("sessions", 86_400.0)
    accounts = AccountManager(
        providers=providers,
        links=links,
        tokens=tokens,
        keys=NoKeys(),
        documents=documents,
        upstream=upstream,
        guard=LoginGuard(documents, clock),
        limits=RequestLimits(limits or LimitPolicy(), FixedLimiter(clock), MovingLimiter(clock)),
        clock=clock,
        link_cache=link_cache,
        session_cache=sessions,
    )
    slots = CommandSlots(documents, clock)
    step_up = StepUp(documents, clock, confirm=confirm, caps_per_hour=caps_per_hour or {})
    ledger = CommandLedger(documents, clock, slots, AuditTrail(documents, clock, key=b"audit key"), observe=seen.append)
    outcomes = CommandOutcomes(
        providers=providers,
        ledger=ledger,
        upstream=upstream,
        vehicles=vehicles,
        clock=clock,
        times=TIMES,
        waiters=Waiters(max_waiters),
        sleep=sleep,
    )
    commands = CommandManager(
        ledger=ledger,
        outcomes=outcomes,
        claims=IdempotencyClaims(documents, clock),
        slots=slots,
        step_up=step_up,
        links=links,
        names=VehicleNames(b"naming key"),
        upstream=upstream,
        vehicles=vehicles,
        clock=clock,
        ttl_s=COMMAND_TTL_S,
        require_key=require_key,
    )
    logins = DeviceLogins(
        providers=providers,
        links=links,
        tokens=tokens,
        keys=NoKeys(),
        documents=documents,
        upstream=upstream,
        clock=clock,
        finish_disconnects=accounts.finish_disconnects,
    )
    services = Services(accounts, logins, vehicles, commands, providers, clock)
    return World(
        documents=documents,
        clock=clock,
        maker=maker,
        providers=providers,
        tokens=tokens,
        links=links,
        vehicles=vehicles,
        accounts=accounts,
        ledger=ledger,
        step_up=step_up,
        commands=commands,
        services=services,
        breakers=breakers,
        slept_s=slept_s,
        slept=slept,
        seen=seen,
    )
