"""Bad paths, damaged directories, impossible values, full heaps, forks, exits: an error that says
what is wrong, or the right contents. Never a signal, never half of an operation, never a wrong
value.

What may crash runs in a forked child or in an interpreter of its own.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import errno
import hashlib
import os
import platform
import random
import shutil
import struct
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import msgpack
import pytest
from helpers import (
    ChildError,
    change,
    contents,
    fill,
    in_child,
    know_shapes,
    plain,
    require_root,
    require_tracker,
    seeded,
    skip_kernel_test,
    steady_repr,
)

import dirtyheap as dh
from dirtyheap import rows

pytestmark = pytest.mark.timeout(180)

NOBODY = 65534


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that other users can reach and write; pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="dh-open-") as name:
        os.chmod(name, 0o777)
        yield Path(name)


def snapshot(directory: Path) -> dict[str, bytes]:
    """Every file with its bytes, but for the locks."""
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in sorted(directory.rglob("*"))
        if file.is_file() and not file.name.endswith(("lock.mdb", "writer.lock"))
    }


# --- paths ---


def test_a_path_that_is_a_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"mine")
    with pytest.raises(NotADirectoryError, match="is a file"):
        dh.open(file)
    with pytest.raises(NotADirectoryError):
        dh.open(file / "below")
    assert file.read_bytes() == b"mine"


def test_an_empty_directory_becomes_a_heap(path: Path) -> None:
    path.mkdir()
    with dh.open(path) as heap:
        heap.root["a"] = 1
        heap.commit()
    assert contents(path) == {"a": 1}


@pytest.mark.parametrize("name", ["notes.txt", "base2", ".hidden"])
def test_a_directory_with_other_things_in_it_is_refused_and_left_alone(
    path: Path, name: str
) -> None:
    path.mkdir()
    (path / name).write_bytes(b"mine")
    with pytest.raises(dh.HeapError, match=name):
        dh.open(path)
    assert [entry.name for entry in path.iterdir()] == [name]


@pytest.mark.parametrize("named", [False, True])
def test_a_foreign_lmdb_directory_is_refused_and_left_alone(path: Path, named: bool) -> None:
    path.mkdir()
    with lmdb.open(str(path), max_dbs=2) as environment:
        db = environment.open_db(b"other") if named else None
        with environment.begin(write=True, db=db) as txn:
            for i in range(1000):
                txn.put(str(i).encode(), b"somebody's data")
    before = snapshot(path)
    with pytest.raises(dh.HeapError, match="not a dirtyheap"):
        dh.open(path)
    assert snapshot(path) == before


def test_an_lmdb_file_without_any_data_is_refused_or_becomes_a_heap(path: Path) -> None:
    """Such a file holds nothing of anybody's, unless other files show whose it is."""
    path.mkdir()
    lmdb.open(str(path), max_dbs=8).close()
    (path / "notes.txt").write_text("somebody's own")
    with pytest.raises(dh.HeapError, match="not a dirtyheap"):
        dh.open(path)
    assert not (path / "base").exists()
    (path / "notes.txt").unlink()
    with contextlib.suppress(dh.HeapError), dh.open(path) as heap:
        heap.root["a"] = 1
        heap.commit()
        assert heap.verify().ok


@pytest.mark.parametrize("there", [False, True])
def test_a_directory_that_may_not_be_written_is_refused(open_directory: Path, there: bool) -> None:
    require_root("becoming another user")
    path = open_directory / "heap"
    if there:
        with dh.open(path) as heap:
            heap.root["a"] = 1
            heap.commit()
    os.chmod(open_directory, 0o755)

    def as_nobody() -> Any:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        dh.open(path)

    raised, name, text = in_child(as_nobody)
    assert raised == "raised"
    assert name in ("PermissionError", "HeapError"), (name, text)
    assert str(path.name) in text
    assert path.exists() == there
    if there:
        assert contents(path) == {"a": 1}


# --- damage ---


