"""What the service asks of a car maker: one small Protocol a capability.

A provider is a bundle of capabilities (:class:`Provider`); one that it lacks is ``None``, and the service answers
NOT_SUPPORTED. Implementations speak the maker's wire and nothing else: retries, deadlines, breakers, caching and the
command ledger are the service's. They raise only :mod:`common.errors`, with ``raise ... from``.

Every coroutine here waits for I/O and may be called on any thread's stepping coroutine: implementations begin with
``await needs_loop()`` (see :mod:`common.loops`).
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, Protocol

from common.errors import ProviderError
from functions.snapshot import EMPTY, Location, Snapshot
from functions.tokens import TokenSet


class Region(StrEnum):
    """Where an account was registered: makers keep regions on separate servers."""

    NORTH_AMERICA = "north_america"
    REST_OF_WORLD = "rest_of_world"
    CHINA = "china"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A password login. Never stored, never logged: ``repr`` hides what must not be seen."""

    username: str = field(repr=False)
    password: str = field(repr=False)
    region: Region
    captcha_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """A linked account, as far as a provider needs to know it."""

    id: str
    """``acc_...``; also the key of its tokens."""
    provider: str
    region: Region


@dataclass(frozen=True, slots=True)
class Vehicle:
    """An entry of the maker's own list of an account's vehicles."""

    vin: str
    brand: str
    name: str
    drivetrain: str
    profile: Mapping[str, Any] = field(default_factory=lambda: EMPTY, repr=False)
    """The maker's own master data, JSON: private to the provider, stored so that a cold start need not ask again."""


class CommandName(StrEnum):
    """Everything that can be asked of a car; equals the action's name."""

    LOCK = "lock"
    UNLOCK = "unlock"
    FLASH = "flash"
    HORN = "horn"
    AC = "ac"
    AC_OFF = "ac_off"
    CHARGE_START = "charge_start"
    CHARGE_STOP = "charge_stop"
    CHARGING_SETTINGS = "charging_settings"
    CHARGING_PROFILE = "charging_profile"
    SEND_POI = "send_poi"
    FIND = "find"


@dataclass(frozen=True, slots=True)
class Command:
    """A command with its parameters, validated for shape by the contract.

    Parameters by name: ``charging_settings``: ``target_soc`` (20-100, step 5), ``ac_limit`` (A), at least one;
    ``charging_profile``: ``charging_mode`` (``IMMEDIATE_CHARGING`` or ``DELAYED_CHARGING``),
    ``precondition_climate`` (bool), at least one; ``send_poi``: ``latitude``, ``longitude``, and optionally ``name``,
    ``street``, ``postal_code``, ``city``, ``country``; ``find``: optionally ``latitude`` and ``longitude`` of the
    person who is looking.
    """

    name: CommandName
    params: Mapping[str, Any] = field(default_factory=lambda: EMPTY)


class Outcome(StrEnum):
    """What the maker says of a command."""

    ACCEPTED = "accepted"
    """Taken, with an event id to ask about."""
    PENDING = "pending"
    DELIVERED = "delivered"
    EXECUTED = "executed"
    FAILED = "failed"
    """The maker says it did not happen."""
    UNKNOWN = "unknown"
    """The maker gave no usable word: it may or may not have happened."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What came back from sending a command once."""

    outcome: Outcome
    event_id: str | None = None
    """Ask :meth:`SendCommands.poll` with this; ``None`` where the maker gives none."""
    note: str | None = None
    """One sentence of ours for the caller, where the outcome needs explaining."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a command stands upstream."""

    outcome: Outcome
    position: Location | None = None
    """Only for ``find``."""
    note: str | None = None


