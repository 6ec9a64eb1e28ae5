"""The proof of the audit trail, against somebody who edits the store by hand, and the command line."""

import asyncio
import contextlib
import copy
import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.clock import ManualClock
from common.errors import StoreUnavailable
from common.stores.documents import open_documents
from functions.audit import AuditKey, AuditTrail, entry_key, head_key
from ops import audit
from ops.audit_proof import examine
from tests.support.audit_writer import KEY, OTHER_VIN, VIN, enter, record
from tests.support.fake_gcs import running_fake_gcs
from tests.support.tapped_documents import TappedDocuments, When

ROOT = Path(__file__).parents[2]
SEAL = AuditKey(KEY.encode())
CHAIN = SEAL.pseudonym("vehicle", VIN)
OTHER = SEAL.pseudonym("vehicle", OTHER_VIN)
LENGTH = 6
FIELDS = (
    *("seq", "at", "event", "command", "operation", "state", "caller"),
    *("account", "vehicle", "params", "idempotency_key", "prev", "hash"),
)

Rows = dict[str, bytes]


def write_trail(url: str, key: str | None, endpoint: str | None = None) -> None:
    """Three commands to one vehicle and two to another, a minute apart."""

    async def write() -> None:
        clock = ManualClock()
        documents = open_documents(url, gcs_endpoint=endpoint)
        trail = AuditTrail(documents, clock, key=key.encode() if key else None)
        for number, vin in enumerate([VIN, OTHER_VIN, VIN, OTHER_VIN, VIN]):
            await enter(trail, record(str(number), vin=vin))
            clock.advance(60)
        await documents.aclose()

    asyncio.run(write())


class Trail:
    """A document store in a file, as somebody sees it who opens the file by hand."""

    def __init__(self, path: Path, key: str | None = KEY) -> None:
        self.path = path
        self.environ = {"DOCUMENTS_URL": f"sqlite:///{path}"} | ({"AUDIT_KEY": key} if key else {})

    @property
    def rows(self) -> Rows:
        with closing(sqlite3.connect(self.path)) as store:
            return dict(store.execute("SELECT key, body FROM documents").fetchall())

    @rows.setter
    def rows(self, rows: Rows) -> None:
        with closing(sqlite3.connect(self.path)) as store, store:
            store.execute("PRAGMA synchronous = OFF")
            store.execute("DELETE FROM documents")
            store.executemany("INSERT INTO documents (key, body) VALUES (?, ?)", rows.items())

    def change(self, key: str, **fields: object) -> None:
        """Set fields of one document."""
        rows = self.rows
        self.rows = rows | {key: json.dumps(json.loads(rows[key]) | fields).encode()}

    def run(self, *argv: str) -> tuple[int, str]:
        """Exit status and everything that is said."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = audit.main(list(argv), self.environ)
        return status, said.getvalue()

    def findings(self, *argv: str) -> list[str]:
        """What ``verify`` finds in the chain of VIN; there must be an exit status to match."""
        status, said = self.run("verify", *argv)
        found = [line for line in said.splitlines() if line.startswith("BROKEN")]
        assert status == (1 if found else 0), said
        return [line.removeprefix(f"BROKEN  chain {CHAIN}  ") for line in found]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rows]:
    path = tmp_path_factory.mktemp("audit") / "documents.db"
    write_trail(f"sqlite:///{path}", KEY)
    rows = Trail(path).rows
    before = copy.deepcopy(rows)
    yield rows
    assert rows == before


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a store that holds nothing."""
    path = tmp_path_factory.mktemp("audit") / "documents.db"

    async def make() -> None:
        documents = open_documents(f"sqlite:///{path}")
        await documents.ping()
        await documents.aclose()

    asyncio.run(make())
    return path.read_bytes()


@pytest.fixture
def trail(tmp_path: Path, written: Rows, empty_store: bytes) -> Trail:
    path = tmp_path / "documents.db"
    path.write_bytes(empty_store)
    trail = Trail(path)
    trail.rows = written
    return trail


