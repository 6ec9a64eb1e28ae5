"""What the measurements of tokens share: stores, accounts, instances that race."""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.clock import SystemClock
from common.errors import RelinkRequired
from functions.tokens import TokenKeeper, TokenSet
from ops.fake_gcs import FakeGcs, running_fake_gcs
from ops.stack import master_key
from sandbox.process import RunningSandbox
from scorecard.tokens_worker import PRINCIPAL, Maker, Store, ended

_ROOT = Path(__file__).resolve().parent.parent
_ROUTE = "POST /gcdm/oauth/token"
TOKEN_PATH = {"path": "/gcdm/oauth/token"}
"""Matches what rotates tokens at the maker."""


@contextmanager
def stores(server: FakeGcs | None = None) -> Iterator[dict[str, Store]]:
    """A fresh store of each kind."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = server or stack.enter_context(running_fake_gcs())
        key = master_key()
        yield {
            "SQLite": Store(f"sqlite:///{folder}/documents.db", f"sqlite:///{folder}/keys.db", key),
            "GCS": Store(f"gs://{server.new_bucket()}/d", f"gs://{server.new_bucket()}", key, server.url),
        }


async def linked(store: Store, maker: RunningSandbox, emails: dict[str, str]) -> None:
    """Accounts whose access tokens have ended."""
    async with store.opened() as (documents, vault):
        keeper = TokenKeeper(documents, SystemClock())
        for account, email in emails.items():
            await vault.create(account, "mybmw", PRINCIPAL)
            await keeper.save(account, issued(maker, email))


def issued(maker: RunningSandbox, email: str) -> TokenSet:
    """Tokens of a new login, whose access token has ended."""
    given = maker.issue_tokens(email)
    return TokenSet(given["access_token"], given["refresh_token"], ended(), {"gcid": given["gcid"]})


def racer(
    store: Store, origin: str, accounts: list[str], *, callers: int = 1, ahead_s: float = 0
) -> "subprocess.Popen[str]":
    """Another instance, with so many callers of each account; see :mod:`scorecard.tokens_worker`."""
    program = [sys.executable, "-m", "scorecard.tokens_worker", origin, str(callers), str(ahead_s), *accounts]
    return subprocess.Popen(  # noqa: S603 - our own program
        program,
        cwd=_ROOT,
        env={**os.environ, **store.environ()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ready(racer: "subprocess.Popen[str]") -> None:
    """Return when it waits for the word to go."""
    if racer.stdout is not None:
        racer.stdout.readline()


def run_to_the_end(racer: "subprocess.Popen[str]") -> list[str]:
    """Let it go; what its callers got."""
    return racer.communicate("go\n")[0].splitlines()


async def still_linked(store: Store, maker: RunningSandbox, accounts: list[str]) -> bool:
    """Whether what is stored is what the maker knows: it can be traded in once more."""
    asked = Maker(maker.origin)
    try:
        async with store.opened() as (documents, _):
            keeper = TokenKeeper(documents, SystemClock())
            for account in accounts:
                held = await keeper.usable(account, asked.renew)
                await keeper.usable(account, asked.renew, refused=held.access_token)
    except RelinkRequired:
        return False
    finally:
        await asked.close()
    return True


def asked_of(maker: RunningSandbox) -> int:
    """How often the maker was asked for new tokens."""
    asked: int = maker.stats()["requests"].get(_ROUTE, 0)
    return asked


async def shortly(_seconds: float) -> None:
    """A pause that is none."""
    await asyncio.sleep(0.001)
