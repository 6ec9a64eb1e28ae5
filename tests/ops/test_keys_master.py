"""Making and replacing master keys, while the service runs and while the rotation is killed."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from common.clock import ManualClock
from common.crypto.keyset import Keyset
from common.crypto.setup import open_sealing
from common.settings import Settings
from common.stores.documents import Documents, open_documents
from common.stores.sealed import SealedDocuments, kid_of, segment
from common.vault import Vault
from ops import keys, keys_master
from ops.keys_command import Parser, Refused, Tools
from ops.keys_rotation import Rotation
from tests.common.crypto.masters import K1, K2, K3
from tests.support.tapped_documents import TappedDocuments, When

ROOT = Path(__file__).parents[2]
ACCOUNTS = 60
OLD, BOTH = K1, f"{K2},{K1}"

PROGRAM = """
import asyncio, os, sys
from common.clock import SystemClock
from common.settings import load
from ops import keys_master
from ops.keys_command import Parser, Refused, Tools, open_store
parser = Parser(prog="ops.keys")
keys_master.register(parser.add_subparsers(required=True))
asked = parser.parse_args()
sys.exit(asyncio.run(asked.run(asked, Tools(load(os.environ), SystemClock(), open_store))))
"""


class Deployment:
    """Accounts and the deployment's own documents, sealed in two files."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/documents.db"

    def open(self, token_keys: str) -> tuple[Documents, Documents, Vault, SealedDocuments]:
        """The documents as they are stored, the keys, the vault and the documents as the service has them."""
        sealing = open_sealing(token_keys=token_keys, documents_url=self.url)
        inner = open_documents(self.url)
        vault = Vault(sealing.keys, sealing.wrapper, ManualClock())
        accounts = {"tokens": segment(1)}
        plain = frozenset({"audit"})
        return inner, sealing.keys, vault, SealedDocuments(inner, vault, sealing.keyset, accounts=accounts, plain=plain)

    async def fill(self, token_keys: str = OLD) -> None:
        _, _, vault, sealed = self.open(token_keys)
        for number in range(ACCOUNTS):
            await vault.create(f"acc_{number}", "mybmw", f"principal-{number}")
            await sealed.create(f"tokens/acc_{number}", {"n": number})
            await sealed.create(f"identities/{number}", {"n": number})
        await sealed.create("audit/a/1", {"seq": 1})
        await sealed.aclose()

    async def kids(self) -> list[str]:
        """Every master key that anything is under, once."""
        inner, keys, _, sealed = self.open(BOTH)
        found = {document.body["kid"] for key in await keys.list("keys") if (document := await keys.get(key))}
        for key in await inner.list("identities"):
            document = await inner.get(key)
            assert document is not None
            found.add(kid_of(document.body))
        await sealed.aclose()
        return sorted(found)

    async def opens(self, token_keys: str) -> None:
        """Everything is there and opens."""
        _, _, _, sealed = self.open(token_keys)
        for number in range(ACCOUNTS):
            for key in (f"tokens/acc_{number}", f"identities/{number}"):
                document = await sealed.get(key)
                assert document is not None
                assert document.body == {"n": number}
        await sealed.aclose()

    async def start(self, token_keys: str) -> Process:
        """A rotation as a process of its own."""
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, "rotate",
            cwd=ROOT, env=self.environ(token_keys), stdout=PIPE, stderr=PIPE,
        )  # fmt: skip

    def environ(self, token_keys: str) -> dict[str, str]:
        return {**os.environ, "TOKEN_KEYS": token_keys, "DOCUMENTS_URL": self.url}


@pytest.fixture
async def deployment(tmp_path: Path) -> Deployment:
    made = Deployment(tmp_path)
    await made.fill()
    return made


def arguments(*argv: str) -> object:
    parser = Parser(prog="ops.keys")
    keys_master.register(parser.add_subparsers(required=True))
    return parser.parse_args(argv)


