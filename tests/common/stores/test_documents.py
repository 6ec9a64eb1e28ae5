"""What holds for every document store."""

import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from common.errors import StoreUnavailable
from common.loops import LoopThread
from common.stores.documents import (
    MAX_BODY_BYTES,
    Body,
    Document,
    DocumentExists,
    Documents,
    VersionConflict,
    open_documents,
    update,
)
from common.stores.sealed import MAX_PLAIN_BYTES, SealedDocuments
from tests.common.stores.contenders import ROOT, Address

Operation = Callable[[Documents], Coroutine[Any, Any, Any]]

OPERATIONS: dict[str, Operation] = {
    "get": lambda store: store.get("links/1"),
    "create": lambda store: store.create("links/1", {}),
    "replace": lambda store: store.replace(Document("links/1", {}, "1"), {}),
    "delete": lambda store: store.delete("links/1"),
    "delete a version": lambda store: store.delete("links/1", "1"),
    "list": lambda store: store.list("links"),
    "ping": lambda store: store.ping(),
    "update": lambda store: update(store, "links/1", lambda body: body),
}

every_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())

INVALID_KEYS = [
    "", "links", "/links/1", "links/", "links//1", "links/..", "../links/1", "links/a..b", "links/.", "./1", "a/a b",
    "links/a\n", "links/ä", "links/a?b", "links/a*", "links\\1", "links/%2e", "links/" + "x" * 507, "links/a\x00",
]  # fmt: skip


async def filled(documents: Documents, *keys: str) -> None:
    for key in keys:
        await documents.create(key, {})


async def test_a_created_document_is_read_back_as_it_was(documents: Documents) -> None:
    created = await documents.create("links/1", {"name": "a"})
    assert created == Document("links/1", {"name": "a"}, created.version)
    assert await documents.get("links/1") == created


async def test_there_is_no_document_where_none_was_written(documents: Documents) -> None:
    assert await documents.get("links/1") is None


async def test_creating_over_a_document_fails_and_leaves_it_alone(documents: Documents) -> None:
    created = await documents.create("links/1", {"name": "a"})
    with pytest.raises(DocumentExists):
        await documents.create("links/1", {"name": "b"})
    assert await documents.get("links/1") == created


async def test_replacing_gives_a_new_version(documents: Documents) -> None:
    created = await documents.create("links/1", {"name": "a"})
    replaced = await documents.replace(created, {"name": "b"})
    assert replaced.version != created.version
    assert replaced.body == {"name": "b"}
    assert await documents.get("links/1") == replaced


async def test_what_was_written_can_be_replaced_without_reading_it_again(documents: Documents) -> None:
    document = await documents.create("links/1", {"count": 0})
    for count in range(1, 25):
        document = await documents.replace(document, {"count": count})
    assert await documents.get("links/1") == document


async def test_an_old_version_replaces_nothing(documents: Documents) -> None:
    created = await documents.create("links/1", {"name": "a"})
    replaced = await documents.replace(created, {"name": "b"})
    with pytest.raises(VersionConflict):
        await documents.replace(created, {"name": "c"})
    assert await documents.get("links/1") == replaced


async def test_a_deleted_document_cannot_be_replaced(documents: Documents) -> None:
    created = await documents.create("links/1", {"name": "a"})
    await documents.delete("links/1")
    with pytest.raises(VersionConflict):
        await documents.replace(created, {"name": "b"})
    assert await documents.get("links/1") is None


async def test_a_version_never_comes_back(documents: Documents) -> None:
    versions = set()
    first = await documents.create("links/1", {"name": "a"})
    for _ in range(5):
        await documents.delete("links/1")
        versions.add((await documents.create("links/1", {"name": "a"})).version)
    assert len(versions | {first.version}) == 6
    with pytest.raises(VersionConflict):
        await documents.replace(first, {"name": "b"})
    again = await documents.get("links/1")
    assert again is not None
    assert again.body == {"name": "a"}


async def test_deleting_tells_whether_there_was_anything(documents: Documents) -> None:
    await documents.create("links/1", {})
    assert await documents.delete("links/1") is True
    assert await documents.delete("links/1") is False
    assert await documents.get("links/1") is None


async def test_the_latest_version_can_be_deleted_by_name(documents: Documents) -> None:
    created = await documents.create("links/1", {})
    assert await documents.delete("links/1", created.version) is True
    assert await documents.delete("links/1", created.version) is False


async def test_keys_are_listed_in_the_order_of_their_bytes(documents: Documents) -> None:
    keys = [
        "links/B",
        "links/a",
        "links/a-b",
        "links/a.b",
        "links/a/b",
        "links/a=b",
        "links/aa",
        "links/a_b",
        "links/10",
    ]
    await filled(documents, *keys)
    assert await documents.list("links") == sorted(keys)


