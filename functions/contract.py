"""The HTTP contract's shapes: what a request may hold, action by action, and what a reply looks like.

These models are the source of truth; :mod:`functions.openapi` describes them to the outside.
"""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

MAX_DEPTH = 32
MAX_WAIT_S = 55
MAX_BATCH = 20
MAX_KEY_LENGTH = 255
"""Of an Idempotency-Key."""
NOT_IN_BATCHES = frozenset({"batch", "connect", "image"})
"""A batch in a batch would have no bound, a login has a captcha of its own, and a picture is no JSON."""

ACCOUNT_PATTERN = r"^acc_[A-Za-z0-9]{22}$"
COMMAND_PATTERN = r"^cmd_[A-Za-z0-9]{22}_[A-Za-z0-9]{22}$"

RegionName = Literal["rest_of_world", "north_america", "china"]
Units = Literal["metric", "imperial"]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class _Strict(BaseModel):
    """Exact types, no unknown fields: a misspelt field must not be silently ignored before a car is unlocked."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class Envelope(_Strict):
    """One request."""

    action: str = Field("status", max_length=64, description="A name from the catalogue.")
    account: str | None = Field(None, pattern=ACCOUNT_PATTERN, description="Id of a linked account, from `connect`.")
    email: str | None = Field(
        None, min_length=3, max_length=254, repr=False, description="Login name at the maker, instead of `account`."
    )
    password: str | None = Field(None, min_length=1, max_length=256, repr=False, description="Goes with `email`.")
    hcaptcha: str | None = Field(
        None,
        min_length=1,
        max_length=8_192,
        pattern=r"^[!-~]+$",
        repr=False,
        description="A fresh hCaptcha token, needed where the maker has to log in anew.",
    )
    region: RegionName = Field("rest_of_world", description="Where the account was registered.")
    vin: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9]{17}$",
        validation_alias=AliasChoices("vin", "wkn"),
        description="Which vehicle (alias `wkn`); may be left out where the account has exactly one.",
    )
    params: dict[str, Any] = Field(default_factory=dict, description="The action's own parameters.")
    max_age_s: float | None = Field(None, ge=0, le=86_400, description="Oldest acceptable data, seconds.")
    fresh: bool = Field(False, description="Read from the maker now: `max_age_s` = 0.")
    cache_only: bool = Field(False, description="Never ask the maker.")
    units: Units = Field("metric", description="Units of quantities in the reply.")
    wait_s: float = Field(0, ge=0, le=MAX_WAIT_S, description="Commands: how long to wait for the outcome, seconds.")

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        if self.account is not None and self.email is not None:
            raise ValueError("name the account by `account` or by `email`, not by both")
        if (self.email is None) != (self.password is None):
            raise ValueError("`email` and `password` go together")
        if self.fresh and self.cache_only:
            raise ValueError("`fresh` and `cache_only` contradict each other")
        if self.fresh and self.max_age_s is not None:
            raise ValueError("`fresh` and `max_age_s` contradict each other")
        return self


class NoParams(_Strict):
    """An action without parameters."""


class ReadParams(_Strict):
    """What every read of a vehicle's state takes."""

    explain: bool = Field(
        False,
        description="Say where the answer would come from, what it would cost of the maker's quota, and why.",
    )


class ConnectParams(_Strict):
    """`connect`."""

    provider: Literal["mybmw", "cardata"] = Field(
        "mybmw", description="`mybmw` takes `email`, `password` and `hcaptcha`; `cardata` takes `client_id`."
    )
    client_id: str | None = Field(
        None,
        pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
        description="`cardata`: the owner's own client id, from BMW's CarData portal.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.client_id is not None) is not (self.provider == "cardata"):
            raise ValueError("`client_id` goes with `provider`: `cardata`, and with no other")
        return self


class ConnectStatusParams(_Strict):
    """`connect_status`."""

    connect_id: str | None = Field(
        None,
        pattern=r"^con_[A-Za-z0-9]{22}$",
        description="From `connect`, where the owner has to confirm a code; without it name the `account`.",
    )


class ImageParams(_Strict):
    """`image`."""

    view: Literal[
        "front_side", "front", "side", "dashboard", "driver_door", "front_left", "front_right", "rear_left",
        "rear_right", "rear", "angle_40", "angle_60",
    ] = Field("front_side", description="Where the camera stands.")  # fmt: skip


def _to_moment(given: object) -> datetime:
    try:
        moment = datetime.fromisoformat(given) if isinstance(given, str) else None
    except ValueError:
        moment = None
    # Near the calendar's ends a time cannot be moved to UTC.
    if moment is None or moment.tzinfo is None or not 2000 <= moment.year < 2100:
        raise ValueError("is no ISO 8601 time with its offset from UTC, of this century")
    return moment


Moment = Annotated[datetime, BeforeValidator(_to_moment)]
MAX_HISTORY_DAYS = 45


class ChargingHistoryParams(_Strict):
    """`charging_history`: a span of at most 45 days."""

    start: Moment | None = Field(
        None,
        alias="from",
        description="ISO 8601 with its offset, `2026-01-01T00:00:00Z`; 30 days before `to` if unsaid.",
    )
    end: Moment | None = Field(
        None, alias="to", description=f"The same, at most {MAX_HISTORY_DAYS} days after `from`; now if unsaid."
    )


class CommandParams(_Strict):
    """What every command takes."""

    dry_run: bool = Field(False, description="Say what would be sent and whether it could be; send nothing.")
    confirm: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9]{22}$",
        description="One-time code from a dry run, where the deployment demands one for this command.",
    )


