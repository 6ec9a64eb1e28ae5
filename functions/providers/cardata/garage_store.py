"""What rarely changes, kept for days because each look costs one of the day's requests: cars, master data, pictures."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from common.stores.documents import Body, DocumentExists, Documents, update
from functions.providers.cardata.names import vin_digest

LISTED_FOR: Final = timedelta(days=7)
EMPTY_FOR: Final = timedelta(minutes=30)
"""A list without a car: the owner may be about to map one."""
PROFILED_FOR: Final = timedelta(days=30)
UNPROFILED_FOR: Final = timedelta(days=1)
"""For a car of which BMW refuses the master data: each look is charged all the same."""
PICTURED_FOR: Final = timedelta(days=30)
_MAX_PICTURE_BYTES: Final = 600_000
"""In base64 it must fit a document."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A car's master data and when BMW gave them."""

    data: Mapping[str, Any]
    at: datetime


@dataclass(frozen=True, slots=True)
class Garage:
    """A customer's cars, as far as BMW has told."""

    vins: tuple[str, ...] = ()
    listed_at: datetime | None = None
    profiles: Mapping[str, Profile] = field(default_factory=dict)

    def is_listed(self, now: datetime) -> bool:
        """Whether the list of cars is still trusted."""
        return self.listed_at is not None and now < self.listed_at + (LISTED_FOR if self.vins else EMPTY_FOR)

    def is_profiled(self, vin: str, now: datetime) -> bool:
        """Whether a car's master data are still trusted."""
        profile = self.profiles.get(vin)
        return profile is not None and now < profile.at + (PROFILED_FOR if profile.data else UNPROFILED_FOR)


class GarageBook:
    """Garages and pictures, under ``cardata/<account id>/``."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def load(self, account_id: str) -> Garage:
        """What is known; nothing of an account that was never asked about."""
        document = await self._documents.get(f"cardata/{account_id}/garage")
        if document is None:
            return Garage()
        body = document.body
        return Garage(
            tuple(body["vins"]),
            datetime.fromisoformat(body["listed_at"]) if body["listed_at"] else None,
            {
                vin: Profile(profile["data"], datetime.fromisoformat(profile["at"]))
                for vin, profile in body["profiles"].items()
            },
        )

    async def save(self, account_id: str, garage: Garage) -> None:
        """Keep it; of two at once either one is right."""
        listed_at = garage.listed_at
        await self._put(
            f"cardata/{account_id}/garage",
            {
                "vins": list(garage.vins),
                "listed_at": listed_at.isoformat() if listed_at else None,
                "profiles": {
                    vin: {"data": dict(profile.data), "at": profile.at.isoformat()}
                    for vin, profile in garage.profiles.items()
                },
            },
        )

    async def outdate(self, account_id: str) -> None:
        """The account is linked anew: what BMW listed, or would not tell, may have changed."""
        garage = await self.load(account_id)
        if garage != Garage():
            told = {vin: profile for vin, profile in garage.profiles.items() if profile.data}
            await self.save(account_id, Garage(garage.vins, None, told))

    async def picture(self, account_id: str, vin: str, now: datetime) -> bytes | None:
        """A picture that is not too old; an empty one where BMW had none."""
        document = await self._documents.get(f"cardata/{account_id}/picture-{vin_digest(account_id, vin)}")
        if document is None or now >= datetime.fromisoformat(document.body["at"]) + PICTURED_FOR:
            return None
        return base64.b64decode(document.body["png"])

    async def save_picture(self, account_id: str, vin: str, png: bytes, now: datetime) -> None:
        """Keep a picture, unless it is too large."""
        if len(png) <= _MAX_PICTURE_BYTES:
            body = {"png": base64.b64encode(png).decode(), "at": now.isoformat()}
            await self._put(f"cardata/{account_id}/picture-{vin_digest(account_id, vin)}", body)

    async def _put(self, key: str, body: Body) -> None:
        while await update(self._documents, key, lambda _old: body) is None:
            try:
                await self._documents.create(key, body)
            except DocumentExists:
                continue
            return