async def test_a_prefix_is_a_path_and_not_a_beginning(documents: Documents) -> None:
    await filled(documents, "a/b", "a/b/c", "a/b/c/d", "a/bc/e", "a/b-c/e", "a/b.c/e", "a/b0", "b/b/c", "aa/b/c")
    assert await documents.list("a/b") == ["a/b/c", "a/b/c/d"]
    assert await documents.list("a/b/") == ["a/b/c", "a/b/c/d"]
    assert await documents.list("c") == []
    assert len(await documents.list("")) == 9


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_paging_meets_every_key_once(documents: Documents, limit: int) -> None:
    keys = sorted(["links/a", "links/a-b", "links/a.b", "links/a/b", "links/a/b/c", "links/aa", "links/b"])
    await filled(documents, "accounts/z", *keys, "zones/a")
    met: list[str] = []
    while page := await documents.list("links", limit=limit, after=met[-1] if met else None):
        assert len(page) <= limit
        met += page
    assert met == keys


async def test_paging_goes_on_after_a_key_that_is_not_there(documents: Documents) -> None:
    await filled(documents, "links/a", "links/c")
    assert await documents.list("links", after="links/b") == ["links/c"]
    assert await documents.list("links", after="accounts/z") == ["links/a", "links/c"]
    assert await documents.list("links", after="zones/a") == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"": None, "deep": {"list": [1, -2.5, True, None, "x", {"y": []}]}},
        {"größe": '日本語 \U0001f697 \u202e \x00 " \\ /'},
        {"big": "\U0001f697x" * 52_428},
        {"n": 2**63 - 1, "m": -(2**63)},
    ],
    ids=["empty", "nested", "unicode", "256 KiB", "64 bits"],
)
async def test_a_body_comes_back_unchanged(documents: Documents, body: Body) -> None:
    created = await documents.create("links/1", body)
    assert created.body == body
    replaced = await documents.replace(created, body | {"again": True})
    assert await documents.get("links/1") == replaced
    assert replaced.body == body | {"again": True}


async def test_what_a_write_returns_is_what_was_stored(documents: Documents) -> None:
    body: Body = {"names": ("a", "b"), "inner": {"x": 1}}
    created = await documents.create("links/1", body)
    body["inner"]["x"] = 2
    assert created.body == {"names": ["a", "b"], "inner": {"x": 1}}
    assert await documents.get("links/1") == created


@pytest.mark.parametrize("body", [["a"], "a", None, {"set": {1}}, {1: "a"}, {"n": 2**64}])
async def test_only_a_json_object_can_be_stored(documents: Documents, body: Any) -> None:
    with pytest.raises(TypeError):
        await documents.create("links/1", body)
    assert await documents.get("links/1") is None


async def test_a_body_has_a_largest_size(documents: Documents) -> None:
    largest = MAX_PLAIN_BYTES if isinstance(documents, SealedDocuments) else MAX_BODY_BYTES
    frame = len('{"b":""}')
    await documents.create("links/1", {"b": "x" * (largest - frame)})
    with pytest.raises(ValueError, match="at most"):
        await documents.create("links/2", {"b": "x" * (largest - frame + 1)})


@pytest.mark.parametrize("key", INVALID_KEYS)
async def test_a_malformed_key_is_refused(documents: Documents, key: str) -> None:
    for operation in (
        documents.get(key),
        documents.create(key, {}),
        documents.replace(Document(key, {}, "1"), {}),
        documents.delete(key),
        documents.list("links", after=key),
    ):
        with pytest.raises(ValueError, match="key"):
            await operation


async def test_the_longest_and_strangest_key_works(documents: Documents) -> None:
    key = "A-Z._=/.x/-/" + "x" * 500
    assert len(key) == 512
    created = await documents.create(key, {})
    assert await documents.get(key) == created
    assert await documents.list("A-Z._=") == [key]


