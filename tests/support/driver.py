"""Somebody with a linked account and one car, who sends it commands."""

from typing import Any

import pytest

from common.errors import ApiError
from functions.command_record import Record, from_body
from functions.commands import Sent
from functions.links import Link
from functions.providers.port import Command, CommandName, Vehicle
from tests.support.world import World


class Driver:
    """Somebody with one car, who sends it commands through one instance."""

    def __init__(self, world: World, link: Link, vehicle: Vehicle) -> None:
        self.world = world
        self.link = link
        self.vehicle = vehicle

    async def send(
        self, name: str = "lock", params: dict[str, Any] | None = None, *, wait_s: float = 0, key: str | None = None
    ) -> Record:
        return (await self.request(name, params, wait_s=wait_s, key=key)).record

    async def request(
        self,
        name: str = "lock",
        params: dict[str, Any] | None = None,
        *,
        wait_s: float = 0,
        key: str | None = None,
        code: str | None = None,
    ) -> Sent:
        command = Command(CommandName(name), params or {})
        return await self.world.commands.send(self.link, self.vehicle, command, wait_s=wait_s, key=key, code=code)

    async def status(self, record: Record, wait_s: float = 0) -> Record:
        found = await self.world.commands.find(self.link.principal, record.id)
        return await self.world.commands.status(self.link, self.vehicle, found, wait_s)

    async def stored(self) -> list[Record]:
        """Every record in the store."""
        documents = [await self.world.documents.get(key) for key in await self.world.documents.list("commands")]
        return [from_body(document.body) for document in documents if document is not None]

    async def failing(self, raised: type[ApiError], **how: Any) -> tuple[ApiError, Record]:
        """The error of a command that fails to be sent, and its record."""
        with pytest.raises(raised) as failed:
            await self.request(**how)
        (record,) = await self.stored()
        assert failed.value.details["command_id"] == record.id
        return failed.value, record


async def drive(world: World) -> Driver:
    link = await world.placed()
    return Driver(world, link, await world.vehicles.find(link, None))