async def run(settings: Settings, *argv: str) -> int:
    asked = arguments(*argv)
    status: int = await asked.run(asked, Tools(settings, ManualClock(), lambda _: pytest.fail("not its store")))  # type: ignore[attr-defined] # argparse sets what a parser says
    return status


async def test_a_master_key_is_printed_once_and_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for _ in range(2):
        assert await run(Settings(), "master") == 0
        out, err = capsys.readouterr()
        printed.append(out.strip())
        assert "it is not stored" in err
        assert out.strip() not in err
    assert len(Keyset.parse(",".join(printed)).kids) == 2
    assert await run(Settings(), "master", "--id", "k9") == 0
    assert capsys.readouterr().out.startswith("k9:")


async def test_a_master_key_needs_a_usable_id(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Refused, match="id"):
        await run(Settings(), "master", "--id", "a b")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (Settings(documents_url="sqlite:///nowhere/x.db", token_keys=K1), "no file"),
        (Settings(documents_url="gs://bucket", token_keys=None), "TOKEN_KEYS is not set"),
        (Settings(documents_url="gs://bucket", token_keys="k1:secret"), "id:base64"),
        (Settings(documents_url="gs://bucket", token_keys=K1), "KEYS_URL must be set"),
    ],
)
async def test_a_rotation_without_what_it_needs_is_refused_in_a_line(settings: Settings, match: str) -> None:
    with pytest.raises(Refused, match=match) as refused:
        await run(settings, "rotate")
    assert "secret" not in str(refused.value)


async def test_a_rotation_moves_everything_and_says_what_may_be_dropped(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(documents_url=deployment.url, token_keys=f"{K2},{K1},{K3}")
    assert await run(settings, "rotate") == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"data keys of accounts: {ACCOUNTS} under k2",
        f"documents of the deployment: {ACCOUNTS} under k2",
        "k1 is used by nothing any more: it is safe to drop from TOKEN_KEYS.",
        "k3 is used by nothing any more: it is safe to drop from TOKEN_KEYS.",
    ]
    assert f"data keys: {ACCOUNTS} looked at" in err
    assert await deployment.kids() == ["k2"]
    await deployment.opens(K2)
    assert await run(settings, "rotate") == 0
    assert "pass 2" not in capsys.readouterr().err


