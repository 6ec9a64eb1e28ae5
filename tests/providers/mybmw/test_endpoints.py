"""What a path is called in metrics, and which requests command a car."""

import pytest

from functions.providers.mybmw.endpoints import is_command, template

VRCCS = "/eadrax-vrccs/v4/presentation/remote-commands"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/eadrax-vcs/v4/vehicles/state", "/eadrax-vcs/vehicles/state"),
        ("/eadrax-vcs/v5/vehicle-list", "/eadrax-vcs/vehicle-list"),
        ("/eadrax-crccs/v2/vehicles", "/eadrax-crccs/vehicles"),
        ("/eadrax-crccs/v1/vehicles/WBA00000000DEMO01/start-charging", "/eadrax-crccs/vehicles/{vin}/start-charging"),
        ("/eadrax-dcs/v2/user/0a1b-2c/send-to-car", "/eadrax-dcs/user/{gcid}/send-to-car"),
        (f"{VRCCS}/door-unlock", "/eadrax-vrccs/door-unlock"),
        ("/eadrax-vrccs/v3/presentation/remote-commands/eventStatus", "/eadrax-vrccs/eventStatus"),
        ("/eadrax-ics/v5/presentation/vehicles/images", "/eadrax-ics/vehicles/images"),
        ("/eadrax-ucs/v1/presentation/oauth/config", "/eadrax-ucs/oauth/config"),
        ("/eadrax-coas/v2/login/pwd", "/eadrax-coas/login/pwd"),
        ("/gcdm/oauth/token", "/gcdm/oauth/token"),
        ("/something/WBA00000000DEMO01", "other"),
        ("/eadrax-vcs/v9/WBA00000000DEMO01/state", "other"),
    ],
)
def test_a_label_carries_neither_versions_nor_vins_nor_ids(path: str, name: str) -> None:
    assert template(path) == name


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{VRCCS}/door-unlock"),
        ("POST", f"{VRCCS}/climate-now"),
        ("POST", "/eadrax-vrccs/v5/presentation/remote-commands/door-unlock"),
        ("POST", "/eadrax-crccs/v1/vehicles/WBA00000000DEMO01/charging-settings"),
        ("POST", "/eadrax-dcs/v2/user/0a1b/send-to-car"),
        ("PUT", "/eadrax-crccs/v1/vehicles/WBA00000000DEMO01/charging-profile"),
        ("POST", "/eadrax-new/v1/anything"),
        ("POST", "//eadrax-vrccs/v4/presentation/remote-commands/door-unlock"),
        ("POST", f"{VRCCS}/eventPosition/../door-unlock"),
    ],
)
def test_whatever_is_not_known_to_ask_is_a_command(method: str, path: str) -> None:
    assert is_command(method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/eadrax-vcs/v4/vehicles/state"),
        ("GET", "/eadrax-crccs/v2/vehicles"),
        ("POST", "/eadrax-vcs/v5/vehicle-list"),
        ("POST", "/eadrax-vrccs/v3/presentation/remote-commands/eventStatus"),
        ("POST", f"{VRCCS}/eventPosition"),
        ("POST", "/eadrax-coas/v2/login/pwd"),
        ("POST", "/gcdm/oauth/token"),
    ],
)
def test_reads_polls_and_logins_are_no_commands(method: str, path: str) -> None:
    assert not is_command(method, path)