class Reference:
    """A heap with history: base files, deltas over them, and the states it went through."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "reference"
        rng = random.Random(7)
        self.states: list[Any] = []
        with dh.open(self.path) as heap:
            fill(heap, 4)
            heap.commit()
            heap.root["bulk"] = [f"entry {i}" * 20 for i in range(3000)]
            heap.commit()
            heap.fold()
            for _ in range(6):
                change(heap, rng)
                heap.commit()
                self.states.append(plain(heap))
        self.base_files = sorted(file.name for file in (self.path / "base").iterdir())

    def copy(self, to: Path) -> Path:
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.path, to, copy_function=shutil.copyfile)
        return to

    def outcome(self, path: Path, *, preload: bool = False) -> str:
        """What comes of opening it, reading everything, changing, committing and reopening:
        "right", "older", "error ...", "told ..." (right, and verify() finds the damage, as in a
        row that nothing needs any more), or what must never happen."""

        def use() -> str:
            with dh.open(path, create=False, preload=preload) as heap:
                found = plain(heap)
                if found != self.states[-1]:
                    return "older" if found in self.states else "WRONG"
                if not heap.verify().ok:
                    return "told by verify()"
                change(heap, random.Random(1))
                heap.commit()
                expected = plain(heap)
            return "right" if contents(path) == expected else "WRONG after a commit"

        try:
            answer = in_child(use, timeout_s=30)
        except ChildError as error:
            return f"CRASH {error}"
        if isinstance(answer, str):
            return answer
        _, name, text = answer
        if name in ("HeapCorruptError", "HeapError", "HeapFullError"):
            assert text, "an error without a sentence"
            return f"error {name}"
        return f"BAD ERROR {name}: {text}"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return Reference(tmp_path_factory.mktemp("reference"))


def flip(file: Path, at: int, bit: int) -> None:
    with open(file, "r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([byte ^ 1 << bit]))


def flip_in(file: Path, data: bytes, row: bytes, bit: int) -> None:
    """Flip a bit of a row wherever it stands: pages that are out of use hold old copies."""
    at = data.find(row)
    assert at > 0
    while at > 0:
        flip(file, at + bit // 8, bit % 8)
        at = data.find(row, at + 1)


def judge(outcomes: Counter[str], allowed: tuple[str, ...] = ("right", "error", "told")) -> None:
    print(dict(outcomes))
    bad = {name: n for name, n in outcomes.items() if name.split()[0] not in allowed}
    assert not bad, bad


def test_an_undamaged_copy_is_right(reference: Reference, path: Path) -> None:
    assert reference.base_files
    assert reference.outcome(reference.copy(path)) == "right"


def test_flipped_bits_in_the_index_are_noticed_or_harmless(
    reference: Reference, path: Path
) -> None:
    rng = seeded()
    outcomes: Counter[str] = Counter()
    size = (reference.path / "data.mdb").stat().st_size
    data = (reference.path / "data.mdb").read_bytes()
    bodies = needed_rows(reference.path, "commits") + needed_rows(reference.path, "deltas")
    for number in range(100):
        reference.copy(path)
        if number % 2:
            row = rng.choice(bodies)
            flip_in(path / "data.mdb", data, row, rng.randrange(len(row) * 8))
        else:
            flip(path / "data.mdb", rng.randrange(8192, size), rng.randrange(8))
        outcomes[reference.outcome(path)] += 1
    judge(outcomes)
    assert outcomes["error HeapCorruptError"] >= 50, "a flip in a delta was not noticed"


def test_flipped_bits_in_the_meta_pages_lead_at_worst_to_the_commit_before(
    reference: Reference, path: Path
) -> None:
    """LMDB keeps two meta pages, without checksums: when the newer one is spoilt, the other one may
    be taken for it, and that is a whole commit too."""
    outcomes: Counter[str] = Counter()
    for at in [*range(0, 160, 4), *range(4096, 4096 + 160, 4)]:
        reference.copy(path)
        flip(path / "data.mdb", at, at // 4 % 8)
        outcomes[reference.outcome(path)] += 1
    judge(outcomes, ("right", "error", "told", "older"))


def test_a_flipped_bit_in_any_row_is_noticed(reference: Reference, path: Path) -> None:
    """Rows of commits, extents and meta: those that decide what is opened."""
    rng = seeded()
    data = (reference.path / "data.mdb").read_bytes()
    outcomes: Counter[str] = Counter()
    places = [
        (row, bit)
        for name in ("meta", "commits", "extents")
        for row in needed_rows(reference.path, name)
        for bit in range(len(row) * 8)
    ]
    for row, bit in rng.sample(places, 120):
        reference.copy(path)
        flip_in(path / "data.mdb", data, row, bit)
        outcomes[reference.outcome(path)] += 1
    judge(outcomes, ("error",))


def needed_rows(path: Path, database: str) -> list[bytes]:
    """Those of the last fold point and behind it, of commits and deltas; all of the others."""
    databases = rows_of(path)
    if database not in ("commits", "deltas"):
        return list(databases[database].values())
    last = max(databases["commits"])
    fold = struct.pack(
        ">Q", rows.Record.unpack(databases["commits"][last], int.from_bytes(last, "big")).fold
    )
    return [row for key, row in databases[database].items() if key[:8] >= fold]


def rows_of(path: Path) -> dict[str, dict[bytes, bytes]]:
    """All databases of an index, read without the library."""
    with lmdb.open(str(path), readonly=True, lock=False, max_dbs=8) as environment:
        names = [b"meta", b"commits", b"deltas", b"extents"]
        databases = {name.decode(): environment.open_db(name, create=False) for name in names}
        with environment.begin() as txn:
            return {name: dict(txn.cursor(db=db)) for name, db in databases.items()}


def test_a_truncated_index_is_noticed(reference: Reference, path: Path) -> None:
    rng = seeded()
    outcomes: Counter[str] = Counter()
    size = (reference.path / "data.mdb").stat().st_size
    cuts = [1, 100, 4095, 4096, 8192, size - 1, size - 4096]
    for cut in cuts + [rng.randrange(size) for _ in range(25)]:
        os.truncate(reference.copy(path) / "data.mdb", cut)
        outcomes[reference.outcome(path)] += 1
    judge(outcomes)


def test_an_index_of_no_bytes_is_not_taken_for_a_new_heap(reference: Reference, path: Path) -> None:
    """Its base files would be removed as orphans."""
    os.truncate(reference.copy(path) / "data.mdb", 0)
    assert reference.outcome(path).startswith("error")
    assert sorted(file.name for file in (path / "base").iterdir()) == reference.base_files


def test_zeroed_and_swapped_pages_of_the_index_are_noticed(
    reference: Reference, path: Path
) -> None:
    rng = seeded()
    outcomes: Counter[str] = Counter()
    pages = (reference.path / "data.mdb").stat().st_size // 4096
    for number in range(60):
        file = reference.copy(path) / "data.mdb"
        data = bytearray(file.read_bytes())
        one, other = rng.sample(range(2, pages), 2)
        first, second = (
            slice(one * 4096, one * 4096 + 4096),
            slice(other * 4096, other * 4096 + 4096),
        )
        if number % 2:
            data[first] = bytes(4096)
        else:
            data[first], data[second] = data[second], data[first]
        file.write_bytes(data)
        outcomes[reference.outcome(path)] += 1
    judge(outcomes)


def test_damaged_base_files_are_noticed(reference: Reference, path: Path) -> None:
    rng = seeded()
    outcomes: Counter[str] = Counter()
    for number in range(80):
        file = reference.copy(path) / "base" / rng.choice(reference.base_files)
        size = file.stat().st_size
        if number % 4 == 0:
            os.truncate(file, rng.randrange(size))
        elif number % 4 == 1:
            flip(file, size - 1 - rng.randrange(min(size, 200)), rng.randrange(8))
        else:
            flip(file, rng.randrange(size), rng.randrange(8))
        # Without it pages that nobody's delta changes are checked by verify() only. Right: where
        # a delta replaces what was damaged.
        outcomes[reference.outcome(path, preload=True)] += 1
    judge(outcomes)
    assert outcomes["right"] < 10


def test_a_missing_base_file_is_named(reference: Reference, path: Path) -> None:
    for name in reference.base_files:
        (reference.copy(path) / "base" / name).unlink()
        with pytest.raises(dh.HeapCorruptError, match=rf"{name}.* is missing"):
            dh.open(path)


def test_a_base_file_that_grew_is_noticed(reference: Reference, path: Path) -> None:
    with open(reference.copy(path) / "base" / reference.base_files[0], "ab") as stream:
        stream.write(b"more")
    assert reference.outcome(path) == "error HeapCorruptError"


def test_swapped_base_files_are_noticed(reference: Reference, path: Path) -> None:
    base = reference.copy(path) / "base"
    one, other = (base / name for name in (reference.base_files[0], reference.base_files[-1]))
    one.rename(base / "aside")
    other.rename(one)
    (base / "aside").rename(other)
    assert reference.outcome(path) == "error HeapCorruptError"


def test_a_base_file_of_another_heap_is_noticed(tmp_path: Path) -> None:
    """Same extent, same version, same size, whole in itself: only the index can tell."""
    paths = [tmp_path / "one", tmp_path / "other"]
    for number, path in enumerate(paths):
        with dh.open(path) as heap:
            heap.root["buffer"] = heap.buffer(bytes([number + 1]) * 100_000)
            heap.commit()
            heap.fold()
    files = [sorted((path / "base").iterdir()) for path in paths]
    for mine, foreign in zip(*files, strict=True):
        mine.write_bytes(foreign.read_bytes())
    with pytest.raises(dh.HeapCorruptError):
        dh.open(paths[0])


def test_an_older_version_of_a_base_file_is_noticed(path: Path, tmp_path: Path) -> None:
    with dh.open(path) as heap:
        heap.root["buffer"] = heap.buffer(b"1" * 100_000)
        heap.commit()
        heap.fold()
        older = {file.name.split(".")[0]: file.read_bytes() for file in (path / "base").iterdir()}
        heap.root["buffer"][:] = b"2" * 100_000
        heap.commit()
        heap.fold()
    for file in (path / "base").iterdir():
        file.write_bytes(older[file.name.split(".")[0]])
    with pytest.raises(dh.HeapCorruptError):
        dh.open(path)


def test_files_that_the_index_does_not_name_are_removed(reference: Reference, path: Path) -> None:
    base = reference.copy(path) / "base"
    orphan = base / "00000099.0000000000000001.0a1b2c3d"
    orphan.write_bytes(b"left by a crash")
    foreign = base / "notes.txt"
    foreign.write_text("somebody's own")
    (base / "lost+found").mkdir()
    assert reference.outcome(path) == "right"
    assert not orphan.exists()
    assert foreign.read_text() == "somebody's own"
    assert (base / "lost+found").is_dir()


def test_a_base_directory_that_leads_elsewhere_is_refused(
    reference: Reference, path: Path, tmp_path: Path
) -> None:
    """A heap from somebody else: opening it must touch nothing outside of it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "00000000.0000000000000001.0a1b2c3d").write_text("precious")
    base = reference.copy(path) / "base"
    base.rename(path / "away")
    base.symlink_to(elsewhere)
    with pytest.raises(dh.HeapError, match="link"):
        dh.open(path)
    assert [entry.name for entry in elsewhere.iterdir()] == ["00000000.0000000000000001.0a1b2c3d"]