class SendPermit(Protocol):
    """Leave to send one command request, enforced below the maker's library.

    The provider's transport calls :meth:`recheck` and then :meth:`take` right before the bytes of a command leave,
    each time they would; they raise when the budget is spent, the command has expired or the account has ended.
    :meth:`refused` gives the permit back after the maker provably did not accept (connection never opened, or 401
    before execution).
    """

    async def recheck(self) -> None:
        """Ask the store once more; raises :class:`common.errors.ApiError` where nothing may be sent any more."""
        ...

    def take(self) -> None:
        """Spend the permit; raises :class:`common.errors.ApiError` when there is none to spend."""
        ...

    def refused(self) -> None:
        """The request that was just taken provably had no effect."""
        ...


class LogIn(Protocol):
    """Password login."""

    async def log_in(self, credentials: Credentials) -> TokenSet:
        """Log in and return the first tokens; stores nothing.

        Raises AuthenticationFailed, CaptchaRequired, ProviderBlocked, QuotaLimitExceeded, Upstream*.
        """
        ...

    async def forget(self, account_id: str) -> None:
        """Drop whatever is held in memory for an account."""
        ...


@dataclass(frozen=True, slots=True)
class DeviceGrant:
    """A device login under way (RFC 8628): what to show the owner, and what the provider needs to ask for its end."""

    user_code: str
    verification_uri: str
    verification_uri_complete: str | None
    expires_at: datetime
    interval_s: float
    """Ask no sooner than this after the last time."""
    secrets: Mapping[str, str] = field(repr=False)
    """The provider's own: device code, code verifier, client id."""


@dataclass(frozen=True, slots=True)
class DevicePending:
    """The owner has not confirmed yet."""

    interval_s: float
    """Ask no sooner than this; grows where the maker asks to slow down."""


class LogInByDevice(Protocol):
    """Login by a code that the owner confirms in a browser, as steps without state of their own."""

    async def begin(self, client_id: str) -> DeviceGrant:
        """Ask the maker for a code.

        Raises AuthenticationFailed (the maker does not know the client id), Upstream*.
        """
        ...

    async def poll(self, grant: DeviceGrant) -> TokenSet | DevicePending:
        """Ask once whether the owner has confirmed.

        Raises AuthenticationFailed (denied), RelinkRequired (the code is dead: begin anew), Upstream*.
        """
        ...

    async def forget(self, account_id: str) -> None:
        """Drop whatever is held in memory for an account."""
        ...


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """Whether a read of a vehicle is worth its price, decided without spending anything."""

    source: Literal["cache", "stream", "poll"]
    """Where the answer would come from."""
    cost: int
    """Requests of the maker's quota that it would take."""
    max_age_s: float
    """What is held may be this old before asking anew is worth it."""
    why: str
    """One sentence for the caller."""
    because: Literal["used_up", "failed", "paced"] = "paced"
    """Of a plan that asks nobody: the ration is used up, the last request failed, or the next is not worth it yet."""
    retry_after_s: float | None = None
    """Of such a plan: when a request will be made, as far as is known."""


class PlanReads(Protocol):
    """For makers that ration requests."""

    async def plan(self, account: Account, vehicle: Vehicle, held: Snapshot | None, *, forced: bool) -> ReadPlan:
        """What a read should do now; ``held`` is the newest snapshot there is, ``forced`` a ``fresh: true``."""
        ...

    async def recall(self, account: Account, vehicle: Vehicle) -> Snapshot | None:
        """The newest that is known without asking the maker: read before, or streamed."""
        ...

    async def quota(self, account: Account) -> Mapping[str, Any]:
        """``{"limit", "used", "remaining", "reserved", "resets_at"}`` for ``meta.quota``."""
        ...


class ReadVehicles(Protocol):
    """The vehicle list and the state of one."""

    async def list_vehicles(self, account: Account, *, forced: bool = False) -> tuple[Vehicle, ...]:
        """The account's vehicles from the maker, in the maker's order. ``forced``: a caller insists on asking now."""
        ...

    async def read_vehicle(self, account: Account, vehicle: Vehicle, *, forced: bool = False) -> Snapshot:
        """One vehicle's state, read now. ``forced``: a caller insists, and may spend what is kept for that."""
        ...


