"""Login and refresh for China: an RSA-encrypted password behind a slider captcha; access tokens are JWTs."""

import base64
import binascii
import functools
import random
import secrets
import uuid
from typing import Final

import jwt
from bimmer_connected.tests import RESPONSE_DIR, load_response
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sandbox.mybmw_accounts import password_is_right
from sandbox.mybmw_guard import admit_login
from sandbox.mybmw_login import invalid_refresh, token_document
from sandbox.mybmw_png import Colour, png
from sandbox.mybmw_tokens import InvalidGrantError
from sandbox.mybmw_wire import Call, Refusal, Reply, bad_request, json_reply, require_headers
from sandbox.mybmw_world import SliderCaptcha, World

_REFUSED: Final = Reply(422, (RESPONSE_DIR / "auth" / "auth_cn_login_error.json").read_bytes())
_CHECKED: Final = load_response(RESPONSE_DIR / "auth" / "auth_slider_captcha_check.json")
_SIGNING_KEY: Final = secrets.token_bytes(32)
"""Nobody checks the signature, so any key does."""

_WIDTH_PX: Final = 200
_HEIGHT_PX: Final = 90
_HOLE: Final[Colour] = (220, 230, 221)
_HOLE_WIDTH_PX: Final = 40
_HOLE_TOP_PX: Final = 5
_HANDLE_PX: Final = 26
"""The position that solves the puzzle is that of the slider's handle, left of the hole."""
_TOLERANCE: Final = 0.011


def public_key(_world: World, call: Call) -> Reply:
    """``GET /eadrax-coas/v1/cop/publickey``."""
    admit_login(call, "cn")
    pem = _private_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return _envelope({"value": pem.decode().strip().replace("\n", "\r\n"), "expires": "3600"})


def slider_captcha(world: World, call: Call) -> Reply:
    """``POST /eadrax-coas/v2/cop/slider-captcha``."""
    admit_login(call, "cn")
    mobile = _text(call.json_object(), "mobile")
    hole_x = random.randrange(_HANDLE_PX, _WIDTH_PX - 2 * _HOLE_WIDTH_PX)
    verify_id = uuid.uuid4().hex
    world.captchas[verify_id] = SliderCaptcha(mobile, (hole_x - _HANDLE_PX) / _WIDTH_PX)
    return _envelope({"verifyId": verify_id, "backGroundImg": base64.b64encode(_puzzle(hole_x)).decode()})


def check_captcha(world: World, call: Call) -> Reply:
    """``POST /eadrax-coas/v1/cop/check-captcha``: one try a captcha."""
    admit_login(call, "cn")
    body = call.json_object()
    verify_id = _text(body, "verifyId")
    captcha = world.captchas.get(verify_id)
    try:
        position = float(_text(body, "position"))
    except ValueError as error:
        raise bad_request("position", "Not a number.") from error
    if captcha is None or not abs(position - captcha.position) <= _TOLERANCE:
        world.captchas.pop(verify_id, None)
        raise _refused(world, "captcha")
    captcha.solved = True
    return json_reply(_CHECKED)


def log_in(world: World, call: Call) -> Reply:
    """``POST /eadrax-coas/v2/login/pwd``."""
    admit_login(call, "cn")
    require_headers(call, "x-login-nonce")
    body = call.json_object()
    mobile, verify_id = _text(body, "mobile"), _text(body, "verifyId")
    _text(body, "deviceId")
    password = _decrypt(_text(body, "password"))
    captcha = world.captchas.pop(verify_id, None)
    if captcha is None or not captcha.solved or captcha.mobile != mobile:
        raise _refused(world, "captcha")
    account = world.accounts.find(mobile)
    if account is None or password is None or not password_is_right(account.username, password):
        raise _refused(world, "password")
    world.counters.logins += 1
    tokens = world.tokens.log_in(
        account.username, "cn", world.clock.monotonic(), world.settings.expires_in_s, lambda: _jwt(world)
    )
    return _envelope(
        {
            "access_token": tokens.access_token,
            "token_type": "Bearer",
            "refresh_token": tokens.refresh_token,
            "usid": account.gcid,
            "cid": account.gcid,
            "gcid": account.gcid,
        }
    )


def refresh(world: World, call: Call) -> Reply:
    """``POST /eadrax-coas/v2/oauth/token``."""
    admit_login(call, "cn")
    require_headers(call, "x-login-nonce")
    form = call.form()
    if form.get("grant_type") != "refresh_token":
        raise bad_request("grant_type", "Not refresh_token.")
    expires_in_s = world.settings.expires_in_s
    try:
        tokens = world.tokens.refresh(
            _text(form, "refresh_token"), "cn", world.clock.monotonic(), expires_in_s, lambda: _jwt(world)
        )
    except InvalidGrantError as error:
        raise invalid_refresh(world, error) from error
    world.counters.refreshes += 1
    return json_reply(token_document(world, tokens))


def who(world: World, call: Call) -> str | None:
    """The account that a login request is about, for fault rules; None where it cannot be told."""
    if call.path.endswith("/token"):
        return world.tokens.owner(call.form().get("refresh_token", ""))
    try:
        body = call.json_object()
    except Refusal:
        return None
    captcha = world.captchas.get(str(body.get("verifyId")))
    mobile = body.get("mobile", captcha.mobile if captcha else None)
    return mobile if isinstance(mobile, str) else None


@functools.cache
def _private_key() -> rsa.RSAPrivateKey:
    """This process's key pair, made when first asked for."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _decrypt(encrypted: str) -> str | None:
    try:
        return _private_key().decrypt(base64.b64decode(encrypted, validate=True), padding.PKCS1v15()).decode()
    except (binascii.Error, ValueError):
        return None


def _puzzle(hole_x: int) -> bytes:
    def colour(x: int, y: int) -> Colour:
        in_hole = hole_x <= x < hole_x + _HOLE_WIDTH_PX and y >= _HOLE_TOP_PX
        return _HOLE if in_hole else (60 + y, 90, 20 + x // 2)

    return png(_WIDTH_PX, _HEIGHT_PX, colour)


def _jwt(world: World) -> str:
    issued_at = int(world.clock.utc().timestamp())
    claims = {
        "jti": secrets.token_urlsafe(16),
        "nbf": issued_at,
        "iat": issued_at,
        "exp": issued_at + world.settings.expires_in_s,
    }
    return jwt.encode(claims, _SIGNING_KEY, "HS256")


def _envelope(data: dict[str, str]) -> Reply:
    return json_reply({"data": data, "code": 200, "error": False, "description": "ok"})


def _refused(world: World, reason: str) -> Refusal:
    world.counters.logins_refused[reason] += 1
    return Refusal(_REFUSED)


def _text(body: dict[str, str], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise bad_request(name, "Missing or not a text.")
    return value