@pytest.mark.parametrize("name", ["data.mdb", "lock.mdb", "writer.lock"])
@pytest.mark.parametrize("kind", ["symlink", "hard link"])
def test_index_and_locks_that_are_links_are_refused(
    reference: Reference, path: Path, tmp_path: Path, name: str, kind: str
) -> None:
    """The engine would write to what they lead to: any file, or another heap without its lock."""
    victim = tmp_path / "victim"
    reference.copy(path)
    if (path / name).exists():
        (path / name).rename(victim)
    else:
        victim.write_text("precious")
    before = victim.read_bytes()
    if kind == "symlink":
        (path / name).symlink_to(victim)
    else:
        (path / name).hardlink_to(victim)
    if kind == "hard link" and name == "writer.lock":
        dh.open(path).close()  # holds a pid; the lock is the kernel's
        return
    with pytest.raises((dh.HeapError, OSError), match=r"refused|hard links|symbolic"):
        dh.open(path)
    assert victim.read_bytes() == before


@pytest.mark.parametrize("kind", ["symlink", "fifo"])
def test_a_base_file_that_is_none_is_refused(
    reference: Reference, path: Path, tmp_path: Path, kind: str
) -> None:
    file = next((reference.copy(path) / "base").iterdir())
    if kind == "fifo":
        file.unlink()
        os.mkfifo(file)
    else:
        file.rename(tmp_path / "moved")
        file.symlink_to(tmp_path / "moved")
    with pytest.raises(dh.HeapCorruptError, match="symbolic link|no regular file"):
        dh.open(path)
    assert (tmp_path / "moved").exists() == (kind == "symlink")


