"""Upgrade: format 1 to 2, all of it or nothing, whoever is killed where."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import msgpack
import pytest
from golden import golden_heaps
from helpers import in_child

import dirtyheap as dh
from dirtyheap import rows
from dirtyheap import upgrade as upgrades
from dirtyheap.upgrade import upgrade


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A heap of format 1."""
    return golden_heaps.unpack("format1", tmp_path)


def all_rows(path: Path) -> dict[tuple[str, bytes], bytes]:
    found = {}
    with lmdb.open(str(path), max_dbs=8, readonly=True, lock=False) as env:
        for name in ("meta", "commits", "deltas", "extents", "tags"):
            try:
                db = env.open_db(name.encode(), create=False)
            except lmdb.NotFoundError:
                continue
            with env.begin(db=db) as txn:
                found.update({(name, bytes(k)): bytes(v) for k, v in txn.cursor()})
    return found


def change_row(path: Path, database: str, key: bytes, row: bytes | None) -> None:
    with lmdb.open(str(path), max_dbs=8) as env:
        db = env.open_db(database.encode(), create=False)
        with env.begin(db=db, write=True) as txn:
            assert txn.put(key, row) if row is not None else txn.delete(key)


def fields(row: bytes) -> dict[str, Any]:
    found: dict[str, Any] = msgpack.unpackb(row[:-16])
    return found


def commit_key(number: int) -> bytes:
    return number.to_bytes(8, "big")


def test_an_older_heap_is_refused_with_advice(old: Path) -> None:
    before = all_rows(old)
    words = rf"older version of dirtyheap \(format 1\): run `python -m dirtyheap upgrade {old}`"
    for options in ({}, {"create": False}, {"read_only": True}):
        with pytest.raises(dh.HeapError, match=words):
            dh.open(old, **options)
    assert all_rows(old) == before


def test_upgrade(old: Path) -> None:
    before = all_rows(old)
    files = sorted(os.listdir(old / "base"))
    report = upgrade(old)
    assert report == upgrades.UpgradeReport(old, 1, 2, 5, 2, is_done=True)
    after = all_rows(old)
    assert sorted(os.listdir(old / "base")) == files
    for place, row in before.items():
        if place[0] == "deltas":
            assert after[place] == row
    meta = fields(after["meta", b"heap"])
    assert meta == {**fields(before["meta", b"heap"]), "format": 2}
    assert fields(after["meta", b"history"]) == {"oldest": 6}
    for number in range(2, 7):
        new = fields(after["commits", commit_key(number)])
        assert new.pop("fold") == 2
        known = fields(before["commits", commit_key(number)])
        if number > 2:
            parent = after["commits", commit_key(number - 1)]
            known["parent_hash"] = rows.record_hash(parent)
        assert new == known
    with dh.open(old) as heap:
        assert [commit.id for commit in heap.history()] == [6]
        assert heap.verify().ok


def test_twice_is_once(old: Path) -> None:
    upgrade(old)
    before = all_rows(old)
    assert upgrade(old) == upgrades.UpgradeReport(old, 2, 2, 0, 0, is_done=True)
    assert all_rows(old) == before


def test_dry_run(old: Path) -> None:
    before = all_rows(old)
    report = upgrade(old, dry_run=True)
    assert report == upgrades.UpgradeReport(old, 1, 2, 5, 2, is_done=False)
    assert all_rows(old) == before


def empty_heap(path: Path) -> None:
    """As format 1 left a heap that was opened and never committed to."""
    with lmdb.open(str(path), max_dbs=8) as env, env.begin(write=True) as txn:
        for name in ("commits", "deltas", "extents"):
            txn.drop(env.open_db(name.encode(), txn=txn), delete=False)
    for file in (path / "base").iterdir():
        file.unlink()


def test_a_heap_without_commits(old: Path) -> None:
    empty_heap(old)
    assert upgrade(old).commits == 0
    with dh.open(old) as heap:
        assert heap.history() == [] and dict(heap.root) == {}
        heap.root["first"] = 1
        assert heap.commit().id == 1


# --- refused, and left alone ------------------------------------------------------------------


def test_a_newer_format(old: Path) -> None:
    meta = fields(all_rows(old)["meta", b"heap"])
    for changes in ({"format": 3}, {"features_required": 1}):
        change_row(old, "meta", b"heap", rows.seal({**meta, **changes}))
        before = all_rows(old)
        with pytest.raises(dh.HeapError, match="upgrade dirtyheap"):
            upgrade(old)
        assert all_rows(old) == before


def test_while_it_is_open(path: Path) -> None:
    with dh.open(path), pytest.raises(dh.HeapLockedError, match=f"in process {os.getpid()}"):
        upgrade(path)


