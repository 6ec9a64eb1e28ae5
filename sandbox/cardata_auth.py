"""The device flow and the refresh of tokens, with PKCE."""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from typing import Any, Final

from sandbox.cardata_customers import Customer
from sandbox.cardata_tokens import Tokens
from sandbox.cardata_wire import Call, oauth_error
from sandbox.cardata_world import SCOPES, DeviceLogin, World
from sandbox.mybmw_wire import Reply, json_reply

DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
VERIFICATION_PATH: Final = "/oneid/link"
_USER_CODE_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"
_SLOWER_S: Final = 5.0
"""How much longer the interval becomes with each slow_down, by RFC 8628."""


def device_code(world: World, call: Call) -> Reply:
    """``POST /gcdm/oauth/device/code``."""
    form = _form(call, "client_id", "response_type", "scope", "code_challenge", "code_challenge_method")
    scope = frozenset(form["scope"].split())
    if form["response_type"] != "device_code" or form["code_challenge_method"] != "S256" or not scope <= SCOPES:
        raise oauth_error("invalid_request")
    customer = world.customers.of_client(form["client_id"])
    if customer is None:
        raise oauth_error("invalid_client")
    if not (customer.api_subscribed or customer.stream_subscribed):
        raise oauth_error("access_denied", "The client is subscribed to no CarData service.")
    settings = world.settings
    login = DeviceLogin(
        secrets.token_urlsafe(32),
        _user_code(),
        customer.client_id,
        scope,
        form["code_challenge"],
        world.now_s + settings.device_life_s,
        settings.interval_s,
    )
    world.devices[login.device_code] = login
    world.counters.auth["device_codes"] += 1
    uri = f"{call.origin}{VERIFICATION_PATH}"
    document: dict[str, Any] = {
        "user_code": login.user_code,
        "device_code": login.device_code,
        "interval": int(settings.interval_s),
        "expires_in": int(settings.device_life_s),
        "verification_uri": uri,
    }
    if settings.complete_uri:
        document["verification_uri_complete"] = f"{uri}?user_code={login.user_code}"
    return json_reply(document)


def token(world: World, call: Call) -> Reply:
    """``POST /gcdm/oauth/token``: poll for a device code, or rotate a refresh token."""
    form = _form(call, "grant_type", "client_id")
    customer = world.customers.of_client(form["client_id"])
    if customer is None:
        raise oauth_error("invalid_client")
    if form["grant_type"] == DEVICE_GRANT:
        return _redeem_device_code(world, customer, _form(call, "device_code", "code_verifier"))
    if form["grant_type"] == "refresh_token":
        return _refresh(world, customer, _form(call, "refresh_token"))
    raise oauth_error("invalid_request", "Not a grant type of this endpoint.")


def who(world: World, call: Call) -> str | None:
    """The GCID that a request is about, for fault rules; None where it cannot be told."""
    form = call.form()
    customer = world.customers.of_client(form.get("client_id", ""))
    return customer.gcid if customer else world.tokens.owner(form.get("refresh_token", ""))


def burn(world: World, call: Call) -> None:
    """Make the device code of the request useless."""
    if login := world.devices.get(call.form().get("device_code", "")):
        login.dead = True


def token_document(world: World, tokens: Tokens) -> dict[str, Any]:
    """Tokens as they are answered: said to live a second less than they do."""
    return {
        "access_token": tokens.access_token,
        "token_type": "Bearer",
        "expires_in": int(world.settings.access_life_s) - 1,
        "refresh_token": tokens.refresh_token,
        "scope": " ".join(sorted(tokens.grant.scope)),
        "id_token": tokens.id_token,
        "gcid": tokens.grant.gcid,
    }


def subscribe(world: World, customer: Customer, *, api: bool, stream: bool) -> None:
    """Subscribe and unsubscribe; with a subscription removed, every refresh token is dead at once."""
    if (customer.api_subscribed and not api) or (customer.stream_subscribed and not stream):
        world.tokens.revoke_refresh(customer.gcid)
    customer.api_subscribed, customer.stream_subscribed = api, stream


def _redeem_device_code(world: World, customer: Customer, form: Mapping[str, str]) -> Reply:
    login = world.devices.get(form["device_code"])
    if login is None or login.dead or login.client_id != customer.client_id:
        raise oauth_error("invalid_grant")
    now_s = world.now_s
    if now_s >= login.expires_s:
        raise oauth_error("expired_token")
    polled_s, login.polled_s = login.polled_s, now_s
    if polled_s is not None and now_s - polled_s < login.interval_s:
        login.interval_s += _SLOWER_S
        raise oauth_error("slow_down")
    if login.approved is None:
        raise oauth_error("authorization_pending")
    login.dead = True
    if not login.approved:
        raise oauth_error("access_denied")
    digest = hashlib.sha256(form["code_verifier"].encode()).digest()
    if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != login.challenge:
        raise oauth_error("invalid_grant")
    world.counters.auth["device_logins"] += 1
    return json_reply(token_document(world, world.issue_tokens(customer, login.scope)))


def _refresh(world: World, customer: Customer, form: Mapping[str, str]) -> Reply:
    grant, reused = world.tokens.redeem(form["refresh_token"], customer.client_id, world.now_s)
    if grant is None:
        world.counters.auth["refreshes_refused"] += 1
        world.counters.auth["refresh_reuse_detected"] += reused
        raise oauth_error("invalid_grant")
    world.counters.auth["refreshes"] += 1
    return json_reply(token_document(world, world.issue_tokens(customer, grant.scope)))


def _form(call: Call, *names: str) -> dict[str, str]:
    if not call.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise oauth_error("invalid_request", "Not a form.")
    form = call.form()
    for name in names:
        if not form.get(name):
            raise oauth_error("invalid_request", f"Missing parameter: {name}")
    return form


def _user_code() -> str:
    return "".join(secrets.choice(_USER_CODE_LETTERS) for _ in range(8))
