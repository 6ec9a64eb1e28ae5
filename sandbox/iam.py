"""A simulated IAM Service Account Credentials API: ``serviceAccounts.generateIdToken``, and no other method.

Like the real one it wants an access token, and the right to make identity tokens of the account that is named, which an
account does not have on itself unless somebody gave it.
"""

import json
from pathlib import Path

from aiohttp import web

from sandbox.gcloud_world import World, policy

ACCESS_TOKEN = "sandbox-access-token"
ID_TOKEN = "sandbox-identity-token"
_ROLE = "roles/iam.serviceAccountOpenIdTokenCreator"


class Iam:
    """The API for the project in the file ``state``, called as the account that its gcloud has borrowed."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self.asked: list[dict[str, str]] = []
        """The bodies of the requests that were answered with a token."""

    async def handle(self, request: web.Request) -> web.Response:
        """``POST /v1/projects/-/serviceAccounts/{account}:generateIdToken``."""
        if request.headers.get("Authorization") != f"Bearer {ACCESS_TOKEN}":
            return _refused(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        body = await request.json()
        if not body.get("audience"):
            return _refused(400, "INVALID_ARGUMENT", "Audience is required.")
        world: World = json.loads(self._state.read_text(encoding="utf-8"))
        account = request.match_info["account"]
        if [_ROLE, f"serviceAccount:{world.get('federated')}"] not in policy(world, f"account/{account}"):
            return _refused(403, "PERMISSION_DENIED", "Permission 'iam.serviceAccounts.getOpenIdToken' denied.")
        self.asked.append(body)
        return web.json_response({"token": ID_TOKEN})


def _refused(status: int, name: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": status, "message": message, "status": name}}, status=status)