@pytest.mark.parametrize("prefix", ["/", "links//", "/links", "links/..", ".", "li nks", "links%", "x" * 513])
async def test_a_malformed_prefix_is_refused(documents: Documents, prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        await documents.list(prefix)


async def test_a_page_has_at_least_one_key(documents: Documents) -> None:
    with pytest.raises(ValueError, match="limit"):
        await documents.list("links", limit=0)


async def test_update_writes_what_the_function_returns(documents: Documents) -> None:
    await documents.create("links/1", {"n": 1})
    updated = await update(documents, "links/1", lambda body: {"n": body["n"] + 1})
    assert updated is not None
    assert updated.body == {"n": 2}
    assert await documents.get("links/1") == updated


async def test_update_leaves_alone_what_the_function_has_no_change_for(documents: Documents) -> None:
    created = await documents.create("links/1", {"n": 1})
    assert await update(documents, "links/1", lambda _: None) == created
    assert await documents.get("links/1") == created


async def test_update_of_nothing_is_nothing(documents: Documents) -> None:
    assert await update(documents, "links/1", lambda body: body) is None
    assert await documents.get("links/1") is None


class Overtaken:
    """A store in which somebody else is faster, ``times`` over; otherwise the one it is given."""

    def __init__(self, documents: Documents, times: int) -> None:
        self._documents = documents
        self.times_left = times
        self.get = documents.get
        self.create = documents.create
        self.delete = documents.delete
        self.list = documents.list
        self.ping = documents.ping
        self.aclose = documents.aclose

    async def replace(self, document: Document, body: Body) -> Document:
        if self.times_left:
            self.times_left -= 1
            await self._documents.replace(document, document.body | {"other": self.times_left})
        return await self._documents.replace(document, body)


async def no_pause(_seconds: float) -> None:
    return


async def test_update_starts_again_from_what_somebody_else_wrote(documents: Documents) -> None:
    await documents.create("links/1", {"n": 1})
    updated = await update(Overtaken(documents, 2), "links/1", lambda body: body | {"n": 2}, attempts=3, sleep=no_pause)
    assert updated is not None
    assert updated.body == {"n": 2, "other": 0}


async def test_update_gives_up_after_its_attempts(documents: Documents) -> None:
    await documents.create("links/1", {"n": 1})
    overtaken = Overtaken(documents, 5)
    with pytest.raises(VersionConflict):
        await update(overtaken, "links/1", lambda body: body | {"n": 2}, attempts=3, sleep=no_pause)
    assert overtaken.times_left == 2
    current = await documents.get("links/1")
    assert current is not None
    assert current.body == {"n": 1, "other": 2}


async def test_update_needs_an_attempt(documents: Documents) -> None:
    with pytest.raises(ValueError, match="attempts"):
        await update(documents, "links/1", lambda body: body, attempts=0)


@every_operation
async def test_a_closed_store_is_unavailable(address: Address, operation: Operation) -> None:
    documents = address.open()
    await documents.ping()
    await documents.aclose()
    with pytest.raises(StoreUnavailable):
        await operation(documents)


async def test_a_store_can_be_closed_unused_and_twice(address: Address) -> None:
    documents = address.open()
    await documents.aclose()
    await documents.aclose()


async def test_a_working_store_answers_a_ping(documents: Documents) -> None:
    await documents.ping()


@every_operation
def test_every_operation_moves_to_the_loop_before_it_waits(address: Address, operation: Operation) -> None:
    begun = operation(address.open())
    begun.send(None)  # would raise "no running event loop" if it waited for anything else
    begun.close()


def test_a_server_thread_can_use_a_store(address: Address) -> None:
    documents = address.open()
    loop = LoopThread()
    try:
        created = loop.run(documents.create("links/1", {"n": 1}))
        assert loop.run(documents.get("links/1")) == created
        loop.run(documents.aclose())
    finally:
        loop.close()


def test_a_document_does_not_show_its_body() -> None:
    assert "planted" not in repr(Document("links/1", {"token": "planted"}, "1", ("planted",)))


@pytest.mark.parametrize(
    "url",
    [
        "", "documents.db", "sqlite://", "sqlite:///", "sqlite://documents.db", "sqlite:///:memory:", "sqlite:///state/",
        "sqlite:///a.db?mode=ro", "gs://", "gs:///prefix", "redis://host", "file:///a.db",
    ],
)  # fmt: skip
def test_an_url_that_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="document store"):
        open_documents(url)


async def test_a_relative_path_is_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    documents = open_documents("sqlite:///state/relative.db")
    await documents.create("links/1", {})
    await documents.aclose()
    assert (tmp_path / "state" / "relative.db").is_file()


def test_opening_touches_nothing_and_loads_only_what_is_used(tmp_path: Path) -> None:
    program = f"""
import sys, threading
from common.stores.documents import open_documents
open_documents("gs://no-such-bucket/prefix")
assert "google.cloud.storage" not in sys.modules and "aiosqlite" not in sys.modules
open_documents("sqlite:///{tmp_path}/state/documents.db")
assert "google.cloud.storage" not in sys.modules
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
    assert list(tmp_path.iterdir()) == []


async def test_stores_of_two_prefixes_do_not_see_each_other(gcs_address: Address) -> None:
    here = gcs_address.open()
    there = Address(gcs_address.url.replace("production", "prod"), gcs_address.gcs_endpoint).open()
    everywhere = Address(gcs_address.url.replace("/production", ""), gcs_address.gcs_endpoint).open()
    await filled(here, "links/1")
    assert await there.list("") == []
    assert await everywhere.list("") == ["production/links/1"]
    for store in (here, there, everywhere):
        await store.aclose()
