"""What a deployment can set."""

import os

import pytest

from common.settings import Settings, SettingsError, load

SECRET = "planted-value-9Kd"


def test_an_empty_environment_is_a_closed_production_service() -> None:
    settings = load({})
    assert (settings.environment, settings.callers, settings.providers) == ("production", (), ("mybmw", "cardata"))
    assert settings.cors_origins == ()
    assert settings == Settings()


def test_a_variable_is_the_fields_name_in_upper_case() -> None:
    settings = load(
        {"READ_TTL_S": "12.5", "CALLERS": "api_keys", "read_ttl_s": "1", "LOG_KEY": SECRET, "TOKEN_KEYS": "k"}
    )
    assert (settings.read_ttl_s, settings.callers, settings.log_key) == (12.5, ("api_keys",), SECRET)


def test_unknown_variables_are_ignored() -> None:
    assert load({"PATH": "x", "NO_SUCH_SETTING": "y", "STAGING_NO_SUCH_SETTING": "z"}) == Settings()


def test_lists_are_split_at_commas_and_trimmed() -> None:
    settings = load({"PROVIDERS": " mybmw , cardata,,", "CORS_ORIGINS": "https://a.example"})
    assert settings.providers == ("mybmw", "cardata")
    assert settings.cors_origins == ("https://a.example",)
    assert load({"CORS_ORIGINS": ""}).cors_origins == ()
    assert Settings(providers=("mybmw",)).providers == ("mybmw",)


def test_nought_is_allowed_where_it_means_never() -> None:
    settings = load({"STALE_IF_ERROR_S": "0", "CONFIRM_WINDOW_S": "0", "COMMAND_TTL_S": "30", "READ_ATTEMPTS": "10"})
    assert (settings.stale_if_error_s, settings.confirm_window_s) == (0, 0)


def test_caps_are_pairs() -> None:
    settings = load({"COMMAND_CAPS": " unlock=5, horn = 0 ,", "CONFIRM_COMMANDS": "unlock"})
    assert (dict(settings.command_caps), settings.confirm_commands) == ({"unlock": 5, "horn": 0}, ("unlock",))
    assert Settings(command_caps={"unlock": 1}).command_caps == {"unlock": 1}
    assert load({"COMMAND_CAPS": ""}).command_caps == {}


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().read_ttl_s = 1  # type: ignore[misc]  # that is the point


def test_building_settings_reads_no_environment() -> None:
    os.environ["READ_TTL_S"] = "7"
    try:
        assert Settings().read_ttl_s == 300
    finally:
        del os.environ["READ_TTL_S"]


@pytest.mark.parametrize("how", [{"environ": {"ENVIRONMENT": "staging"}}, {"environment": "staging", "environ": {}}])
def test_staging_reads_its_own_variables_first(how: dict[str, object]) -> None:
    own = {"READ_TTL_S": "1", "STAGING_READ_TTL_S": "2", "COMMAND_TTL_S": "3", "STAGING_LOG_KEY": "own"}
    environ = {**own, **how["environ"]}  # type: ignore[dict-item]  # one of the two above
    settings = load(environ, how.get("environment"))  # type: ignore[arg-type]  # one of the two above
    assert settings.environment == "staging"
    assert (settings.read_ttl_s, settings.command_ttl_s, settings.log_key) == (2, 3, "own")


PRODUCTION = {
    "CALLERS": "api_keys",
    "DOCUMENTS_URL": "gs://production/p",
    "KEYS_URL": "gs://production-keys",
    "TOKEN_KEYS": "production",
    "AUDIT_KEY": "production" * 4,
}
OWN = {
    "STAGING_DOCUMENTS_URL": "gs://staging/p",
    "STAGING_KEYS_URL": "gs://staging-keys",
    "STAGING_TOKEN_KEYS": "staging",
    "STAGING_AUDIT_KEY": "staging" * 5,
}


@pytest.mark.parametrize("around", [{}, {"ENVIRONMENT": "production"}, {"ENVIRONMENT": "development"}])
@pytest.mark.parametrize("missing", sorted(OWN))
def test_staging_beside_another_entry_point_shares_neither_store_nor_keys_with_it(
    around: dict[str, str], missing: str
) -> None:
    own = {name: value for name, value in OWN.items() if name != missing}
    with pytest.raises(SettingsError, match=rf"^{missing}: ") as refused:
        load({**PRODUCTION, **own, **around}, "staging")
    assert "gs://" not in str(refused.value)
    settings = load({**PRODUCTION, **OWN, **around}, "staging")
    assert (settings.documents_url, settings.keys_url) == ("gs://staging/p", "gs://staging-keys")
    assert (settings.token_keys, settings.audit_key) == ("staging", "staging" * 5)