def altered(value: Any) -> list[Any]:
    """Values that are not ``value``, some of which only just differ."""
    if isinstance(value, int):
        return [value + 1, value - 1, float(value), str(value), None, -value, 2**70, True]
    return [f"{value} ", value.swapcase() + "0", value[:-1], "", None, 0, [value], {"a": value}]


def hash_of(rows: Rows, seq: int) -> str:
    """The hash of an entry of CHAIN."""
    return str(json.loads(rows[entry_key(CHAIN, seq)])["hash"]) if seq else "0" * 64


def head_after(rows: Rows, seq: int) -> bytes:
    """The genuine head of CHAIN as it was before later entries: somebody kept a copy."""
    return json.dumps(SEAL.seal({"chain": CHAIN, "seq": seq, "entry": hash_of(rows, seq)})).encode()


# --- nothing was done


def test_a_trail_that_nobody_has_touched_is_proven(trail: Trail) -> None:
    assert trail.run("verify") == (0, "chains: 2, entries: 10; all proven\n")


def test_an_empty_store_has_nothing_to_prove(trail: Trail) -> None:
    trail.rows = {}
    assert trail.run("verify") == (0, "chains: 0, entries: 0; all proven\n")


def test_one_chain_can_be_proven_alone_by_the_beginning_of_its_name(trail: Trail) -> None:
    trail.change(entry_key(OTHER, 1), state="confirmed")
    assert trail.run("verify")[0] == 1
    assert trail.run("verify", "--chain", OTHER[:12])[0] == 1
    assert trail.run("verify", "--chain", CHAIN) == (0, "chains: 1, entries: 6; all proven\n")


def test_a_chain_that_is_asked_for_and_not_there_is_not_proven(trail: Trail) -> None:
    status, said = trail.run("verify", "--chain", "no-such")
    assert status == 1
    assert "no chain whose name begins with no-such" in said


def test_one_entry_ahead_of_the_head_is_a_crash_and_not_tampering(trail: Trail, written: Rows) -> None:
    rows = written | {head_key(CHAIN): head_after(written, 5)}
    trail.rows = rows
    status, said = trail.run("verify")
    assert status == 0
    assert f"note    chain {CHAIN}  entry 6: the writer was stopped right after it" in said


# --- one entry was changed


@pytest.mark.parametrize("field", FIELDS)
def test_a_change_of_any_field_of_any_entry_is_found_and_named(trail: Trail, written: Rows, field: str) -> None:
    for seq in range(1, LENGTH + 1):
        value = json.loads(written[entry_key(CHAIN, seq)])[field]
        for other in altered(value)[: None if seq == 1 else 2]:
            trail.rows = written
            trail.change(entry_key(CHAIN, seq), **{field: other})
            assert f"entry {seq}: was changed" in trail.findings(), other


@pytest.mark.parametrize("field", ["chain", "seq", "entry", "hash"])
def test_a_change_of_any_field_of_a_head_is_found(trail: Trail, written: Rows, field: str) -> None:
    for other in altered(json.loads(written[head_key(CHAIN)])[field]):
        trail.rows = written
        trail.change(head_key(CHAIN), **{field: other})
        assert trail.findings() == ["head: was changed"], other


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"not JSON", b"\xff\xfe", b"null", b"[]", b'"text"', b"{}", b"1"),
        b'{"seq": %s}' % (b"[" * 500 + b"]" * 500),
    ],
)
@pytest.mark.parametrize("name", ["000000000002", "head"])
def test_a_document_that_is_something_else_is_found(trail: Trail, written: Rows, body: bytes, name: str) -> None:
    trail.rows = written | {f"audit/{CHAIN}/{name}": body}
    where = "head" if name == "head" else "entry 2"
    (found,) = trail.findings()
    assert found in (f"{where}: was changed", f"{where}: cannot be read")