async def test_what_does_not_open_is_named_and_the_rest_is_moved(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    inner, keys, _, sealed = deployment.open(OLD)
    for store, key, other in [(keys, "keys/acc_1", "keys/acc_2"), (inner, "identities/1", "identities/2")]:
        spoilt, source = await store.get(key), await store.get(other)
        assert spoilt is not None
        assert source is not None
        await store.replace(spoilt, source.body)
    await sealed.aclose()
    assert await run(Settings(documents_url=deployment.url, token_keys=BOTH), "rotate") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"data keys of accounts: {ACCOUNTS - 1} under k2"
    assert [line.partition(":")[0] for line in lines if line.startswith("BROKEN")] == [
        "BROKEN  identities/1", "BROKEN  keys/acc_1",
    ]  # fmt: skip
    assert lines[-1] == "k1 is still needed, or may be."


async def test_a_key_dropped_too_early_is_told_by_its_name(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(Settings(documents_url=deployment.url, token_keys=K2), "rotate") == 1
    assert capsys.readouterr().out.count("a master key that TOKEN_KEYS does not hold") == 2 * ACCOUNTS
    assert await deployment.kids() == ["k1"]


async def test_what_is_written_under_the_old_key_meanwhile_is_met_by_another_pass(deployment: Deployment) -> None:
    inner, keys, vault, sealed = deployment.open(BOTH)
    _, _, old_vault, old_sealed = deployment.open(OLD)

    async def meddle(when: When, operation: str, key: str) -> None:
        if (when, operation, key) == (When.AFTER, "replace", "identities/59"):
            await old_vault.create("acc_late", "mybmw", "late")
            await old_sealed.create("identities/late", {})

    passes: list[str] = []
    rotation = Rotation(
        vault=vault,
        keys=keys,
        inner=TappedDocuments(inner, meddle),
        keyset=Keyset.parse(BOTH),
        plain=frozenset(),
        say=passes.append,
    )
    rotated = await rotation.run("k2")
    assert set(rotated.account_keys.kids) == set(rotated.documents.kids) == {"k2"}
    assert passes.count("  data keys: 61 looked at") == 2
    assert await deployment.kids() == ["k2"]
    await sealed.aclose()
    await old_sealed.aclose()


async def test_a_rotation_that_never_catches_up_ends_and_says_so(deployment: Deployment) -> None:
    inner, keys, vault, sealed = deployment.open(BOTH)
    _, _, _, old_sealed = deployment.open(OLD)
    written = iter(range(1_000))

    async def meddle(when: When, operation: str, key: str) -> None:
        if (when, operation) == (When.AFTER, "list"):
            await old_sealed.create(f"identities/late{next(written)}", {})

    rotation = Rotation(
        vault=vault,
        keys=keys,
        inner=TappedDocuments(inner, meddle),
        keyset=Keyset.parse(BOTH),
        plain=frozenset({"audit"}),
        say=lambda _: None,
    )
    rotated = await rotation.run("k2")
    assert rotated.documents.kids["k1"] > 0
    await sealed.aclose()
    await old_sealed.aclose()


async def test_a_document_that_the_service_writes_meanwhile_is_not_set_back(deployment: Deployment) -> None:
    inner, keys, vault, sealed = deployment.open(BOTH)
    _, _, _, live = deployment.open(BOTH)

    async def meddle(when: When, operation: str, key: str) -> None:
        if (when, operation) == (When.BEFORE, "replace"):
            document = await live.get(key)
            if document is not None and "by" not in document.body:
                await live.replace(document, {**document.body, "by": "the service"})

    rotation = Rotation(
        vault=vault,
        keys=keys,
        inner=TappedDocuments(inner, meddle),
        keyset=Keyset.parse(BOTH),
        plain=frozenset({"audit"}),
        say=lambda _: None,
    )
    await rotation.run("k2")
    for number in range(ACCOUNTS):
        document = await live.get(f"identities/{number}")
        assert document is not None
        assert document.body == {"n": number, "by": "the service"}
    await sealed.aclose()
    await live.aclose()


async def test_two_rotations_at_once_do_each_other_no_harm(deployment: Deployment) -> None:
    rotations = [await deployment.start(BOTH) for _ in range(2)]
    for rotation in rotations:
        output, errors = await rotation.communicate()
        assert rotation.returncode == 0, errors.decode()
        assert b"k1 is used by nothing" in output
    assert await deployment.kids() == ["k2"]
    await deployment.opens(K2)


async def test_a_rotation_killed_anywhere_has_lost_nothing_and_is_finished_by_the_next(
    deployment: Deployment,
) -> None:
    torn = 0
    steps = random.Random(22).sample(range(1, 3 * ACCOUNTS), 6)
    for token_keys, killed_after in zip([BOTH, f"{K1},{K2}"] * 3, steps, strict=True):
        rotation = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.ops.rotation_victim", str(killed_after),
            cwd=ROOT, env=deployment.environ(token_keys),
        )  # fmt: skip
        assert await rotation.wait() == -signal.SIGKILL
        torn += len(await deployment.kids()) > 1
        await deployment.opens(token_keys)
    assert torn > 0
    last = await deployment.start(BOTH)
    await last.communicate()
    assert last.returncode == 0
    assert await deployment.kids() == ["k2"]
    await deployment.opens(K2)


def test_the_commands_say_what_they_do() -> None:
    shown = subprocess.run([sys.executable, "-c", PROGRAM, "--help"], cwd=ROOT, check=True, stdout=PIPE, text=True)
    assert "master" in shown.stdout
    assert "rotate" in shown.stdout


def test_the_first_master_key_is_made_before_the_settings_are_complete(capsys: pytest.CaptureFixture[str]) -> None:
    assert keys.main(["master"], {"CALLERS": "api_keys"}) == 0
    Keyset.parse(capsys.readouterr().out.strip())