def test_no_heap(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        upgrade(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        upgrade(tmp_path)
    assert os.listdir(tmp_path) == []
    with lmdb.open(str(tmp_path / "other"), max_dbs=2) as env:
        env.open_db(b"somebody's")
    with pytest.raises(dh.HeapError, match="not a dirtyheap"):
        upgrade(tmp_path / "other")


def lose_chunk(path: Path) -> None:
    change_row(path, "deltas", commit_key(4) + bytes(4), None)


def change_chunk(path: Path) -> None:
    change_row(path, "deltas", commit_key(4) + bytes(4), b"another")


def lose_record(path: Path) -> None:
    change_row(path, "commits", commit_key(3), None)


def lose_first_record(path: Path) -> None:
    change_row(path, "commits", commit_key(2), None)


def damage_record(path: Path) -> None:
    row = all_rows(path)["commits", commit_key(5)]
    change_row(path, "commits", commit_key(5), row[:-1] + bytes([row[-1] ^ 1]))


def record_of_another_type(path: Path) -> None:
    known = fields(all_rows(path)["commits", commit_key(6)])
    change_row(path, "commits", commit_key(6), rows.seal({**known, "note": b"bytes"}))


def required_feature(path: Path) -> None:
    known = fields(all_rows(path)["commits", commit_key(6)])
    change_row(path, "commits", commit_key(6), rows.seal({**known, "features_required": 4}))


def change_extent(path: Path, **changes: Any) -> None:
    known = fields(all_rows(path)["extents", bytes(4)])
    change_row(path, "extents", bytes(4), rows.seal({**known, **changes}))


def lose_meta(path: Path) -> None:
    change_row(path, "meta", b"heap", None)


def lose_file(path: Path) -> None:
    sorted((path / "base").iterdir())[0].unlink()


def shorten_file(path: Path) -> None:
    os.truncate(sorted((path / "base").iterdir())[0], 100)


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (lose_chunk, "commit 4: chunk 0 is missing"),
    (change_chunk, "commit 4: the body's hash is wrong"),
    (lose_record, "the commit before commit 4 is missing"),
    (lose_first_record, "the commit before commit 3 is missing"),
    (damage_record, "the record of commit 5"),
    (record_of_another_type, "no valid 'note'"),
    (required_feature, "upgrade dirtyheap"),
    (lambda path: change_extent(path, version=7), "extent 0 is damaged"),
    (lambda path: change_extent(path, version="2"), "extent 0 is damaged"),
    (lambda path: change_extent(path, file_name="../../etc/passwd"), "extent 0 is damaged"),
    (lambda path: change_extent(path, checksum=-1), "extent 0"),
    (lose_meta, "lost its description"),
    (lose_file, "is missing"),
    (shorten_file, "has a wrong size"),
]


@pytest.mark.parametrize(
    ("damage", "words"), DAMAGES, ids=lambda part: getattr(part, "__name__", "")
)
def test_a_damaged_heap_is_left_alone(
    old: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(old)
    before = all_rows(old)
    with pytest.raises(dh.HeapError, match=words):
        upgrade(old)
    assert all_rows(old) == before


# --- killed -----------------------------------------------------------------------------------


class Dying:
    """A transaction in which this process is killed after so many changes."""

    def __init__(self, txn: lmdb.Transaction, changes_left: int) -> None:
        self._txn, self._left = txn, changes_left

    def _count(self) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1

    def put(self, *arguments: Any, **options: Any) -> bool:
        self._count()
        return bool(self._txn.put(*arguments, **options))

    def delete(self, *arguments: Any, **options: Any) -> bool:
        self._count()
        return bool(self._txn.delete(*arguments, **options))


def changes_of(path: Path) -> int:
    return 2 * 2 + 5 + 2  # extents deleted and put, records, history and meta


@pytest.mark.parametrize("after", range(12))
def test_killed_anywhere(old: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    before = all_rows(old)
    write_rows = upgrades._write_rows

    def die(txn: lmdb.Transaction, *arguments: Any) -> None:
        write_rows(Dying(txn, after), *arguments)
        if after == changes_of(old):  # all is written, nothing is committed
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(upgrades, "_write_rows", die)
    with pytest.raises(AssertionError, match="killed by SIGKILL"):
        in_child(lambda: upgrade(old))
    monkeypatch.undo()
    assert all_rows(old) == before
    assert upgrade(old).is_done
    with dh.open(old) as heap:
        assert heap.verify().ok and heap.root["last"] == "the last commit"


def test_killed_after_the_transaction(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(upgrades, "UpgradeReport", die)
    with pytest.raises(AssertionError, match="killed by SIGKILL"):
        in_child(lambda: upgrade(old))
    monkeypatch.undo()
    assert upgrade(old).format_before == 2
    with dh.open(old) as heap:
        assert heap.verify().ok and heap.root["last"] == "the last commit"


def test_a_failure_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = all_rows(old)

    def fail(*_: Any) -> Iterator[None]:
        raise lmdb.MapFullError("mdb_put: MDB_MAP_FULL")

    monkeypatch.setattr(upgrades, "_write_rows", fail)
    with pytest.raises(dh.HeapError, match=r"not upgraded: .*nothing was changed"):
        upgrade(old)
    monkeypatch.undo()
    assert all_rows(old) == before
    assert upgrade(old).is_done  # neither lock nor environment was left behind