@pytest.mark.parametrize("change", ["left out", "added"])
def test_a_field_left_out_or_added_is_found(trail: Trail, written: Rows, change: str) -> None:
    for field in FIELDS:
        body = json.loads(written[entry_key(CHAIN, 4)])
        body = {name: value for name, value in body.items() if name != field} if change == "left out" else body
        body |= {f"{field}_": body.get(field)} if change == "added" else {}
        trail.rows = written | {entry_key(CHAIN, 4): json.dumps(body).encode()}
        assert trail.findings() == ["entry 4: was changed"]


# --- entries were removed, moved, added


def test_a_removed_entry_is_found_and_named(trail: Trail, written: Rows) -> None:
    for seq in range(1, LENGTH):
        trail.rows = {key: body for key, body in written.items() if key != entry_key(CHAIN, seq)}
        assert trail.findings() == [f"entry {seq}: removed"]
    trail.rows = {key: body for key, body in written.items() if key not in (entry_key(CHAIN, 2), entry_key(CHAIN, 3))}
    assert trail.findings() == ["entries 2 to 3: removed"]


def test_a_removed_entry_is_found_where_the_others_were_moved_up(trail: Trail, written: Rows) -> None:
    rows = dict(written)
    for seq in range(3, LENGTH):
        rows[entry_key(CHAIN, seq)] = rows[entry_key(CHAIN, seq + 1)]
    del rows[entry_key(CHAIN, LENGTH)]
    trail.rows = rows
    found = trail.findings()
    assert "entry 3: is out of its place: it was written as entry 4" in found
    assert f"entry {LENGTH}: cut off at the end" in found


@pytest.mark.parametrize("kept", range(LENGTH))
def test_a_tail_that_was_cut_off_is_found(trail: Trail, written: Rows, kept: int) -> None:
    cut = [entry_key(CHAIN, seq) for seq in range(kept + 1, LENGTH + 1)]
    trail.rows = {key: body for key, body in written.items() if key not in cut}
    span = f"entry {LENGTH}" if kept == LENGTH - 1 else f"entries {kept + 1} to {LENGTH}"
    assert trail.findings() == [f"{span}: cut off at the end"]


@pytest.mark.parametrize("kept", range(LENGTH))
def test_a_tail_cut_off_with_its_head_rewound_is_found(trail: Trail, written: Rows, kept: int) -> None:
    cut = [entry_key(CHAIN, seq) for seq in range(kept + 1, LENGTH + 1)]
    trail.rows = {key: body for key, body in written.items() if key not in cut}
    trail.change(head_key(CHAIN), seq=kept, entry=hash_of(written, kept))
    assert trail.findings() == ["head: was changed"]
    guessed = AuditKey(None).seal({"chain": CHAIN, "seq": kept, "entry": hash_of(written, kept)})
    trail.change(head_key(CHAIN), **guessed)
    assert trail.findings() == ["head: was changed"]


def test_a_head_rewound_by_itself_is_found(trail: Trail, written: Rows) -> None:
    trail.rows = written | {head_key(CHAIN): head_after(written, 3)}
    assert trail.findings() == ["entries 4 to 6: written after the head, which ends at 3"]


def test_a_head_that_was_removed_or_is_another_chains_is_found(trail: Trail, written: Rows) -> None:
    trail.rows = {key: body for key, body in written.items() if key != head_key(CHAIN)}
    assert trail.findings() == ["head: is missing"]
    trail.rows = written | {head_key(CHAIN): written[head_key(OTHER)]}
    assert trail.findings() == ["head: was changed"]


def test_entries_that_were_swapped_are_found(trail: Trail, written: Rows) -> None:
    for seq in range(1, LENGTH):
        one, two = entry_key(CHAIN, seq), entry_key(CHAIN, seq + 1)
        trail.rows = written | {one: written[two], two: written[one]}
        assert trail.findings() == [
            f"entry {seq}: is out of its place: it was written as entry {seq + 1}",
            f"entry {seq + 1}: is out of its place: it was written as entry {seq}",
        ]


