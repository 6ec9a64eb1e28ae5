"""One request, one command: the caller's Idempotency-Key, and the short memory for those who send none.

A key is the caller's, whatever he uses it for: with another account or another car it is a mistake, and is refused.
So claims lie under the caller and not under the account. They also outlive an account that is disconnected, so that a
late repetition finds its key used.

A claim ties a key to the command that the request is about to become, create-only, before anything else is stored.
Of any number of identical requests one gets the claim; the others are told which command it is. A claim whose
command was never recorded belongs to a process that died before it could have sent anything: after a while it is
free again.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from common.clock import Clock
from common.errors import IdempotencyMismatch
from common.loops import needs_loop
from common.stores.documents import Document, DocumentExists, Documents, VersionConflict
from functions.command_record import Record
from functions.providers.port import Command

KEY_TTL_S = 86_400.0
"""How long the caller's own key is remembered."""
REPEAT_WINDOW_S = 15.0
"""The same command by the same caller for the same vehicle within this time is the same command."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request's key is tied to."""

    key: str
    """The claim's document."""
    command_id: str
    is_ours: bool
    """This request made the claim and is to send the command."""
    claimed_at: datetime


def fingerprint(account_id: str, vin: str, command: Command) -> str:
    """Digest of what is asked, the same for the same meaning: keys sorted, defaults left out."""
    meaning = {"account": account_id, "vin": vin, "command": command.name.value, "params": dict(command.params)}
    return hashlib.sha256(orjson.dumps(meaning, option=orjson.OPT_SORT_KEYS)).hexdigest()


def batch_fingerprint(parts: Sequence[Mapping[str, Any]]) -> str:
    """The same of a whole batch, part by part in order: JSON objects without secrets."""
    # Nobody has looked at the parameters yet: the standard library writes whatever was read.
    return hashlib.sha256(json.dumps({"batch": parts}, sort_keys=True).encode()).hexdigest()


def digest_of(principal: str, key: str) -> str:
    """Names a caller's key without holding it: two callers' equal keys have nothing to do with each other."""
    return hashlib.sha256(f"{principal}\x00{key}".encode()).hexdigest()


class IdempotencyClaims:
    """Claims on the document store, by caller."""

    def __init__(self, documents: Documents, clock: Clock) -> None:
        self._documents = documents
        self._clock = clock

    async def claim(self, record: Record, key: str | None) -> Claim:
        """Tie the request to ``record``'s command, or learn to which command it is tied already.

        Raises IdempotencyMismatch where the key was used for something else.
        """
        principal, of_what = record.principal, record.fingerprint
        if key is None:
            path, ttl_s = _path(principal, f"repeat-{digest_of(principal, of_what)}"), REPEAT_WINDOW_S
        else:
            path, ttl_s = _path(principal, f"key-{digest_of(principal, key)}"), KEY_TTL_S
        held = await self._hold(path, ttl_s, record.id, of_what)
        if held.body["command_id"] != record.id:
            return Claim(path, held.body["command_id"], is_ours=False, claimed_at=_claimed_at(held))
        return Claim(path, record.id, is_ours=True, claimed_at=_claimed_at(held))

    async def claim_batch(self, principal: str, key: str, of_what: str) -> None:
        """Tie a key to a whole batch, by its fingerprint; the commands in it have keys of their own.

        Raises IdempotencyMismatch where the key was used for something else.
        """
        await self._hold(_path(principal, f"key-{digest_of(principal, key)}"), KEY_TTL_S, None, of_what)

    async def _hold(self, path: str, ttl_s: float, command_id: str | None, of_what: str) -> Document:
        """The claim under ``path``: the one that holds, or a new one."""
        await needs_loop()
        now = self._clock.utc()
        body = {"command_id": command_id, "fingerprint": of_what, "claimed_at": now.isoformat()}
        while True:
            held = await self._documents.get(path)
            if held is not None and (now - _claimed_at(held)) < timedelta(seconds=ttl_s):
                if held.body["fingerprint"] != of_what:
                    raise IdempotencyMismatch
                return held
            put = await self._put(path, held, body)
            if put is not None:
                return put

    async def take_over(self, claim: Claim, record: Record) -> bool:
        """Tie an abandoned claim to ``record``'s command instead; whether nobody was faster."""
        await needs_loop()
        held = await self._documents.get(claim.key)
        if held is None or held.body["command_id"] != claim.command_id:
            return False
        body = {**held.body, "command_id": record.id, "claimed_at": self._clock.utc().isoformat()}
        return await self._put(claim.key, held, body) is not None

    async def give_up(self, claim: Claim, command_id: str) -> None:
        """Free a claim that is tied to our command, which was never sent."""
        await needs_loop()
        held = await self._documents.get(claim.key)
        if held is not None and held.body["command_id"] == command_id:
            try:
                await self._documents.delete(claim.key, held.version)
            except VersionConflict:
                return  # somebody took it over

    async def _put(self, path: str, held: Document | None, body: dict[str, Any]) -> Document | None:
        try:
            if held is None:
                return await self._documents.create(path, body)
            return await self._documents.replace(held, body)
        except (DocumentExists, VersionConflict):
            return None


def _path(principal: str, name: str) -> str:
    return f"claims/{hashlib.sha256(principal.encode()).hexdigest()}/{name}"


def _claimed_at(document: Document) -> datetime:
    return datetime.fromisoformat(document.body["claimed_at"]).astimezone(UTC)
