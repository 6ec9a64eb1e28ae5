"""One request to the REST API: signed, charged to the customer's day before it leaves, its failure told by its id."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from common.errors import StoreUnavailable
from functions.providers.cardata.auth_manager import AuthManager
from functions.providers.cardata.failures import (
    CarDataInvalidReply,
    CarDataQuotaExceeded,
    CarDataRelinkRequired,
    TokenRefused,
    rest_failure,
)
from functions.providers.cardata.quota import QuotaLedger
from functions.providers.cardata.transport import Reply, Request, Transport
from functions.providers.port import Account
from functions.tokens import TokenSet

API_ORIGIN: Final = "https://api-cardata.bmwgroup.com"
JSON: Final = "application/json"
_MAX_REMEMBERED: Final = 10_000


class Rest:
    """The REST API of one origin."""

    def __init__(
        self, transport: Transport, auth: AuthManager, ledger: QuotaLedger, *, origin: str | None = None
    ) -> None:
        self._transport = transport
        self._auth = auth
        self._ledger = ledger
        self._origin = (origin or API_ORIGIN).rstrip("/")
        self._refused: OrderedDict[str, str] = OrderedDict()

    async def get(
        self,
        account: Account,
        endpoint: str,
        *,
        query: Mapping[str, str] | None = None,
        is_forced: bool = False,
        accept: str = JSON,
        **path: str,
    ) -> Reply:
        """Ask. ``endpoint`` is a template such as ``/customers/vehicles/{vin}/basicData``, ``path`` fills it.

        Raises CarData's failures, and the signals between the parts of this package (:mod:`.failures`).
        """
        target = endpoint.format_map(path) + (f"?{urlencode(query)}" if query else "")
        return await self._asked(account, "GET", endpoint, target, b"", is_forced, accept)

    async def post(self, account: Account, endpoint: str, body: object, *, is_forced: bool = False) -> Reply:
        """Send JSON."""
        return await self._asked(account, "POST", endpoint, endpoint, orjson.dumps(body), is_forced, JSON)

    async def _asked(
        self,
        account: Account,
        method: str,
        endpoint: str,
        target: str,
        content: bytes,
        is_forced: bool,
        accept: str,
    ) -> Reply:
        tokens = await self._auth.usable(account)
        if self._refused.get(account.id) == tokens.access_token:
            raise CarDataRelinkRequired
        for is_last in (False, True):
            gcid = tokens.extra["gcid"]
            day = (await self._ledger.reserve(gcid, is_forced=is_forced)).day
            reply = await self._transport.send(
                Request(endpoint, method, self._origin + target, _headers(tokens, accept, content), content)
            )
            failure = rest_failure(reply.status, reply.body, reply.headers)
            if failure is None:
                return reply
            if isinstance(failure, CarDataQuotaExceeded):
                raise await self._blocked(gcid, day, failure)
            if not isinstance(failure, TokenRefused):
                raise failure
            if not is_last:
                tokens = await self._auth.usable(account, refused=tokens.access_token)
        self._remember(account.id, tokens.access_token)
        raise CarDataRelinkRequired

    def _remember(self, account_id: str, access_token: str) -> None:
        """A token that is refused although it is new stays so, and each refusal is charged."""
        self._refused[account_id] = access_token
        self._refused.move_to_end(account_id)
        while len(self._refused) > _MAX_REMEMBERED:
            self._refused.popitem(last=False)

    async def _blocked(self, gcid: str, day: str, refusal: CarDataQuotaExceeded) -> CarDataQuotaExceeded:
        try:
            return await self._ledger.block(gcid, day)
        except StoreUnavailable:
            return refusal


def _headers(tokens: TokenSet, accept: str, content: bytes) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {tokens.access_token}", "x-version": "v1", "Accept": accept}
    return {**headers, "Content-Type": JSON} if content else headers


def json_of(reply: Reply) -> Any:  # noqa: ANN401 - a JSON value
    """The answer as JSON. Raises CarDataInvalidReply."""
    try:
        return orjson.loads(reply.body)
    except orjson.JSONDecodeError as error:
        raise CarDataInvalidReply from error


def object_of(reply: Reply) -> dict[str, Any]:
    """The answer as a JSON object. Raises CarDataInvalidReply."""
    answer = json_of(reply)
    if not isinstance(answer, dict):
        raise CarDataInvalidReply
    return answer