def test_an_entry_of_another_vehicle_is_found(trail: Trail, written: Rows) -> None:
    trail.rows = written | {entry_key(CHAIN, 3): written[entry_key(OTHER, 3)]}
    assert trail.findings() == [f"entry 3: is out of its place: it was written as entry 3 of chain {OTHER}"]


def test_a_duplicated_entry_is_found(trail: Trail, written: Rows) -> None:
    trail.rows = written | {entry_key(CHAIN, LENGTH + 1): written[entry_key(CHAIN, LENGTH)]}
    assert trail.findings() == [f"entry 7: is out of its place: it was written as entry {LENGTH}"]
    trail.rows = written | {entry_key(CHAIN, 3): written[entry_key(CHAIN, 2)]}
    assert trail.findings() == ["entry 3: is out of its place: it was written as entry 2"]


def test_entries_made_up_without_the_key_are_found(trail: Trail, written: Rows) -> None:
    rows = dict(written)
    body = json.loads(rows[entry_key(CHAIN, LENGTH)])
    for seq in (7, 8):
        body = AuditKey(None).seal({k: v for k, v in body.items() if k != "hash"} | {"seq": seq, "prev": body["hash"]})
        rows[entry_key(CHAIN, seq)] = json.dumps(body).encode()
    trail.rows = rows
    found = trail.findings()
    assert found[:2] == ["entry 7: was changed", "entry 8: was changed"]
    assert "entries 7 to 8: written after the head, which ends at 6" in found


def test_an_entry_far_away_is_found_without_counting_up_to_it(trail: Trail, written: Rows) -> None:
    trail.rows = written | {entry_key(CHAIN, 999_999_999_999): written[entry_key(CHAIN, 1)]}
    assert "entries 7 to 999999999998: removed" in trail.findings()


@pytest.mark.parametrize("name", ["1", "000000000000", "00000000000a", "-00000000001", "0000000000001", "x/y", "tail"])
def test_a_document_that_does_not_belong_to_a_chain_is_found(trail: Trail, written: Rows, name: str) -> None:
    trail.rows = written | {f"audit/{CHAIN}/{name}": b"{}"}
    assert trail.findings() == [f"document '{name}': does not belong to a chain"]


@pytest.mark.parametrize("key", ["audit/short/000000000001", "audit/alone", "audit/\x1b[2J/1"])
def test_a_document_outside_of_all_chains_is_found_and_cannot_play_tricks_on_the_screen(
    trail: Trail, written: Rows, key: str
) -> None:
    trail.rows = written | {key: b"{}"}
    status, said = trail.run("verify")
    assert status == 1
    assert "does not belong to a chain" in said
    assert "\x1b" not in said


def test_a_trail_of_more_documents_than_a_listing_gives_at_once_is_proven_to_its_end(
    trail: Trail, written: Rows
) -> None:
    trail.rows = written | {f"audit/{'0' * 64}/{n:012d}": b"{}" for n in range(1, 1100)}
    trail.change(entry_key(CHAIN, 6), state="failed")
    found = trail.findings()
    assert "entry 6: was changed" in found
    assert len(found) == 1 + 1099 + 1  # and the head that they have not


def test_a_listing_that_cannot_go_on_is_not_a_proof(trail: Trail, written: Rows) -> None:
    trail.rows = written | {f"audit/{CHAIN}/~": b"{}"} | {f"audit/{CHAIN}/x{n}": b"{}" for n in range(985)}
    status, said = trail.run("verify")
    assert status == 1, said


def test_the_wrong_key_fits_nothing_and_is_guessed_to_be_the_cause(trail: Trail) -> None:
    trail.environ["AUDIT_KEY"] = "x" * 32
    status, said = trail.run("verify")
    assert status == 1
    assert "is AUDIT_KEY the key under which they were written?" in said


# --- without a key


