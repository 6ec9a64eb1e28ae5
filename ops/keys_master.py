"""The commands on master keys: ``master``, ``rotate``.

``python -m ops.keys master`` makes one for ``TOKEN_KEYS``. To replace a master key without downtime:

1. Append the new key to ``TOKEN_KEYS`` (``k1:...,k2:...``) and deploy: every instance can open what it will seal.
2. Put it first (``k2:...,k1:...``) and deploy: every instance seals under it.
3. When no instance of before is left, ``python -m ops.keys rotate``, with the same ``TOKEN_KEYS``: what is under the
   old key moves to the new one. Cut short, it is started again.
4. When it says that the old key is used by nothing, drop it from ``TOKEN_KEYS`` and deploy.

A master key that may be known to somebody is rotated the same way; but whoever had it and a copy of the stores from
before can open that copy. Only linking the accounts anew helps against that.
"""

import argparse
import base64
import secrets
import sys
from pathlib import Path

from common.crypto.envelope import KEY_BYTES
from common.crypto.keyset import Keyset
from common.crypto.setup import Sealing, open_sealing
from common.settings import Settings
from common.stores.documents import open_documents
from common.vault import Vault
from functions.storage import PLAIN
from ops.keys_command import Refused, Subparsers, Tools
from ops.keys_rotation import Rotated, Rotation, Tally


def register(subparsers: Subparsers) -> None:
    """Add the commands."""
    master = subparsers.add_parser("master", help="make a master key for TOKEN_KEYS and print it, once")
    master.add_argument("--id", help="its id, a random one if not said")
    master.set_defaults(run=_master)
    rotate = subparsers.add_parser("rotate", help="move everything to the master key that is first in TOKEN_KEYS")
    rotate.set_defaults(run=_rotate)


async def _master(asked: argparse.Namespace, _tools: Tools) -> int:
    kid = asked.id or f"k{secrets.token_hex(4)}"
    text = f"{kid}:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}"
    try:
        Keyset.parse(text)
    except ValueError as bad:
        raise Refused(str(bad)) from bad
    print(text)
    print("Keep it where secrets are kept: it is not stored, and without it nothing sealed opens.", file=sys.stderr)
    return 0


async def _rotate(_asked: argparse.Namespace, tools: Tools) -> int:
    _check_file(tools.settings.documents_url)
    sealing = _opened(tools.settings)
    inner = open_documents(tools.settings.documents_url, gcs_endpoint=tools.settings.gcs_endpoint)
    vault = Vault(sealing.keys, sealing.wrapper, tools.clock)
    rotation = Rotation(vault=vault, keys=sealing.keys, inner=inner, keyset=sealing.keyset, plain=PLAIN, say=_say)
    try:
        rotated = await rotation.run(await sealing.wrapper.active_kid())
    finally:
        await vault.aclose()
        await inner.aclose()
    return _report(rotated, sealing.keyset)


def _opened(settings: Settings) -> Sealing:
    if settings.token_keys is None:
        raise Refused("TOKEN_KEYS is not set: nothing is sealed")
    try:
        return open_sealing(
            token_keys=settings.token_keys,
            documents_url=settings.documents_url,
            keys_url=settings.keys_url,
            kms_key=settings.kms_key,
            kms_endpoint=settings.kms_endpoint,
            gcs_endpoint=settings.gcs_endpoint,
        )
    except ValueError as unusable:
        raise Refused(f"TOKEN_KEYS or KEYS_URL: {unusable}") from unusable


def _check_file(url: str) -> None:
    """Raise where there is no file: opening would make an empty one, in which nothing needs a key."""
    path = url.removeprefix("sqlite:///")
    if path != url and not Path(path).is_file():
        raise Refused(f"DOCUMENTS_URL: there is no file {path}")


def _report(rotated: Rotated, keyset: Keyset) -> int:
    print(f"data keys of accounts: {_counts(rotated.account_keys)}")
    print(f"documents of the deployment: {_counts(rotated.documents)}")
    used = rotated.account_keys.kids + rotated.documents.kids
    for key, reason in sorted(rotated.broken.items()):
        print(f"BROKEN  {key}: {reason}")
    for kid in [kid for kid in keyset.kids if kid not in (rotated.active, keyset.active)]:
        if used[kid] or rotated.broken:
            print(f"{kid} is still needed, or may be.")
        else:
            print(f"{kid} is used by nothing any more: it is safe to drop from TOKEN_KEYS.")
    return 1 if rotated.broken else 0


def _counts(tally: Tally) -> str:
    return ", ".join(f"{count} under {kid}" for kid, count in sorted(tally.kids.items())) or "none"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
