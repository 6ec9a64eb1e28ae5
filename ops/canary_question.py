"""What the canary itself asks a revision: a POST that goes the way of every caller's, and can reach no car.

With a key it asks for the catalogue of actions: decoded, identified, limited, carried out and written like any other
request. Without one it can only be refused, which proves that the service answers as its contract says, and no more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

KEY_VARIABLE = "CANARY_API_KEY"
"""An API key of the canary's own, with whatever scope: the catalogue needs none."""
_ACTION = "actions"
_REFUSED = "CALLER_UNAUTHENTICATED"


@dataclass(frozen=True, slots=True)
class Question:
    """One question, and the only answers to it that are right."""

    key: str | None = field(default=None, repr=False)

    def ask(self, client: httpx.Client, url: str) -> httpx.Response:
        """Ask the revision at ``url``. Raises httpx.HTTPError."""
        headers = {} if self.key is None else {"X-API-Key": self.key}
        return client.post(f"{url}/", json={"action": _ACTION}, headers=headers)

    def is_answered_well(self, answer: httpx.Response) -> bool:
        """Whether the answer has the status, the form and the content that it must have."""
        body = _object(answer)
        if self.key is None:
            return answer.status_code == 401 and _inner(body, "error").get("code") == _REFUSED
        return answer.status_code == 200 and body.get("success") is True and bool(_inner(body, "result").get("actions"))

    def may_be(self, action: str, code: str) -> bool:
        """Whether a request that was counted with these labels may have been this question, and no caller's."""
        return code == _REFUSED if self.key is None else action == _ACTION


def _object(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _inner(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = body.get(name)
    return found if isinstance(found, dict) else {}