@pytest.fixture
def keyless(tmp_path: Path) -> Trail:
    path = tmp_path / "keyless.db"
    write_trail(f"sqlite:///{path}", None)
    return Trail(path, key=None)


def rewrite(trail: Trail, seal: AuditKey) -> None:
    """Let every command have failed, and compute all hashes anew."""
    rows, heads = trail.rows, [key for key in trail.rows if key.endswith("/head")]
    for head in heads:
        prev, seq = "0" * 64, 0
        for key in sorted(key for key in rows if key.startswith(head.removesuffix("head")) and key != head):
            facts = {name: value for name, value in json.loads(rows[key]).items() if name != "hash"}
            body = seal.seal(facts | {"prev": prev, "state": "failed"})
            rows[key] = json.dumps(body).encode()
            prev, seq = body["hash"], body["seq"]
        rows[head] = json.dumps(seal.seal({"chain": head.split("/")[1], "seq": seq, "entry": prev})).encode()
    trail.rows = rows


def test_without_a_key_the_proof_says_what_it_is_worth(keyless: Trail) -> None:
    status, said = keyless.run("verify")
    assert status == 0
    assert "AUDIT_KEY is not set: this proves order and integrity only against those who cannot rewrite" in said


def test_without_a_key_an_entry_resealed_alone_is_found(keyless: Trail) -> None:
    seal = AuditKey(None)
    chain = seal.pseudonym("vehicle", VIN)
    rows = keyless.rows
    for seq, problem in [(3, "entry 4: does not follow the entry before it"), (6, "entry 6: is not the one that the")]:
        facts = {name: value for name, value in json.loads(rows[entry_key(chain, seq)]).items() if name != "hash"}
        keyless.rows = rows | {entry_key(chain, seq): json.dumps(seal.seal(facts | {"state": "failed"})).encode()}
        status, said = keyless.run("verify")
        assert status == 1
        assert f"{chain}  {problem}" in said


def test_without_a_key_a_field_added_and_sealed_is_found(keyless: Trail) -> None:
    seal = AuditKey(None)
    key = entry_key(seal.pseudonym("vehicle", VIN), 2)
    facts = {name: value for name, value in json.loads(keyless.rows[key]).items() if name != "hash"}
    keyless.change(key, **seal.seal(facts | {"remark": "none"}))
    status, said = keyless.run("verify")
    assert (status, "entry 2: was changed" in said) == (1, True)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"seq": -1}, "head: was changed"),
        ({"seq": 10**9}, f"entries 7 to {10**9}: cut off at the end"),
        ({"seq": "6"}, "head: was changed"),
        ({"chain": "f" * 64}, "head: was changed"),
    ],
)
def test_without_a_key_a_head_that_makes_no_sense_is_found(
    keyless: Trail, changes: dict[str, Any], problem: str
) -> None:
    seal = AuditKey(None)
    key = head_key(seal.pseudonym("vehicle", VIN))
    body = json.loads(keyless.rows[key])
    del body["hash"]
    keyless.change(key, **seal.seal(body | changes))
    status, said = keyless.run("verify")
    assert status == 1
    assert said.count("BROKEN") == 1
    assert problem in said


def test_a_chain_rewritten_as_a_whole_is_found_with_a_key_and_not_without(trail: Trail, keyless: Trail) -> None:
    rewrite(trail, AuditKey(None))
    assert trail.run("verify")[0] == 1
    rewrite(keyless, AuditKey(None))
    assert keyless.run("verify")[0] == 0


# --- with an anchor


def test_an_anchor_finds_what_was_rewound_to_an_earlier_state(trail: Trail, written: Rows, tmp_path: Path) -> None:
    """Nothing in the store can tell: it is the store as it once was."""
    anchor = str(tmp_path / "anchor.json")
    assert trail.findings("--anchor", anchor) == []
    cut = [entry_key(CHAIN, seq) for seq in range(4, LENGTH + 1)]
    trail.rows = {key: body for key, body in written.items() if key not in cut} | {
        head_key(CHAIN): head_after(written, 3)
    }
    assert trail.findings() == []
    assert trail.findings("--anchor", anchor) == ["entry 6: is not the one that was anchored"]


