"""Linking, listing and ending accounts."""

from typing import Any

from common.callers import Scope
from common.errors import ValidationFailed
from functions.actions.spec import ActionSpec, Answer, Call, Kind, Services, Target, found_link
from functions.contract import Envelope
from functions.links import Link
from functions.providers.port import Credentials, Region

DEFAULT_PROVIDER = "mybmw"
"""The maker whose account a credential form means."""


def credentials(envelope: Envelope) -> Credentials:
    """The login that a credential form holds; raises ValidationFailed where there is none."""
    if envelope.email is None or envelope.password is None:
        problem = "Give `email` and `password`."
        raise ValidationFailed(details={"fields": [{"path": "email", "problem": problem}]})
    return Credentials(envelope.email, envelope.password, Region(envelope.region), envelope.hcaptcha)


async def _connect(services: Services, call: Call) -> Answer:
    link = await services.accounts.connect(call.caller.principal, DEFAULT_PROVIDER, credentials(call.envelope))
    return Answer(await _shown(services, link))


async def _connect_status(services: Services, call: Call) -> Answer:
    return Answer(await _shown(services, found_link(call)))


async def _accounts(services: Services, call: Call) -> Answer:
    links = await services.accounts.of_caller(call.caller.principal)
    shown = [await _shown(services, link) for link in links]
    return Answer({"accounts": shown, "count": len(shown)})


async def _disconnect(services: Services, call: Call) -> Answer:
    link = found_link(call)
    await services.accounts.disconnect(link)
    services.vehicles.forget(link.account.id)
    return Answer({"account": link.account.id, "disconnected": True})


async def _shown(services: Services, link: Link) -> dict[str, Any]:
    health = await services.accounts.health(link)
    dead = health is None or health.needs_relink
    return {
        "account": link.account.id,
        "provider": link.account.provider,
        "region": link.account.region.value,
        "label": link.label,
        "status": "needs_relink" if dead else "connected",
        "created_at": link.created_at,
        "tokens": {
            "access_expires_at": health.expires_at if health else None,
            "rotated_at": health.rotated_at if health else None,
            "needs_relink": dead,
        },
    }


ACCOUNTS = (
    ActionSpec(
        "connect",
        Kind.ACCOUNT,
        Scope.ACCOUNT,
        Target.NOTHING,
        "Log in at the maker with `email`, `password`, `hcaptcha` and `region`, and link the account.",
        _connect,
    ),
    ActionSpec(
        "connect_status",
        Kind.ACCOUNT,
        Scope.ACCOUNT,
        Target.ACCOUNT,
        "Whether an account's authorisation is alive, and until when.",
        _connect_status,
    ),
    ActionSpec("accounts", Kind.ACCOUNT, Scope.ACCOUNT, Target.NOTHING, "The caller's linked accounts.", _accounts),
    ActionSpec(
        "disconnect",
        Kind.ACCOUNT,
        Scope.ACCOUNT,
        Target.ACCOUNT,
        "End a link and delete every trace of it.",
        _disconnect,
    ),
)
