"""Linking, listing and ending accounts."""

from datetime import timedelta
from typing import Any

from common.callers import Scope
from common.errors import ValidationFailed
from functions.actions.spec import ActionSpec, Answer, Call, Kind, Services, Target, found_link
from functions.contract import ConnectParams, ConnectStatusParams, Envelope
from functions.device_login import Waiting
from functions.links import Link
from functions.providers.port import Credentials, Region

_WARN_BEFORE_END = timedelta(days=3)
DEFAULT_PROVIDER = "mybmw"
"""The maker whose account a credential form means."""


def credentials(envelope: Envelope) -> Credentials:
    """The login that a credential form holds; raises ValidationFailed where there is none."""
    if envelope.email is None or envelope.password is None:
        problem = "Give `email` and `password`."
        raise ValidationFailed(details={"fields": [{"path": "email", "problem": problem}]})
    return Credentials(envelope.email, envelope.password, Region(envelope.region), envelope.hcaptcha)


async def _connect(services: Services, call: Call) -> Answer:
    params: ConnectParams = call.params
    if params.client_id is not None:
        waiting = await services.logins.begin(call.caller.principal, params.provider, params.client_id)
        return Answer(_pending(waiting), status=202)
    link = await services.accounts.connect(call.caller.principal, params.provider, credentials(call.envelope))
    return Answer(await _shown(services, link))


async def _connect_status(services: Services, call: Call) -> Answer:
    params: ConnectStatusParams = call.params
    principal, envelope = call.caller.principal, call.envelope
    if params.connect_id is not None:
        found = await services.logins.ask(principal, params.connect_id)
        if isinstance(found, Waiting):
            return Answer(_pending(found), status=202)
        # Linked anew, it may have other vehicles.
        services.vehicles.forget(found.account.id)
        return Answer(await _shown(services, found))
    if envelope.account is not None:
        link = await services.accounts.by_id(principal, envelope.account)
    elif envelope.email is not None:
        link = await services.accounts.by_credentials(principal, DEFAULT_PROVIDER, credentials(envelope))
    else:
        problem = "Name the account, or give `params.connect_id`."
        raise ValidationFailed(details={"fields": [{"path": "account", "problem": problem}]})
    return Answer(await _shown(services, link))


def _pending(waiting: Waiting) -> dict[str, Any]:
    return {
        "status": "pending",
        "connect_id": waiting.connect_id,
        "provider": waiting.provider,
        "user_code": waiting.user_code,
        "verification_uri": waiting.verification_uri,
        "verification_uri_complete": waiting.verification_uri_complete,
        "expires_at": waiting.expires_at,
        "next_poll_at": waiting.next_poll_at,
    }


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
    idle_life, now = services.providers.get(link.account.provider).idle_life, services.clock.utc()
    ends_at = health.rotated_at + idle_life if health and health.rotated_at and idle_life is not None else None
    dead = health is None or health.needs_relink or (ends_at is not None and now >= ends_at)
    if dead:
        ends_at = None
    warning = None
    if ends_at is not None and now >= ends_at - _WARN_BEFORE_END:
        warning = "This link ends of idleness soon: its authorisation has not been renewed for days."
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
            "link_ends_at": ends_at,
        },
        "warning": warning,
    }


ACCOUNTS = (
    ActionSpec(
        "connect",
        Kind.ACCOUNT,
        Scope.ACCOUNT,
        Target.NOTHING,
        "Link an account: MyBMW by `email`, `password` and `hcaptcha`; CarData by a code that its owner confirms.",
        _connect,
        ConnectParams,
    ),
    ActionSpec(
        "connect_status",
        Kind.ACCOUNT,
        Scope.ACCOUNT,
        Target.NOTHING,
        "Whether an owner has confirmed a code (`connect_id`), or whether an `account`'s authorisation is alive.",
        _connect_status,
        ConnectStatusParams,
    ),
    ActionSpec("accounts", Kind.ACCOUNT, Scope.ACCOUNT, Target.NOTHING, "The caller's linked accounts.", _accounts),
    ActionSpec(
        "disconnect",
        Kind.ACCOUNT,
        Scope.ACCOUNT,
        Target.ACCOUNT,
        "End a link and delete everything kept under it.",
        _disconnect,
    ),
)
