"""What a deployment can set, read once from the environment and never at import.

A staging entry point may run beside a production one in the same environment: for it, ``STAGING_X`` is read before
``X``. Unknown variables are ignored; a bad value stops the service from starting, with the variable's name and without
its value.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

VERSION = "0.1.0"

Environment = Literal["development", "staging", "production"]
_STAGING_PREFIX = "STAGING_"


class Settings(BaseSettings):
    """Every setting; the variable's name is the field's in upper case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, allow_inf_nan=False)

    environment: Environment = Field("production", description="Shown in replies, logs and health.")
    callers: Literal["", "open"] = Field(
        "",
        description="Who may call. Empty denies everybody. `open` treats whoever reaches the port as the one caller "
        "there is: for a laptop, or behind IAM that lets only your own backend in.",
    )
    providers: Annotated[tuple[str, ...], NoDecode] = Field(
        ("mybmw",), description="Car makers' APIs to offer, comma-separated."
    )
    documents_url: str = Field(
        "sqlite:///draiv.db",
        description="Where links, tokens and commands are kept: `sqlite:///relative/path.db`, "
        "`sqlite:////absolute/path.db` or `gs://bucket/prefix`.",
    )
    gcs_endpoint: str | None = Field(
        None, description="Another Cloud Storage endpoint than Google's own, for an emulator."
    )
    mybmw_origin: str | None = Field(
        None, description="Send all MyBMW traffic to this origin instead of BMW's servers, for the sandbox."
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
    upstream_timeout_s: float = Field(10, gt=0, description="Longest wait for one answer of a maker, seconds.")
    read_deadline_s: float = Field(20, gt=0, description="Longest a read may take in all, retries included, seconds.")
    login_deadline_s: float = Field(45, gt=0, description="Longest a login at the maker may take, seconds.")
    read_attempts: int = Field(
        3, gt=0, le=10, description="How often a failing read is tried, the first time included."
    )
    command_ttl_s: float = Field(
        30, gt=0, le=30, description="Nothing of a command is sent later than this after it was accepted, seconds."
    )
    poll_interval_s: float = Field(2, gt=0, description="Pause between two questions for a command's outcome, seconds.")
    confirm_window_s: float = Field(
        60,
        ge=0,
        description="How long after its execution a command's effect is looked for in the car's data, seconds.",
    )
    require_idempotency_key: bool = Field(False, description="Refuse commands that come without an Idempotency-Key.")
    confirm_commands: Annotated[tuple[Literal["unlock", "horn"], ...], NoDecode] = Field(
        (), description="Commands that need a one-time code from a dry run, comma-separated: `unlock`, `horn`."
    )
    command_caps: Annotated[Mapping[Literal["unlock", "horn"], Annotated[int, Field(ge=0)]], NoDecode] = Field(
        default_factory=dict, description="Most commands an hour and vehicle: `unlock=5,horn=3`; no cap by default."
    )
    max_body_bytes: int = Field(16_384, gt=0, description="Largest request body accepted.")
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
    google_cloud_project: str | None = Field(None, description="Project id, for trace links in logs.")
    k_revision: str = Field("local", description="Set by Cloud Run: the revision's name.")

    @field_validator("providers", "cors_origins", "confirm_commands", mode="before")
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

    Raises SettingsError.
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
        return Settings(**values)
    except ValidationError as bad:
        problems = "; ".join(f"{variables[str(error['loc'][0])]}: {error['msg']}" for error in bad.errors())
        raise SettingsError(problems) from None