def test_an_anchor_finds_a_chain_that_was_removed_as_a_whole(trail: Trail, written: Rows, tmp_path: Path) -> None:
    anchor = str(tmp_path / "anchor.json")
    assert trail.findings("--anchor", anchor) == []
    trail.rows = {key: body for key, body in written.items() if CHAIN not in key}
    assert trail.findings("--anchor", anchor) == ["entries 1 to 6: the whole chain was removed"]
    assert trail.findings("--anchor", anchor, "--chain", CHAIN) == ["entries 1 to 6: the whole chain was removed"]
    assert trail.findings("--anchor", anchor, "--chain", OTHER) == []
    assert trail.findings("--anchor", anchor) == ["entries 1 to 6: the whole chain was removed"]  # not forgotten


def test_an_anchor_finds_a_keyless_chain_rewritten_as_a_whole(keyless: Trail, tmp_path: Path) -> None:
    anchor = str(tmp_path / "anchor.json")
    assert keyless.run("verify", "--anchor", anchor)[0] == 0
    rewrite(keyless, AuditKey(None))
    status, said = keyless.run("verify", "--anchor", anchor)
    assert (status, said.count("is not the one that was anchored")) == (1, 2)


def test_an_anchor_moves_on_with_what_is_proven_and_stays_where_something_is_not(
    trail: Trail, written: Rows, tmp_path: Path
) -> None:
    anchor = tmp_path / "anchor.json"
    trail.rows = {key: body for key, body in written.items() if key != entry_key(CHAIN, 6)}
    trail.rows |= {head_key(CHAIN): head_after(written, 5)}
    assert trail.findings("--anchor", str(anchor)) == []
    assert json.loads(anchor.read_text())[CHAIN] == [5, hash_of(written, 5)]
    trail.rows = written
    trail.change(entry_key(OTHER, 1), state="failed")
    assert trail.findings("--anchor", str(anchor)) != []
    assert json.loads(anchor.read_text())[CHAIN] == [5, hash_of(written, 5)]
    trail.rows = written
    assert trail.findings("--anchor", str(anchor)) == []
    assert json.loads(anchor.read_text())[CHAIN] == [6, hash_of(written, 6)]
    assert [file.name for file in tmp_path.glob("anchor*")] == ["anchor.json"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": [1]}'])
def test_a_file_that_is_no_anchor_is_refused(trail: Trail, tmp_path: Path, text: str) -> None:
    (tmp_path / "anchor.json").write_text(text)
    status, said = trail.run("verify", "--anchor", str(tmp_path / "anchor.json"))
    assert status == 1
    assert "is no anchor" in said


# --- anything at all


@st.composite
def tampered(draw: st.DrawFn, rows: Rows) -> Rows:
    """``rows`` after up to four strokes of somebody who has no key but may copy, remove and edit what he likes."""
    now, keys = dict(rows), sorted(rows)
    for _ in range(draw(st.integers(1, 4))):
        key, other = draw(st.sampled_from(keys)), draw(st.sampled_from(keys))
        stroke = draw(st.sampled_from(["remove", "copy", "swap", "edit", "add", "restore", "byte"]))
        if stroke == "remove":
            now.pop(key, None)
        elif stroke == "copy" and other in now:
            now[key] = now[other]
        elif stroke == "swap" and key in now and other in now:
            now[key], now[other] = now[other], now[key]
        elif stroke == "add" and key in now:
            now[entry_key(draw(st.sampled_from([CHAIN, OTHER, "f" * 64])), draw(st.integers(1, 9)))] = now[key]
        elif stroke == "restore":
            now[key] = rows[key]
        elif stroke == "byte" and key in now:
            at = draw(st.integers(0, len(now[key]) - 1))
            now[key] = now[key][:at] + draw(st.binary(max_size=2)) + now[key][at + 1 :]
        elif stroke == "edit" and key in now:
            with contextlib.suppress(ValueError, AttributeError):
                body = json.loads(now[key])
                field = draw(st.sampled_from(sorted(body) or ["seq"]))
                body[field] = draw(
                    st.one_of(
                        st.integers(0, 9),
                        st.text(max_size=4),
                        st.sampled_from([hash_of(rows, seq) for seq in range(LENGTH + 1)]),
                    )
                )
                now[key] = json.dumps(body).encode()
    return now


def meaning(rows: Rows) -> dict[str, Any]:
    def read(body: bytes) -> Any:
        try:
            return json.loads(body)
        except ValueError:
            return body

    return {key: read(body) for key, body in rows.items()}


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_somebody_without_the_key_does_is_found(
    data: st.DataObject, trail: Trail, written: Rows, tmp_path: Path
) -> None:
    anchor = tmp_path / "anchor.json"
    last = {chain: json.loads(written[head_key(chain)]) for chain in (CHAIN, OTHER)}
    anchor.write_text(json.dumps({chain: (head["seq"], head["entry"]) for chain, head in last.items()}))
    now = data.draw(tampered(written))
    trail.rows = now
    is_changed = meaning(now) != meaning(written)
    assert trail.run("verify", "--anchor", str(anchor))[0] == (1 if is_changed else 0)


# --- beside the running service, and from the command line


def test_a_trail_that_is_being_written_to_raises_no_false_alarm(tmp_path: Path, empty_store: bytes) -> None:
    path = tmp_path / "live.db"
    path.write_bytes(empty_store)
    trail = Trail(path)
    program = [sys.executable, "-m", "tests.support.audit_writer", f"sqlite:///{path}", "live", "0"]
    with subprocess.Popen(program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
        try:
            for _ in range(12):
                writer.stdout.readline()
                assert trail.findings() == []
        finally:
            writer.kill()
    assert trail.findings() == []
    assert len(trail.rows) >= 24


@pytest.mark.parametrize("operations", [("list",), ("get",), ("list", "get")])
async def test_entries_written_between_two_steps_of_a_proof_do_not_look_like_gaps(
    trail: Trail, operations: tuple[str, ...]
) -> None:
    documents = open_documents(trail.environ["DOCUMENTS_URL"])
    writer = AuditTrail(documents, ManualClock(), key=KEY.encode())

    async def write(when: When, name: str, key: str) -> None:
        if when is When.AFTER and name in operations and key in ("audit", head_key(CHAIN)):
            await enter(writer, record())
            await enter(writer, record())

    reader = audit.Reader(TappedDocuments(documents, write), SEAL)
    listed = (await reader.chains())[CHAIN]
    examined = examine(SEAL, await reader.read(CHAIN, listed))
    await documents.aclose()
    assert examined.findings == ()
    assert len(examined.entries) >= LENGTH


async def test_a_store_that_fails_halfway_is_not_taken_for_tampering(trail: Trail) -> None:
    documents = open_documents(trail.environ["DOCUMENTS_URL"])
    reader = audit.Reader(documents, SEAL)
    listed = (await reader.chains())[CHAIN]
    await documents.aclose()
    with pytest.raises(StoreUnavailable):
        await reader.read(CHAIN, listed)


def shell(trail: Trail, *argv: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], **trail.environ}
    program = [sys.executable, "-m", "ops.audit", *argv]
    return subprocess.run(program, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


def test_the_command_line_proves_and_lists(trail: Trail) -> None:
    proven = shell(trail, "verify")
    assert (proven.returncode, proven.stdout, proven.stderr) == (0, "chains: 2, entries: 10; all proven\n", "")
    trail.change(entry_key(CHAIN, 4), at="2026-01-01T00:00:00+00:00")
    broken = shell(trail, "verify")
    assert broken.returncode == 1
    assert f"BROKEN  chain {CHAIN}  entry 4: was changed\n" in broken.stdout
    listed = shell(trail, "list", "--vehicle", OTHER_VIN)
    assert (listed.returncode, len(listed.stdout.splitlines())) == (0, 5)
    assert KEY not in proven.stdout + broken.stdout + listed.stdout


def test_entries_are_listed_oldest_first_for_all_vehicles_or_one(trail: Trail) -> None:
    status, said = trail.run("list")
    head, *lines = said.splitlines()
    assert status == 0
    assert head.split() == ["at", "event", "operation", "state", "command", "caller", "account", "vehicle", "seq"]
    assert [line.split()[4][-1] for line in lines] == [*"0011223344"]
    assert [line.split()[1:4] for line in lines[:2]] == [
        ["intent", "send_poi", "accepted"],
        ["outcome", "send_poi", "executed"],
    ]
    _, said = trail.run("list", "--vehicle", VIN)
    assert [line.split()[-2:] for line in said.splitlines()[1:]] == [[CHAIN[:12], str(seq)] for seq in range(1, 7)]
    assert VIN not in said
    assert len(trail.run("list", "--vehicle", "WBA00000000DEMO99")[1].splitlines()) == 1


@pytest.mark.parametrize(
    ("since", "left"),
    [
        ("2026-01-01", 10),
        ("2026-01-01T12:00:00", 10),
        ("2026-01-01T12:00:00.000001Z", 8),
        ("2026-01-01T13:04:00+01:00", 2),
        ("2026-01-02", 0),
    ],
)
def test_entries_can_be_listed_from_a_time_on(trail: Trail, since: str, left: int) -> None:
    assert len(trail.run("list", "--since", since)[1].splitlines()) == 1 + left


def test_a_time_that_is_none_is_refused(trail: Trail) -> None:
    with pytest.raises(SystemExit, match="2"):
        trail.run("list", "--since", "yesterday")


def test_a_list_with_holes_says_so(trail: Trail, written: Rows) -> None:
    trail.rows = {key: body for key, body in written.items() if key != entry_key(CHAIN, 2)}
    status, said = trail.run("list")
    assert status == 1
    assert f"Not proven, see `verify`: {CHAIN}" in said
    assert len([line for line in said.splitlines() if line.startswith("2026-")]) == 9


def test_a_store_that_is_not_there_is_not_proven_and_not_made(trail: Trail, tmp_path: Path) -> None:
    trail.environ["DOCUMENTS_URL"] = f"sqlite:///{tmp_path}/typo.db"
    status, said = trail.run("verify")
    assert (status, "there is no file" in said) == (1, True)
    assert not (tmp_path / "typo.db").exists()


def test_a_store_that_cannot_be_read_is_not_proven(trail: Trail) -> None:
    trail.path.write_bytes(b"not a database, and long enough to be taken for one" * 100)
    status, said = trail.run("verify")
    assert status == 1
    assert "The trail cannot be read" in said


def test_a_key_that_is_too_short_is_refused_without_being_shown(trail: Trail) -> None:
    for short in ("", "too-short-8Kd"):
        trail.environ["AUDIT_KEY"] = short
        status, said = trail.run("verify")
        assert status == 1
        assert "AUDIT_KEY" in said
        assert "8Kd" not in said


def test_a_trail_in_a_bucket_is_proven_as_well(tmp_path: Path) -> None:
    with running_fake_gcs() as server:
        bucket = server.new_bucket()
        url = f"gs://{bucket}/production"
        write_trail(url, KEY, server.url)
        trail = Trail(tmp_path / "none")
        trail.environ |= {"DOCUMENTS_URL": url, "GCS_ENDPOINT": server.url}
        assert trail.run("verify") == (0, "chains: 2, entries: 10; all proven\n")

        async def remove() -> None:
            documents = open_documents(url, gcs_endpoint=server.url)
            await documents.delete(entry_key(CHAIN, 6))
            await documents.aclose()

        asyncio.run(remove())
        assert trail.findings() == ["entry 6: cut off at the end"]
