"""Login and refresh for the rest of the world and North America: OAuth with PKCE, behind hCaptcha.

BMW answers a refused captcha exactly as it answers a wrong password, and so does this; the counters tell them apart.
"""

import base64
import hashlib
import hmac
from typing import Final
from urllib.parse import urlencode

import orjson
from bimmer_connected.api.regions import get_ocp_apim_key
from bimmer_connected.const import Regions
from bimmer_connected.tests import RESPONSE_DIR, load_response

from sandbox.mybmw_accounts import password_is_right
from sandbox.mybmw_guard import admit_login
from sandbox.mybmw_tokens import InvalidGrantError, Tokens, random_token
from sandbox.mybmw_wire import (
    Call,
    Refusal,
    Reply,
    gateway_error,
    json_reply,
    oauth_error,
    require_headers,
    require_query,
)
from sandbox.mybmw_world import PendingLogin, World

_CONFIG: Final = load_response(RESPONSE_DIR / "auth" / "oauth_config.json")
_CONFIG_REPLY: Final = Reply(body=orjson.dumps(_CONFIG))
_WRONG_PASSWORD: Final = Reply(401, (RESPONSE_DIR / "auth" / "auth_error_wrong_password.json").read_bytes())
_BASIC: Final = "Basic " + base64.b64encode(f"{_CONFIG['clientId']}:{_CONFIG['clientSecret']}".encode()).decode()
_KEYS: Final = {region.value: get_ocp_apim_key(region) for region in (Regions.REST_OF_WORLD, Regions.NORTH_AMERICA)}
_CLAIMS: Final = (
    "client_id",
    "response_type",
    "scope",
    "redirect_uri",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
)
"""What both authenticate steps carry and must agree on."""
_FIXED_CLAIMS: Final = {
    "client_id": _CONFIG["clientId"],
    "response_type": "code",
    "redirect_uri": _CONFIG["returnUrl"],
    "code_challenge_method": "S256",
}
_REFUSED_CAPTCHA: Final = "refused"
_CAPTCHA_REFUSED_FOR: Final = "captcha@example.com"


def config(_world: World, call: Call) -> Reply:
    """``GET /eadrax-ucs/v1/presentation/oauth/config``."""
    admit_login(call, *_KEYS)
    require_headers(
        call,
        "ocp-apim-subscription-key",
        "bmw-session-id",
        "x-identity-provider",
        "x-correlation-id",
        "bmw-correlation-id",
    )
    if call.headers["ocp-apim-subscription-key"] != _KEYS[call.client.region]:
        message = "Access denied due to invalid subscription key."
        raise Refusal(gateway_error(401, message, header="ocp-apim-subscription-key"))
    return _CONFIG_REPLY


def authenticate(world: World, call: Call) -> Reply:
    """``POST /gcdm/oauth/authenticate``: with a password the first step, with an authorization the second."""
    admit_login(call, *_KEYS)
    form = _form(call)
    for name, value in _FIXED_CLAIMS.items():
        if form.get(name) != value:
            raise _invalid_request(name)
    _require_fields(form, *_CLAIMS)
    claims = {name: form[name] for name in _CLAIMS}
    if "authorization" in form:
        return _grant_code(world, call, claims, form["authorization"])
    return _check_password(world, call, claims, form)


def token(world: World, call: Call) -> Reply:
    """``POST /gcdm/oauth/token``: redeem a code, or rotate a refresh token."""
    admit_login(call, *_KEYS)
    if not hmac.compare_digest(call.headers.get("authorization", "").encode(), _BASIC.encode()):
        raise Refusal(_WRONG_PASSWORD)
    form = _form(call)
    _require_fields(form, "grant_type", "redirect_uri")
    if form["redirect_uri"] != _CONFIG["returnUrl"]:
        raise _invalid_request("redirect_uri")
    match form["grant_type"]:
        case "authorization_code":
            return _redeem(world, call, form)
        case "refresh_token":
            return _refresh(world, call, form)
    raise oauth_error(400, "unsupported_grant_type", "Not a grant type of this endpoint.", field="grant_type")


def who(world: World, call: Call) -> str | None:
    """The account that a login request is about, for fault rules; None where it cannot be told."""
    form = call.form()
    if pending := world.logins.authorizations.get(form.get("authorization", "")):
        return pending.username
    if pending := world.logins.codes.get(form.get("code", "")):
        return pending.username
    return form["username"].strip().lower() if "username" in form else world.tokens.owner(form.get("refresh_token", ""))


