"""What a deployment can set, read once from the environment and never at import.

A staging entry point may run beside a production one in the same environment: for it, ``STAGING_X`` is read before
``X``, and what leads to what is stored has to be its own. Unknown variables are ignored; a bad value stops the service
from starting, with the variable's name and without its value.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

VERSION = "0.1.0"

Environment = Literal["development", "staging", "production"]
_STAGING_PREFIX = "STAGING_"
_NEVER_SHARED = ("documents_url", "keys_url", "token_keys", "audit_key")
"""A rehearsal that renews production's tokens ends its links; one that has its keys can read what it stores."""


class Settings(BaseSettings):
    """Every setting; the variable's name is the field's in upper case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, allow_inf_nan=False)

    environment: Environment = Field("production", description="Shown in replies, logs and health.")
    callers: Annotated[tuple[Literal["api_keys", "oidc", "open"], ...], NoDecode] = Field(
        (),
        description="Who may call, comma-separated: `api_keys` (made by `python -m ops.keys new`), `oidc` (ID "
        "tokens of `OIDC_ISSUERS`). Empty denies everybody. `open` treats whoever reaches the port as the one caller "
        "there is, and is refused outside `development`.",
    )
    oidc_issuers: str | None = Field(
        None,
        description='Whose ID tokens are accepted, JSON: `[{"issuer", "audience": [...], "jwks_uri"?, "scopes"?: '
        '["read"], "scope_claim"?}]`, or `{"firebase": "project-id", "scopes": [...]}` for Firebase.',
    )
    providers: Annotated[tuple[str, ...], NoDecode] = Field(
        ("mybmw", "cardata"), description="Car makers' APIs to offer, comma-separated: `mybmw`, `cardata`."
    )
    documents_url: str = Field(
        "sqlite:///draiv.db",
        description="Where links, tokens and commands are kept: `sqlite:///relative/path.db`, "
        "`sqlite:////absolute/path.db` or `gs://bucket/prefix`.",
    )
    keys_url: str | None = Field(
        None,
        description="Where the accounts' wrapped data keys are kept, in the form of `DOCUMENTS_URL`: a place without "
        "versions, soft deletion or backups, so that a deleted key stays deleted. Default: a file beside a SQLite "
        "`DOCUMENTS_URL`; must be given where that is a bucket.",
    )
    token_keys: str | None = Field(
        None,
        repr=False,
        description="Master keys, under which everything stored is sealed: `id:base64[,id:base64...]` of 32 bytes "
        "each, made by `python -m ops.keys master`. The first one seals, the others only open. Must be set where "
        "anybody may call.",
    )
    kms_key: str | None = Field(
        None,
        description="Cloud KMS key that wraps the accounts' data keys, which `TOKEN_KEYS` does otherwise: "
        "`projects/P/locations/L/keyRings/R/cryptoKeys/K`.",
    )
    kms_endpoint: str | None = Field(None, description="Another KMS endpoint than Google's own, for an emulator.")
    redis_url: str | None = Field(
        None,
        repr=False,
        description="Redis or Valkey that the instances share for what is short-lived: `redis://host:port/0`. Without "
        "it each instance keeps its own.",
    )
    gcs_endpoint: str | None = Field(
        None, description="Another Cloud Storage endpoint than Google's own, for an emulator."
    )
    mybmw_origin: str | None = Field(
        None, description="Send all MyBMW traffic to this origin instead of BMW's servers, for the sandbox."
    )
    cardata_auth_origin: str | None = Field(
        None, description="Send CarData's logins to this origin instead of BMW's, for the sandbox."
    )
    cardata_api_origin: str | None = Field(
        None, description="Send CarData's requests to this origin instead of BMW's, for the sandbox."
    )
    cardata_stream_url: str | None = Field(
        None,
        description="Read CarData's stream from here instead of BMW's broker: `mqtts://host:port`, for the sandbox.",
    )
    cardata_ca_file: str | None = Field(
        None, description="Certificate authority of the stream's broker, PEM, where it is not a public one."
    )
    read_ttl_s: float = Field(300, gt=0, description="How long a vehicle's snapshot is served from the cache, seconds.")
    session_ttl_s: float = Field(
        86_400, gt=0, description="How long a verified login and a maker's session are kept in memory, seconds."
    )
    vehicle_list_ttl_s: float = Field(
        86_400, gt=0, description="How long the list of an account's vehicles is trusted, seconds."
    )
    stale_if_error_s: float = Field(
        3_600, ge=0, description="How long past its time a snapshot may be served, marked stale, while the maker fails."
    )
    cache_max_bytes: int = Field(64 * 2**20, gt=0, description="Budget of the in-memory cache, bytes.")
    breaker_failure_threshold: int = Field(5, gt=0, description="Consecutive failures that open a circuit.")
    breaker_recovery_timeout_s: float = Field(60, gt=0, description="How long a circuit stays open at first, seconds.")
    upstream_timeout_s: float = Field(
        10, gt=0, description="Longest wait for one answer of a maker, seconds; 25 where it brings new tokens."
    )
    read_deadline_s: float = Field(20, gt=0, description="Longest a read may take in all, retries included, seconds.")
    login_deadline_s: float = Field(45, gt=0, description="Longest a login at the maker may take, seconds.")
    read_attempts: int = Field(
        3, gt=0, le=10, description="How often a failing read is tried, the first time included."
    )
    command_ttl_s: float = Field(
        30, gt=0, le=30, description="Nothing of a command is sent later than this after its request came, seconds."
    )
    poll_interval_s: float = Field(2, gt=0, description="Pause between two questions for a command's outcome, seconds.")
    confirm_window_s: float = Field(
        60,
        ge=0,
        description="How long after its execution a command's effect is looked for in the car's data, seconds.",
    )
    threads: int | None = Field(
        None,
        gt=0,
        description="Threads that serve requests. The server itself reads it, too, and without it starts four a "
        "processor.",
    )
    max_waiters: int | None = Field(
        None,
        ge=0,
        description="Most requests of an instance that may wait for a command's outcome (`wait_s`) at a time, half of "
        "them one caller's; others are answered at once. Default: half of the threads.",
    )
    require_idempotency_key: bool = Field(False, description="Refuse commands that come without an Idempotency-Key.")
    confirm_commands: Annotated[tuple[Literal["unlock", "horn"], ...], NoDecode] = Field(
        (), description="Commands that need a one-time code from a dry run, comma-separated: `unlock`, `horn`."
    )
    command_caps: Annotated[Mapping[Literal["unlock", "horn"], Annotated[int, Field(ge=0)]], NoDecode] = Field(
        default_factory=dict, description="Most commands an hour and vehicle: `unlock=5,horn=3`; no cap by default."
    )
    limit_caller_read: str = Field(
        "600/minute;10000/hour", description="Reads of one caller, in the notation of `limits`; empty for no limit."
    )
    limit_caller_command: str = Field("30/minute;300/hour", description="Commands of one caller.")
    limit_caller_account: str = Field("30/minute", description="A caller's requests to link, list and end accounts.")
    limit_caller_service: str = Field(
        "120/minute", description="A caller's batches, questions about the service, and requests that name no action."
    )
    limit_account_read: str = Field("300/minute", description="Reads of one linked account.")
    limit_account_command: str = Field("20/minute;120/hour", description="Commands of one linked account.")
    limit_account_account: str = Field("30/minute", description="Questions about one linked account, and its end.")
    limit_login_caller: str = Field(
        "30/minute;600/hour", description="Logins of one caller that need a password verified or the maker asked."
    )
    limit_login_identity: str = Field(
        "10/minute;30/hour", description="The same for one maker's account of one caller."
    )
    limit_vehicle_fresh: str = Field(
        "12/hour",
        description="Reads of one vehicle that a caller forces (`fresh`, or a `max_age_s` below `READ_TTL_S`): each "
        "can wake the car and drain its 12 V battery. As many lists of one account's vehicles.",
    )
    max_body_bytes: int = Field(16_384, gt=0, le=65_536, description="Largest request body accepted.")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins whose pages may call from a browser, comma-separated; none by default."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe event to log.")
    log_key: str | None = Field(
        None,
        description="Key under which VINs and callers are hashed in logs; without it each process makes its own, and "
        "the hashes of two instances differ.",
    )
    audit_key: str | None = Field(
        None,
        min_length=32,
        repr=False,
        description="Key of the audit trail, at least 32 characters, used for nothing else and kept apart from the "
        "store: seals each entry and hashes whom it names. Without it whoever can write to the store can rewrite the "
        "trail unseen.",
    )
    otel_exporter_otlp_endpoint: str | None = Field(
        None, description="Where spans are sent, OTLP over HTTP: `http://host:4318`. Without it none are made."
    )
    google_cloud_project: str | None = Field(None, description="Project id, for trace links in logs.")
    k_revision: str = Field("local", description="Set by Cloud Run: the revision's name.")

    @model_validator(mode="after")
    def _open_only_at_home(self) -> Self:
        if "open" in self.callers and (self.environment != "development" or len(self.callers) > 1):
            raise ValueError("CALLERS: `open` stands alone, and only with ENVIRONMENT=development")
        if "oidc" in self.callers and not self.oidc_issuers:
            raise ValueError("CALLERS: `oidc` needs OIDC_ISSUERS")
        if self.callers and not self.token_keys:
            raise ValueError("TOKEN_KEYS: must be set, see `python -m ops.keys master`")
        return self

    @field_validator("callers", "providers", "cors_origins", "confirm_commands", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over whatever was set
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("command_caps", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over whatever was set
        if not isinstance(value, str):
            return value
        return {name.strip(): cap.strip() for name, _, cap in (p.partition("=") for p in value.split(",") if p.strip())}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what :func:`load` passes in: the environment is read in one place."""
        return (init_settings,)