class ReadImages(Protocol):
    """Rendered pictures of a car."""

    async def read_image(self, account: Account, vehicle: Vehicle, view: str) -> bytes:
        """A PNG. ``view`` is one of :attr:`Provider.image_views`."""
        ...


@dataclass(frozen=True, slots=True)
class ChargingSession:
    """One past charge. ``None`` is what the maker did not tell."""

    started_at: datetime | None
    ended_at: datetime | None
    start_percent: int | None
    end_percent: int | None
    energy_kwh: float | None
    """From the grid, losses included."""
    mileage_km: int | None
    place: str | None
    """An address: tells where the car was."""


@dataclass(frozen=True, slots=True)
class ChargingHistory:
    """Charges of a time, as far as they were read."""

    sessions: tuple[ChargingSession, ...]
    is_complete: bool
    note: str | None
    """Why it is not complete."""
    requests: int
    """What it cost of the maker's quota."""


@dataclass(frozen=True, slots=True)
class TyreWear:
    """One tyre. ``color`` is the maker's word (``GREEN``)."""

    label: str | None
    due_mileage_km: int | None
    """How far it may still go."""
    color: str | None


class ReadCharges(Protocol):
    """Past charges."""

    async def charging_history(
        self, account: Account, vehicle: Vehicle, start: datetime, end: datetime
    ) -> ChargingHistory:
        """Charges from ``start`` to ``end``, newest first. Raises ValidationFailed for more than the maker tells."""
        ...


class ReadTyres(Protocol):
    """How worn the tyres are."""

    async def tyre_diagnosis(self, account: Account, vehicle: Vehicle) -> Mapping[str, TyreWear]:
        """By position (``front_left``); empty where the maker has no diagnosis."""
        ...


class ReadChargingPlaces(Protocol):
    """What the car does where it charges."""

    async def charging_settings_by_place(self, account: Account, vehicle: Vehicle) -> tuple[Mapping[str, Any], ...]:
        """One object a place, as the maker words it: JSON, with coordinates."""
        ...


class SendCommands(Protocol):
    """Remote services: send once, ask apart."""

    def check(self, command: Command, snapshot: Snapshot) -> None:
        """Refuse what cannot work, before anything is sent.

        Raises NotSupported (the car or the maker cannot), PreconditionFailed (not now), ValidationFailed (this car
        does not take that value).
        """
        ...

    async def send(self, account: Account, vehicle: Vehicle, command: Command, permit: SendPermit) -> Receipt:
        """Send the command request at most once, and do not wait for its outcome.

        Whatever is raised has ``may_have_succeeded`` set where the maker may have accepted.
        """
        ...

    async def poll(self, account: Account, vehicle: Vehicle, command: Command, event_id: str) -> Progress:
        """Ask the maker where a sent command stands; safe to repeat."""
        ...


class FollowLinks(Protocol):
    """For makers of whom something runs beside the requests: which accounts there are."""

    async def linked(self, account_id: str, tokens: TokenSet) -> None:
        """An account is about to be linked; its tokens are stored. May come again for the same account."""
        ...

    async def unlinked(self, account_id: str) -> None:
        """An account is being disconnected. May come again."""
        ...


async def _nothing_to_close() -> None:
    pass


@dataclass(frozen=True)
class Provider:
    """A maker's capabilities."""

    name: str
    error: type[ProviderError]
    """The base class of this maker's failures: what its breakers count."""
    reads: ReadVehicles
    log_in: LogIn | None = None
    device: LogInByDevice | None = None
    planner: PlanReads | None = None
    follows: FollowLinks | None = None
    idle_life: timedelta | None = None
    """How long a link lives whose tokens are not renewed; ``None`` where that is not known."""
    commands_advice: str | None = None
    """Where there are no commands: why, and what the owner can do instead."""
    images: ReadImages | None = None
    image_views: tuple[str, ...] = ()
    charges: ReadCharges | None = None
    tyres: ReadTyres | None = None
    charging_places: ReadChargingPlaces | None = None
    commands: SendCommands | None = None
    close: Callable[[], Awaitable[None]] = _nothing_to_close
    """Releases connections."""