def _check_password(world: World, call: Call, claims: dict[str, str], form: dict[str, str]) -> Reply:
    _require_fields(form, "grant_type", "username", "password")
    if form["grant_type"] != "authorization_code":
        raise _invalid_request("grant_type")
    account = world.accounts.find(form["username"])
    captcha = call.headers.get("hcaptchatoken", "")
    never_accepted = account is not None and account.username == _CAPTCHA_REFUSED_FOR
    if captcha in ("", _REFUSED_CAPTCHA) or captcha in world.logins.captchas_seen or never_accepted:
        world.counters.logins_refused["captcha"] += 1
        raise Refusal(_WRONG_PASSWORD)
    world.logins.captchas_seen.add(captcha)
    if account is None or not password_is_right(account.username, form["password"]):
        world.counters.logins_refused["password"] += 1
        raise Refusal(_WRONG_PASSWORD)
    authorization = random_token()
    world.logins.authorizations[authorization] = PendingLogin(account.username, claims, call.client.region)
    # Worded as recorded: not a URL, but httpx finds `authorization` in its query.
    described = {**claims, "authorization": authorization}
    names = ("client_id", "response_type", "scope", "state", "authorization")
    query = urlencode({name: described[name] for name in names})
    return json_reply({"redirect_to": f"redirect_uri={_CONFIG['returnUrl']}?{query}"})


def _grant_code(world: World, call: Call, claims: dict[str, str], authorization: str) -> Reply:
    require_query(call, "interaction-id", "client-version")
    pending = world.logins.authorizations.pop(authorization, None)
    if pending is None or pending.claims != claims:
        raise _invalid_request("authorization")
    code = random_token()
    world.logins.codes[code] = pending
    query = urlencode({"code": code, **{name: claims[name] for name in ("state", "client_id", "nonce")}})
    return Reply(302, headers={"Location": f"{claims['redirect_uri']}?{query}"})


def _redeem(world: World, call: Call, form: dict[str, str]) -> Reply:
    _require_fields(form, "code", "code_verifier")
    pending = world.logins.codes.pop(form["code"], None)
    digest = hashlib.sha256(form["code_verifier"].encode()).digest()
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    if pending is None or pending.region != call.client.region or pending.claims["code_challenge"] != challenge:
        raise oauth_error(400, "invalid_grant", "The code is unknown, used or was not asked for by this client.")
    world.counters.logins += 1
    now_s = world.clock.monotonic()
    return _token_reply(
        world, world.tokens.log_in(pending.username, pending.region, now_s, world.settings.expires_in_s)
    )


def _refresh(world: World, call: Call, form: dict[str, str]) -> Reply:
    _require_fields(form, "refresh_token", "scope")
    try:
        tokens = world.tokens.refresh(
            form["refresh_token"], call.client.region, world.clock.monotonic(), world.settings.expires_in_s
        )
    except InvalidGrantError as error:
        raise invalid_refresh(world, error) from error
    world.counters.refreshes += 1
    return _token_reply(world, tokens)


def invalid_refresh(world: World, error: InvalidGrantError) -> Refusal:
    """Count a refused refresh; the error to answer."""
    world.counters.refreshes_refused += 1
    world.counters.refresh_reuse_detected += error.reused
    return oauth_error(400, "invalid_grant", "The refresh token is invalid, expired or revoked.")


def token_document(world: World, tokens: Tokens) -> dict[str, object]:
    """Tokens in the shape that was recorded."""
    account = world.accounts.find(tokens.username)
    gcid = account.gcid if account else ""
    return {
        "access_token": tokens.access_token,
        "token_type": "Bearer",
        "expires_in": tokens.expires_in_s,
        "refresh_token": tokens.refresh_token,
        "scope": " ".join(_CONFIG["scopes"]),
        "usid": gcid,
        "gcid": gcid,
    }


def _token_reply(world: World, tokens: Tokens) -> Reply:
    return json_reply(token_document(world, tokens))


def _form(call: Call) -> dict[str, str]:
    if not call.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise Refusal(gateway_error(400, "Not a form: content-type", header="content-type"))
    return call.form()


def _require_fields(form: dict[str, str], *names: str) -> None:
    for name in names:
        if not form.get(name):
            raise _invalid_request(name)


def _invalid_request(field: str) -> Refusal:
    return oauth_error(400, "invalid_request", f"Missing or invalid parameter: {field}", field=field)