class SettingsError(Exception):
    """The environment holds a value that cannot be used. Names variables, never values."""


def load(environ: Mapping[str, str], environment: Environment | None = None) -> Settings:
    """Settings from ``environ``; ``environment`` overrides ``ENVIRONMENT`` and, for staging, prefers ``STAGING_*``.

    Raises SettingsError, also where staging would use the store or the keys of another environment's entry point.
    """
    chosen = environment or environ.get("ENVIRONMENT")
    variables = {name: name.upper() for name in Settings.model_fields}
    if chosen == "staging":
        prefixed = {name: _STAGING_PREFIX + variable for name, variable in variables.items() if name != "environment"}
        variables.update({name: variable for name, variable in prefixed.items() if variable in environ})
    values: dict[str, Any] = {name: environ[variable] for name, variable in variables.items() if variable in environ}
    if chosen is not None:
        values["environment"] = chosen
    try:
        settings = Settings(**values)
    except ValidationError as bad:
        problems = "; ".join(
            f"{variables[str(error['loc'][0])]}: {error['msg']}" if error["loc"] else error["msg"]
            for error in bad.errors()
        )
        raise SettingsError(problems) from None
    if chosen == "staging" and environ.get("ENVIRONMENT") != "staging" and settings.callers:
        # Nobody is let in without callers, and the default place is everybody's.
        shared = [
            variables[name].upper()
            for name in _NEVER_SHARED
            if variables[name] == name.upper() and (name == "documents_url" or environ.get(name.upper()))
        ]
        if shared:
            needed = ", ".join(_STAGING_PREFIX + variable for variable in shared)
            raise SettingsError(f"{needed}: staging must not share these with another environment, so set its own")
    return settings