def test_staging_needs_a_store_of_its_own_even_where_nobody_names_one() -> None:
    environ = {"STAGING_CALLERS": "api_keys", "STAGING_TOKEN_KEYS": "staging"}
    with pytest.raises(SettingsError, match=r"^STAGING_DOCUMENTS_URL: "):
        load(environ, "staging")
    assert load({**environ, "STAGING_DOCUMENTS_URL": "sqlite:///staging.db"}, "staging").audit_key is None


def test_an_environment_that_is_staging_needs_no_prefixes() -> None:
    assert load({**PRODUCTION, "ENVIRONMENT": "staging"}, "staging").documents_url == "gs://production/p"
    assert load({**PRODUCTION, "ENVIRONMENT": "staging"}).documents_url == "gs://production/p"


def test_production_never_reads_stagings_variables() -> None:
    settings = load({"STAGING_READ_TTL_S": "2", "STAGING_CALLERS": "open", "STAGING_ENVIRONMENT": "staging"})
    assert settings == Settings()


def test_the_entry_points_environment_stands_whatever_the_variables_say() -> None:
    environ = {"ENVIRONMENT": "production", "STAGING_ENVIRONMENT": "production"}
    assert load(environ, "staging").environment == "staging"
    assert load({"ENVIRONMENT": "staging"}, "production").environment == "production"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("READ_TTL_S", SECRET),
        ("READ_TTL_S", ""),
        ("READ_TTL_S", "0"),
        ("READ_TTL_S", "-1"),
        ("READ_TTL_S", "nan"),
        ("CONFIRM_WINDOW_S", "inf"),
        ("READ_ATTEMPTS", "2.5"),
        ("READ_ATTEMPTS", "11"),
        ("COMMAND_TTL_S", "31"),
        ("CALLERS", SECRET),
        ("CALLERS", "OPEN"),
        ("ENVIRONMENT", SECRET),
        ("ENVIRONMENT", ""),
        ("LOG_LEVEL", "TRACE"),
        ("MAX_BODY_BYTES", "1e400"),
        ("CACHE_MAX_BYTES", "0"),
        ("COMMAND_CAPS", "unlock"),
        ("COMMAND_CAPS", "unlock=-1"),
        ("COMMAND_CAPS", f"unlock={SECRET}"),
        ("COMMAND_CAPS", f"{SECRET}=1"),
        ("CONFIRM_COMMANDS", f"unlock,{SECRET}"),
        ("REQUIRE_IDEMPOTENCY_KEY", SECRET),
    ],
)
def test_a_bad_value_stops_the_service_and_only_its_variable_is_named(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as stopped:
        load({variable: value, "LOG_KEY": SECRET})
    assert str(stopped.value).startswith(f"{variable}: ")
    assert SECRET not in str(stopped.value)
    assert stopped.value.__cause__ is None
    assert stopped.value.__suppress_context__


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_whoever_reaches_the_port_is_let_in_on_a_laptop_only(environment: str) -> None:
    at_home = {"CALLERS": "open", "ENVIRONMENT": "development", "TOKEN_KEYS": SECRET}
    assert load(at_home).callers == ("open",)
    for environ in ({"ENVIRONMENT": environment}, {}):
        with pytest.raises(SettingsError, match="CALLERS"):
            load({"CALLERS": "open", "TOKEN_KEYS": SECRET, **environ})
    with pytest.raises(SettingsError, match="CALLERS"):
        load({**at_home, "CALLERS": "open,api_keys"})


def test_what_contradicts_itself_is_refused_without_its_value() -> None:
    for environ in ({"CALLERS": "oidc", "TOKEN_KEYS": SECRET}, {"CALLERS": "api_keys", "KMS_KEY": SECRET}):
        with pytest.raises(SettingsError, match=r"CALLERS|TOKEN_KEYS") as stopped:
            load(environ)
        assert SECRET not in str(stopped.value)
    both = load({"CALLERS": "oidc,api_keys", "OIDC_ISSUERS": "[]", "TOKEN_KEYS": SECRET})
    assert both.callers == ("oidc", "api_keys")
    assert SECRET not in repr(both)


def test_every_bad_variable_is_named_at_once() -> None:
    with pytest.raises(SettingsError, match=r"READ_TTL_S: .*; CALLERS: |CALLERS: .*; READ_TTL_S: "):
        load({"READ_TTL_S": "x", "CALLERS": "x"})


def test_a_bad_value_of_stagings_own_variable_is_blamed_on_that() -> None:
    with pytest.raises(SettingsError, match=r"^STAGING_READ_TTL_S: "):
        load({"READ_TTL_S": "1", "STAGING_READ_TTL_S": SECRET}, "staging")


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_setting_is_described(name: str) -> None:
    described = Settings.model_fields[name].description
    assert described is not None
    assert described.endswith(".")