# --- formats ---


def rewrite(path: Path, database: bytes, key: bytes, **fields: Any) -> None:
    """Change fields of one row, as another version of the library would have written it."""
    with lmdb.open(str(path), max_dbs=8) as environment:
        db = environment.open_db(database, create=False)
        with environment.begin(write=True, db=db) as txn:
            row = txn.get(key)
            sealed = seal_of(row)
            body = row[: len(row) - len(sealed)] if sealed else row
            packed = msgpack.packb({**msgpack.unpackb(body), **fields})
            if sealed:
                packed += hashlib.blake2b(packed, digest_size=len(sealed)).digest()
            txn.put(key, packed)


def seal_of(row: bytes) -> bytes:
    """The hash that ends a row, or nothing."""
    for size in (16, 32, 8):
        if row[-size:] == hashlib.blake2b(row[:-size], digest_size=size).digest():
            return row[-size:]
    return b""


def test_a_record_that_is_not_the_child_of_the_one_before_is_refused(
    reference: Reference, path: Path
) -> None:
    """Right ids, right seals: only the parent's hash is another's."""
    reference.copy(path)
    with dh.open(path) as heap:
        last = heap.last_commit_id
    rewrite(path, b"commits", last.to_bytes(8, "big"), parent_hash=b"another parent's")
    with pytest.raises(dh.HeapCorruptError, match="missing"):
        dh.open(path)


