"""How a measured service is set up."""

from bench.contestants import UNREFUSED, raised_limits
from common.settings import Settings, load
from functions.limits import LimitPolicy


def test_raised_limits_keep_every_window_and_refuse_nothing() -> None:
    settings = load(raised_limits())
    names = [name for name in Settings.model_fields if name.startswith("limit_")]
    assert {name.removeprefix("limit_") for name in names} == set(LimitPolicy.__dataclass_fields__)
    for name in names:
        default: str = Settings.model_fields[name].default
        raised: str = getattr(settings, name)
        windows = [part.split("/")[1] for part in default.split(";")]
        assert raised == ";".join(f"{UNREFUSED}/{window}" for window in windows)