class ChargingSettingsParams(CommandParams):
    """`charging_settings`: at least one of the two."""

    target_soc: int | None = Field(None, ge=20, le=100, multiple_of=5, description="Charge up to this, percent.")
    ac_limit: int | None = Field(None, ge=6, le=64, description="AC current limit, ampere; one of the car's own.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.target_soc is None and self.ac_limit is None:
            raise ValueError("give `target_soc`, `ac_limit` or both")
        return self


class ChargingProfileParams(CommandParams):
    """`charging_profile`: at least one of the two."""

    charging_mode: Literal["IMMEDIATE_CHARGING", "DELAYED_CHARGING"] | None = Field(
        None, description="Charge when plugged in, or in the car's charging window."
    )
    precondition_climate: bool | None = Field(None, description="Condition the cabin for the departure.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.charging_mode is None and self.precondition_climate is None:
            raise ValueError("give `charging_mode`, `precondition_climate` or both")
        return self


class SendPoiParams(CommandParams):
    """`send_poi`: a destination for the car's navigation."""

    latitude: float = Field(ge=-90, le=90, description="WGS 84, degrees.")
    longitude: float = Field(ge=-180, le=180, description="WGS 84, degrees.")
    name: Text | None = Field(None, description="What to call it.")
    street: Text | None = None
    postal_code: Text | None = None
    city: Text | None = None
    country: Text | None = None


class FindParams(CommandParams):
    """`find`: the maker tells the position only to somebody who says where he stands himself."""

    latitude: float | None = Field(None, ge=-90, le=90, description="Where the person stands, WGS 84, degrees.")
    longitude: float | None = Field(None, ge=-180, le=180, description="Where the person stands, WGS 84, degrees.")

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.latitude is None) != (self.longitude is None):
            raise ValueError("`latitude` and `longitude` go together")
        return self


class BatchPart(Envelope):
    """One request of a batch."""

    idempotency_key: str | None = Field(
        None,
        pattern=r"^[!-~]{1,255}$",
        description="Commands: this part's own key; by default the batch's, followed by the part's position.",
    )

    @field_validator("action")
    @classmethod
    def _has_a_place_here(cls, action: str) -> str:
        if action in NOT_IN_BATCHES:
            raise ValueError(f"a batch takes no `{action}`")
        return action


class BatchParams(_Strict):
    """`batch`."""

    requests: tuple[BatchPart, ...] = Field(
        min_length=1, max_length=MAX_BATCH, strict=False, description="Requests as they would be sent by themselves."
    )


class CommandStatusParams(_Strict):
    """`command_status`."""

    command_id: str = Field(pattern=COMMAND_PATTERN, description="From the command's reply.")


class Meta(BaseModel):
    """Where the data of a reply come from."""

    request_id: str
    provider: str | None
    cached: bool
    stale: bool
    fetched_at: datetime | None = Field(description="When it was read at the maker.")
    measured_at: datetime | None = Field(description="When the car measured it; null where the maker does not say.")
    age_s: float | None = Field(description="Seconds since `fetched_at`.")
    quota: dict[str, Any] | None = None


class Success(BaseModel):
    """Every reply with `success: true`, except `image`, which answers a PNG."""

    success: Literal[True]
    action: str
    brand: str | None
    vehicle_name: str | None
    vin: str | None
    result: dict[str, Any]
    timestamp: datetime
    environment: str
    meta: Meta


class ResolutionShape(BaseModel):
    """What a caller can do."""

    type: Literal["RETRY_LATER", "REAUTHENTICATE", "FIX_REQUEST", "CONTACT_SUPPORT"]


class ErrorBody(BaseModel):
    """What went wrong."""

    code: str
    type: str
    message: str
    details: dict[str, Any]
    resolution: ResolutionShape
    retryable: bool
    may_have_succeeded: bool
    retry_after: int | None
    request_id: str
    docs: str
    timestamp: datetime


class Failure(BaseModel):
    """Every reply with `success: false`."""

    success: Literal[False]
    error: ErrorBody


class CommandRecord(BaseModel):
    """The `result` of a command and of `command_status`."""

    operation: str
    status: Literal["success", "pending", "failed", "unknown"]
    state: Literal["accepted", "pending", "delivered", "executed", "confirmed", "failed", "unknown", "expired"]
    command_id: str
    confirmed_by: Literal["telemetry"] | None
    confirmed_after_s: float | None
    sent_at: datetime | None
    updated_at: datetime
    may_have_succeeded: bool
    deduplicated: bool
    note: str | None
    position: dict[str, Any] | None = None