@pytest.mark.parametrize(
    "fields", [{"format": 3}, {"format": 999}, {"features_required": 1}], ids=str
)
def test_a_newer_format_is_refused_and_left_alone(path: Path, fields: dict[str, int]) -> None:
    with dh.open(path) as heap:
        heap.root["a"] = 1
        heap.commit()
    rewrite(path, b"meta", b"heap", **fields)
    before = snapshot(path)
    with pytest.raises(dh.HeapError, match="newer version"):
        dh.open(path)
    assert snapshot(path) == before


def test_optional_features_and_unknown_fields_are_no_obstacle(path: Path) -> None:
    with dh.open(path) as heap:
        heap.root["a"] = 1
        heap.commit()
    rewrite(path, b"meta", b"heap", features_optional=7, later="unknown")
    assert contents(path) == {"a": 1}


def test_a_commit_that_needs_unknown_features_is_refused(path: Path) -> None:
    with dh.open(path) as heap:
        heap.root["a"] = 1
        heap.commit()
    rewrite(path, b"commits", struct.pack(">Q", 1), features_required=4)
    with pytest.raises(dh.HeapError, match="features"):
        dh.open(path)


def test_a_commit_record_that_is_gone_is_noticed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three commits the middle one, or its delta, is not there."""
    monkeypatch.setattr(rows, "_BODY_IN_RECORD_MAX", 0)
    for database, key in (
        (b"commits", struct.pack(">Q", 2)),
        (b"deltas", struct.pack(">QI", 2, 0)),
    ):
        shutil.rmtree(path, ignore_errors=True)
        with dh.open(path) as heap:
            heap.root["buffer"] = heap.buffer(100_000)
            for number in range(3):
                heap.root["buffer"][number * 20_000] = 1
                heap.commit()
        with lmdb.open(str(path), max_dbs=8) as environment:
            db = environment.open_db(database, create=False)
            with environment.begin(write=True, db=db) as txn:
                assert txn.delete(key)
        with pytest.raises(dh.HeapCorruptError):
            dh.open(path)


def test_a_heap_larger_than_the_capacity_asks_for_more(path: Path) -> None:
    with dh.open(path) as heap:
        heap.root["buffer"] = heap.buffer(5 << 20)
        heap.commit()
    with pytest.raises(dh.HeapFullError, match="capacity"):
        dh.open(path, capacity=2 << 20)
    assert len(contents(path, capacity=8 << 20)["buffer"]) == 5 << 20


# --- values ---


class Unknown:
    """Of a type that no heap can hold."""


UNSUPPORTED = [Unknown(), object(), {1, object()}, frozenset({Unknown}), bytearray(b"x"), Unknown]


@pytest.mark.parametrize("value", UNSUPPORTED, ids=lambda value: type(value).__name__)
def test_an_unsupported_value_deep_inside_is_named_and_nothing_is_stored(
    path: Path, value: Any
) -> None:
    with dh.open(path) as heap:
        heap.root["list"], heap.root["dict"] = [1, 2], {"a": 1}
        know_shapes(heap, ["a", "more"], ["b"])
        before, allocated = plain(heap), heap.stats().allocated_bytes
        deep = {"a": [0, {"b": ["x" * 100, [1, 2, (3, value)]]}], "more": list(range(100))}
        place = r"\['a'\]\[1\]\['b'\]\[1\]\[2\]\[1\]"
        stores: list[Callable[[], Any]] = [
            lambda: heap.root.__setitem__("new", deep),
            lambda: heap.root["dict"].update({"x": 1, "y": deep}),
            lambda: heap.root["dict"].setdefault("new", deep),
            lambda: heap.root["list"].append(deep),
            lambda: heap.root["list"].insert(0, deep),
            lambda: heap.root["list"].extend([1, 2, 3, deep]),
            lambda: heap.root["list"].__setitem__(0, deep),
            lambda: heap.root["list"].__setitem__(slice(0, 1), [5, 6, deep]),
            lambda: heap.dict(deep),
            lambda: heap.list([1, 2, deep]),
            lambda: heap.deque([1, 2, deep]),
            lambda: heap.deque([1, collections.deque([deep], 5)]),
        ]
        for store in stores:
            with pytest.raises(TypeError, match=place) as caught:
                store()
            assert type(value).__qualname__ in str(caught.value)
            assert plain(heap) == before
            assert heap.stats().allocated_bytes == allocated
        assert heap.verify().ok
        assert heap.collect().freed_cells == 0


@pytest.mark.parametrize("key", [[1], {}, set(), bytearray(b"x"), (1, [2])], ids=repr)
def test_an_unhashable_key_is_a_type_error_and_changes_nothing(path: Path, key: Any) -> None:
    with dh.open(path) as heap:
        heap.root["a"] = 1
        uses: list[Callable[[], Any]] = [
            lambda: heap.root.__setitem__(key, 1),
            lambda: heap.root[key],
            lambda: key in heap.root,
            lambda: heap.root.pop(key, None),
            lambda: heap.root.setdefault(key, 1),
            lambda: heap.root.get(key),
        ]
        for use in uses:
            with pytest.raises(TypeError, match="unhashable"):
                use()
        assert plain(heap) == {"a": 1}


@pytest.mark.parametrize(
    "key", [Unknown(), frozenset({1, Unknown()}), (1, Unknown())], ids=steady_repr
)
def test_a_hashable_key_that_no_heap_can_hold_is_absent_and_cannot_be_stored(
    path: Path, key: Any
) -> None:
    with dh.open(path) as heap:
        heap.root["a"] = 1
        for store in (heap.root.__setitem__, heap.root.setdefault):
            with pytest.raises(TypeError):
                store(key, 1)
        assert key not in heap.root
        assert heap.root.get(key, "absent") == "absent"
        assert plain(heap) == {"a": 1}


def test_a_structure_deeper_than_the_stack_is_a_recursion_error(path: Path) -> None:
    def use() -> Any:
        with dh.open(path) as heap:
            know_shapes(heap, ["a"])
            allocated = heap.stats().allocated_bytes
            for wrap in (lambda x: [x], lambda x: {"a": x}, lambda x: (x,)):
                deep: Any = 1
                for _ in range(100_000):
                    deep = wrap(deep)
                with contextlib.suppress(RecursionError):
                    heap.root["deep"] = deep
                    return f"{wrap(1)} was stored"
                if heap.stats().allocated_bytes != allocated or heap.root != {}:
                    return "something was stored"
            heap.root["after"] = [1]
            return plain(heap)

    assert in_child(use) == {"after": [1]}


def test_a_chain_longer_than_the_stack_can_be_kept_collected_and_reopened(path: Path) -> None:
    """It is made link by link; what has to recurse over it raises, nothing dies."""
    length = 200_000

    def use() -> Any:
        with dh.open(path) as heap:
            first = last = heap.root["chain"] = heap.root.setdefault("chain", [])
            for _ in range(length):
                last.append([])
                last = last[0]
            del first, last
            heap.commit()
            assert heap.collect().freed_cells == 0
            assert heap.verify().ok
            for recurse in (repr, dh.to_python):
                with contextlib.suppress(RecursionError):
                    recurse(heap.root)
            with contextlib.suppress(RecursionError):
                assert heap.root["chain"] == heap.root["chain"]
        with dh.open(path) as heap:
            assert heap.verify().cells > length
            del heap.root["chain"]
            return heap.collect().freed_cells

    assert in_child(use, timeout_s=120) >= length


# --- two writers ---


def test_a_second_process_is_told_the_pid_of_the_first(path: Path) -> None:
    ready_r, ready_w = os.pipe()
    go_r, go_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            heap = dh.open(path)
            heap.root["a"] = 1
            heap.commit()
            os.write(ready_w, b"!")
            os.read(go_r, 1)
            status = 0
        os._exit(status)
    assert os.read(ready_r, 1) == b"!"
    with pytest.raises(dh.HeapLockedError, match=rf"process {pid}\b"):
        dh.open(path)
    os.write(go_w, b"!")
    assert os.waitpid(pid, 0)[1] == 0
    for fd in (ready_r, ready_w, go_r, go_w):
        os.close(fd)
    assert contents(path) == {"a": 1}


def test_the_same_process_cannot_open_a_heap_twice(path: Path) -> None:
    with dh.open(path) as heap:
        heap.root["a"] = 1
        for name in (
            path,
            path.parent / "." / path.name,
            path.parent / ".." / path.parent.name / path.name,
        ):
            with pytest.raises(dh.HeapLockedError, match=rf"process {os.getpid()}\b"):
                dh.open(name)
        heap.commit()
        heap.root["a"] = 2
        heap.commit()
    assert contents(path) == {"a": 2}


def test_two_heaps_in_one_process_do_not_mix(tmp_path: Path) -> None:
    with dh.open(tmp_path / "one") as one, dh.open(tmp_path / "two") as two:
        one.root["a"], two.root["a"] = [1], [2]
        with pytest.raises(ValueError, match="another heap"):
            one.root["theirs"] = two.root["a"]
        with pytest.raises(ValueError, match="another heap"):
            one.root["deep"] = {"x": [two.root]}
        one.root["copied"] = dh.to_python(two.root["a"])
        one.commit()
        two.rollback()
        assert plain(one) == {"a": [1], "copied": [2]}
        assert plain(two) == {}


# --- trackers ---


def test_the_environment_says_what_auto_means(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIRTYHEAP_TRACKER", "compare")
    with dh.open(path) as heap:
        assert heap.stats().tracker == "compare"
    monkeypatch.setenv("DIRTYHEAP_TRACKER", "nonsense")
    with pytest.raises(ValueError, match="nonsense"):
        dh.open(path)
    with dh.open(path, tracker="compare") as heap:  # what is asked for by name wins
        assert heap.stats().tracker == "compare"


def use_the_heap(path: Path) -> Any:
    """Commit, store, roll back, reopen; returns (tracker, reason, contents)."""
    with dh.open(path) as heap:
        heap.root["buffer"] = heap.buffer(50_000)
        heap.root["a"] = [1]
        heap.commit()
        memoryview(heap.root["buffer"])[40_000] = 7
        heap.root["a"].append(2)
        heap.commit()
        heap.root["a"].append(3)
        heap.rollback()
        stats = heap.stats()
    found = contents(path)
    return stats.tracker, stats.tracker_reason, found["a"], found["buffer"][40_000]


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_a_process_that_may_not_be_dumped_works(open_directory: Path, user: str) -> None:
    """It loses access to its own pagemap unless it is root."""
    require_root("choosing the user")

    def undumpable() -> Any:
        if user == "nobody":
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        assert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0  # PR_SET_DUMPABLE
        return use_the_heap(open_directory / "heap")

    tracker, reason, *found = in_child(undumpable)
    print(tracker, reason)
    assert found == [[1, 2], 7]
    assert tracker != "compare" or reason


USERFAULTFD = {"x86_64": 323, "aarch64": 282}
OPENAT = {"x86_64": 257, "aarch64": 56}


class _Filter(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("size", ctypes.c_ushort), ("filters", ctypes.POINTER(_Filter)))


def forbid(system_call: int, error: int) -> None:
    """A seccomp filter for the rest of this process's life."""
    lines = [
        (0x20, 0, 0, 0),  # load the number
        (0x15, 0, 1, system_call),  # equal: next, else skip one
        (0x06, 0, 0, 0x00050000 | error),  # return the error
        (0x06, 0, 0, 0x7FFF0000),  # allow
    ]
    filters = (_Filter * len(lines))(*[_Filter(*line) for line in lines])
    program = _Program(len(lines), filters)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS"
    if libc.prctl(22, 2, ctypes.byref(program), 0, 0) != 0:  # PR_SET_SECCOMP, MODE_FILTER
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS], ids=["EPERM", "ENOSYS"])
def test_where_userfaultfd_is_forbidden_the_heap_compares_and_says_why(
    open_directory: Path, error: int
) -> None:
    require_root("becoming another user")

    def forbidden() -> Any:
        os.setgroups([])
        os.setgid(NOBODY)  # or the device node would do
        os.setuid(NOBODY)
        forbid(USERFAULTFD[platform.machine()], error)
        probed = [(result.works, bool(result.reason)) for result in dh.probe()]
        with pytest.raises(dh.TrackerError):
            dh.open(open_directory / "forced", tracker="uffd")
        return probed, use_the_heap(open_directory / "heap")

    probed, (tracker, reason, *found) = in_child(forbidden)
    assert probed == [(False, True), (False, True)]
    assert tracker == "compare"
    assert "userfaultfd" in reason
    assert found == [[1, 2], 7]


def test_where_only_the_system_call_is_forbidden_the_device_node_serves(
    open_directory: Path,
) -> None:
    require_root("the device node")
    require_tracker("auto")
    if not os.path.exists("/dev/userfaultfd"):
        skip_kernel_test("there is no /dev/userfaultfd")

    def forbidden() -> Any:
        forbid(USERFAULTFD[platform.machine()], errno.EPERM)
        return use_the_heap(open_directory / "heap")

    tracker, reason, *found = in_child(forbidden)
    assert tracker == "uffd-dev" and reason
    assert found == [[1, 2], 7]
