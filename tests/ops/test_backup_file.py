"""The file of a backup: to the bit what was written, or refused."""

import io
import os
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.crypto.keyset import Keyset
from ops.backup_create import new_file
from ops.backup_file import CHUNK_BYTES, BackupReader, BackupWriter, Damaged, Foreign, Manifest, Record
from tests.common.crypto.masters import K1, K2

KEYS = Keyset.parse(K1)
MANIFEST = Manifest("sqlite:///x.db", {"tokens": 3}, 2)
ABOUT = {"backup_id": "one", "created_at": "2026-01-01T00:00:00+00:00"}


def written(records: list[Record], keyset: Keyset = KEYS) -> bytes:
    file = io.BytesIO()
    writer = BackupWriter(file, keyset, **ABOUT)
    for record in records:
        writer.add(record)
    writer.finish(MANIFEST)
    return file.getvalue()


def read(content: bytes, keyset: Keyset = KEYS) -> tuple[list[Record], Manifest]:
    reader = BackupReader(io.BytesIO(content), keyset)
    records = list(reader.records())
    return records, reader.manifest


def large(count: int, rng: random.Random) -> list[Record]:
    return [Record(f"acc_{number}", rng.randbytes(CHUNK_BYTES // 2 + 1)) for number in range(count)]


@given(st.lists(st.builds(Record, st.text(max_size=9), st.binary(max_size=99)), max_size=9))
def test_whatever_is_written_is_read(records: list[Record]) -> None:
    assert read(written(records)) == (records, MANIFEST)


def test_records_of_many_chunks_keep_their_order() -> None:
    records = large(7, random.Random(1))
    content = written(records)
    assert len(chunks(content)) == 5  # two records fill one, and the end
    assert read(content) == (records, MANIFEST)


def test_nothing_readable_but_the_header_is_in_the_file() -> None:
    content = written([Record("acc_1", b"a secret " * 100)])
    header = orjson.loads(content.splitlines()[1])
    assert {name: header[name] for name in ("id", "created_at", "kid")} == {
        "id": "one",
        "created_at": ABOUT["created_at"],
        "kid": "k1",
    }
    for readable in (b"acc_1", b"secret", b"sqlite", b"tokens"):
        assert readable not in content


def test_a_bit_that_is_flipped_anywhere_is_noticed() -> None:
    content = written([Record("acc_1", b"one"), Record("", b"two")])
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << (at % 8)
        with pytest.raises((Damaged, Foreign)):
            read(bytes(flipped))


def test_a_header_that_is_spelled_in_another_way_is_noticed() -> None:
    with pytest.raises(Damaged, match="chunk 0"):
        read(written([]).replace(b'{"id":', b'{ "id":', 1))


def test_a_file_that_is_cut_short_anywhere_is_noticed() -> None:
    content = written([Record("acc_1", b"one"), Record("", b"two")])
    for length in range(len(content)):
        with pytest.raises((Damaged, Foreign)):
            read(content[:length])


def chunks(content: bytes) -> list[bytes]:
    """The chunks of a file, headers left out."""
    at, found = content.index(b"\n", content.index(b"\n") + 1) + 1, []
    while at < len(content):
        end = at + 5 + int.from_bytes(content[at + 1 : at + 5], "big")
        found.append(content[at:end])
        at = end
    return found


def tampered(content: bytes) -> Iterator[list[bytes]]:
    """The chunks, dropped, repeated, reordered, relabelled and continued."""
    parts = chunks(content)
    for at in range(len(parts)):
        yield parts[:at] + parts[at + 1 :]
        yield parts[: at + 1] + parts[at:]
        yield [*parts[:at], {b"D": b"E", b"E": b"D"}[parts[at][:1]] + parts[at][1:], *parts[at + 1 :]]
    yield [parts[1], parts[0], *parts[2:]]
    yield [*parts, b"more"]
    yield [b"X\0\0\0\0", *parts]
    yield [b"D\xff\xff\xff\xff", *parts]


def test_chunks_that_are_dropped_repeated_reordered_relabelled_or_added_are_noticed() -> None:
    content = written(large(5, random.Random(2)))
    head = content[: len(content) - sum(map(len, chunks(content)))]
    tried = 0
    for parts in tampered(content):
        tried += 1
        with pytest.raises(Damaged):
            read(head + b"".join(parts))
    assert tried == 16


def test_a_chunk_of_another_backup_is_noticed() -> None:
    ours, other = written([Record("", b"ours")]), written([Record("", b"other")])
    mixed = [chunks(other)[0], *chunks(ours)[1:]]
    head = ours[: len(ours) - sum(map(len, chunks(ours)))]
    with pytest.raises(Damaged, match="chunk 0"):
        read(head + b"".join(mixed))


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"draiv-backup 2\n{}\n", b"draiv-backup 1\n", b"draiv-backup 1\n[]\n",
     b'draiv-backup 1\n{"id": 1, "created_at": "", "kid": "k1", "key": ""}\n'],
)  # fmt: skip
def test_what_is_no_backup_is_told(content: bytes) -> None:
    with pytest.raises(Damaged):
        read(content)


def test_a_retired_key_opens_and_another_one_is_told_apart_from_damage() -> None:
    content = written([Record("", b"one")])
    assert read(content, Keyset.parse(f"{K2},{K1}"))[0] == [Record("", b"one")]
    with pytest.raises(Foreign, match="'k1', which TOKEN_KEYS does not hold"):
        read(content, Keyset.parse(K2))
    with pytest.raises(Foreign, match="another deployment's"):
        read(content, Keyset([("k1", b"x" * 32)]))


def test_the_manifest_is_told_only_when_all_is_read() -> None:
    reader = BackupReader(io.BytesIO(written([])), KEYS)
    with pytest.raises(ValueError, match="read the records first"):
        _ = reader.manifest


def test_memory_does_not_grow_with_the_backup(tmp_path: Path) -> None:
    def peak_bytes(count: int) -> int:
        path = tmp_path / f"{count}"
        tracemalloc.start()
        with path.open("wb") as file:
            writer = BackupWriter(file, KEYS, **ABOUT)
            for _ in range(count):
                writer.add(Record("acc_1", os.urandom(100_000)))
            writer.finish(MANIFEST)
        with path.open("rb") as file:
            assert sum(1 for _ in BackupReader(file, KEYS).records()) == count
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    few, many = peak_bytes(30), peak_bytes(300)
    assert many < few * 1.3


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "one"
    with new_file(path) as file:
        file.write(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"
    with pytest.raises(ZeroDivisionError), new_file(tmp_path / "two"):
        _ = 1 / 0
    with pytest.raises(FileExistsError), new_file(tmp_path / "three"):
        (tmp_path / "three").write_text("somebody else's")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["one", "three"]
    assert (tmp_path / "three").read_text() == "somebody else's"
