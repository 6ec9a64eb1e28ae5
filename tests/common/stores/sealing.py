"""A sealed store beside a plain one, for the tests that hold for every store."""

from common.clock import SystemClock
from common.crypto.setup import open_sealing
from common.loops import LoopThread
from common.stores.documents import open_documents
from common.stores.sealed import SealedDocuments
from common.vault import Vault
from tests.common.crypto.masters import K1

ACCOUNT = "acc_suite"


def open_sealed(url: str) -> SealedDocuments:
    """Half of the collections that the suite uses are one account's, the others are the deployment's."""
    sealing = open_sealing(token_keys=K1, documents_url=url)
    vault = Vault(sealing.keys, sealing.wrapper, SystemClock())
    theirs = dict.fromkeys(["links", "race", "A-Z._="], lambda _key: ACCOUNT)
    return SealedDocuments(open_documents(url), vault, sealing.keyset, accounts=theirs)


def prepare(url: str) -> None:
    """Make the account's key."""

    async def make() -> None:
        sealing = open_sealing(token_keys=K1, documents_url=url)
        vault = Vault(sealing.keys, sealing.wrapper, SystemClock())
        await vault.create(ACCOUNT, "mybmw", "somebody")
        await vault.aclose()

    loop = LoopThread()
    loop.run(make())
    loop.close()
