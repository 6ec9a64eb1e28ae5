"""The accounts that exist, and what each of them owns. README.md has the table for people."""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sandbox.mybmw_cars import Car
from sandbox.mybmw_documents import Recording, recordings

PASSWORD: Final = "demo-password"

_NAMESPACE: Final = uuid.UUID("6c1c0c39-4dfb-4a55-9d0a-9a1f2f1ae0d5")
_ONE: Final = "WBA00000000DEMO01"
_MINI_TWIN: Final = "WBA00000000DEMO02"


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody with a MyBMW login: an email, or in China a mobile number."""

    username: str
    cars: dict[str, Car] = field(repr=False)

    @property
    def gcid(self) -> str:
        """BMW's name for the customer; the same after every restart of the sandbox."""
        return str(uuid.uuid5(_NAMESPACE, self.username))


def _everything() -> list[Car]:
    return [Car(recording) for recording in recordings().values()]


def _one() -> list[Car]:
    return [Car(recordings()[_ONE])]


def _mini() -> list[Car]:
    twin = recordings()[_MINI_TWIN]
    car = Car(Recording("WMW00000000DEMO01", "mini", twin.mapping, twin.documents))
    car.patch({"profile": {"brand": "MINI", "model": "Cooper SE"}})
    return [car]


def _fleet(size: int) -> list[Car]:
    originals = sorted(recordings().values(), key=lambda recording: recording.vin != _ONE)
    return [Car(originals[n % len(originals)], f"WBA00000000D{n + 1:05d}") for n in range(size)]


_NAMED: Final[dict[str, Callable[[], list[Car]]]] = {
    "demo@example.com": _everything,
    "one@example.com": _one,
    "empty@example.com": list,
    "mini@example.com": _mini,
    "wrong-password@example.com": _one,
    "captcha@example.com": _one,
    "blocked@example.com": _one,
    "quota@example.com": _one,
    "slow@example.com": _one,
    "down@example.com": _one,
}
_USER: Final = re.compile(r"user-\d{1,9}@example\.com")
_FLEET: Final = re.compile(r"fleet-(\d{1,5})@example\.com")
_CHINESE_MOBILE: Final = re.compile(r"86138\d{8}")


def owned_cars(username: str) -> list[Car] | None:
    """Fresh cars of that account; None where there is no such account."""
    if username in _NAMED:
        return _NAMED[username]()
    if _USER.fullmatch(username) or _CHINESE_MOBILE.fullmatch(username):
        return _everything()
    if fleet := _FLEET.fullmatch(username):
        return _fleet(int(fleet[1]))
    return None


class Accounts:
    """The accounts that somebody has asked for, each with its own cars."""

    def __init__(self) -> None:
        self._known: dict[str, Account] = {}

    def find(self, username: str) -> Account | None:
        """The account of that name in any spelling; None where there is none."""
        name = username.strip().lower()
        account = self._known.get(name)
        if account is None and (cars := owned_cars(name)) is not None:
            account = self._known[name] = Account(name, {car.vin: car for car in cars})
        return account

    def car(self, username: str, vin: str) -> Car | None:
        """A car by its account and VIN."""
        account = self.find(username)
        return account.cars.get(vin) if account else None


def password_is_right(username: str, password: str) -> bool:
    """Whether the password opens the account."""
    return password == PASSWORD and username != "wrong-password@example.com"
