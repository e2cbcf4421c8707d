"""History, tags and what is kept: every verb, every refusal, and what the directory holds after."""

from __future__ import annotations

import os
import random
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from helpers import contents, fault, in_child, plain

import dirtyheap as dh
from dirtyheap import committer, rows, store

pytestmark = pytest.mark.timeout(120)


def commit_many(heap: dh.Heap, count: int) -> None:
    for _ in range(count):
        heap.root["n"] = heap.last_commit_id + 1
        heap.commit(f"note {heap.last_commit_id + 1}")


def ids(heap: dh.Heap) -> list[int]:
    return [commit.id for commit in heap.history()]


def at(path: Path, commit: int | str | None) -> Any:
    with dh.open(path, read_only=True, at=commit) as snapshot:
        report = snapshot.verify()
        assert report.ok, report
        return plain(snapshot)


def base_files(path: Path) -> set[str]:
    return set(os.listdir(path / "base"))


def rewrite(heap: dh.Heap, seed: int) -> None:
    """Enough of one extent for a base file of its own."""
    data = random.Random(seed).randbytes(3 << 20)
    if "bulk" in heap.root:
        heap.root["bulk"][:] = data
    else:
        heap.root["bulk"] = heap.buffer(data)


# --- history -------------------------------------------------------------------------------------


def test_the_history_lists_every_commit_that_can_be_opened(path: Path) -> None:
    began = time.time()
    with dh.open(path) as heap:
        assert heap.history() == []
        commit_many(heap, 3)
        history = heap.history()
        assert [(c.id, c.parent, c.note, c.tags) for c in history] == [
            (1, 0, "note 1", ()), (2, 1, "note 2", ()), (3, 2, "note 3", ()),
        ]  # fmt: skip
        assert all(began <= c.time <= time.time() and c.pages and c.bytes_changed for c in history)
        for commit in history:
            assert at(path, commit.id) == {"n": commit.id}


def test_a_fold_keeps_only_the_last_commit_unless_told_otherwise(path: Path) -> None:
    with dh.open(path) as heap:
        commit_many(heap, 5)
        heap.fold()
        assert ids(heap) == [5]
        commit_many(heap, 2)
        assert ids(heap) == [5, 6, 7]
        with pytest.raises(dh.HeapError, match="commit 4 is no longer kept"):
            dh.open(path, read_only=True, at=4)
        with pytest.raises(dh.HeapError, match="no commit 8: the newest is 7"):
            dh.open(path, read_only=True, at=8)


@pytest.mark.parametrize("keep", [1, 2, 3, 100])
def test_the_last_n_commits_survive_folds_and_reopening(path: Path, keep: int) -> None:
    for _ in range(4):
        with dh.open(path, keep=keep) as heap:
            commit_many(heap, 2)
            rewrite(heap, heap.last_commit_id)
            heap.fold()
            commit_many(heap, 3)
            heap.fold()
            kept = ids(heap)
            last = heap.last_commit_id
            assert kept == list(range(max(1, last - keep + 1), last + 1))
        for commit in kept:
            assert at(path, commit)["n"] == commit


def test_commits_are_kept_by_age(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(committer.time, "time", lambda: now)
    monkeypatch.setattr(store.time, "time", lambda: now)
    with dh.open(path, keep=timedelta(hours=1)) as heap:
        for _ in range(6):
            commit_many(heap, 1)
            now += 1000
        heap.fold()
        assert ids(heap) == [4, 5, 6]
        now += 3600
        heap.fold()
        assert ids(heap) == [6], "the last commit is kept, however old"


@pytest.mark.parametrize("keep,error", [(0, ValueError), (True, TypeError), ("all", TypeError)])
def test_a_keep_that_means_nothing_is_refused(path: Path, keep: Any, error: type) -> None:
    with pytest.raises(error, match="keep"):
        dh.open(path, keep=keep)
    assert not path.exists()


def test_a_base_file_that_is_replaced_goes_at_once_when_only_the_last_is_kept(path: Path) -> None:
    with dh.open(path) as heap:
        rewrite(heap, 1)
        heap.commit()
        before = base_files(path)
        assert before
        rewrite(heap, 2)
        heap.commit()
        assert not before & base_files(path)
        assert ids(heap) == [2], "the first commit's base is gone, and the heap says so"
        with pytest.raises(dh.HeapError, match="no longer kept"):
            dh.open(path, read_only=True, at=1)


def test_a_base_file_that_a_kept_commit_needs_stays(path: Path) -> None:
    with dh.open(path, keep=2) as heap:
        for number in (1, 2, 3):
            rewrite(heap, number)
            heap.root["n"] = number
            heap.commit()
            assert ids(heap) == list(range(max(1, number - 1), number + 1))
        heap.tag("middle", 2)
        rewrite(heap, 4)
        heap.root["n"] = 4
        heap.commit()
        rewrite(heap, 5)
        heap.root["n"] = 5
        heap.commit()
        assert ids(heap) == [2, 4, 5]
        for commit in (2, 4, 5):
            state = at(path, commit)
            assert state["n"] == commit
            assert state["bulk"] == random.Random(commit).randbytes(3 << 20)


def test_nothing_stays_that_no_kept_commit_needs(path: Path) -> None:
    with dh.open(path) as heap:
        rewrite(heap, 0)
        heap.commit()
        heap.fold()
        least = len(base_files(path))
        for number in range(1, 6):
            rewrite(heap, number)
            heap.commit()
            heap.tag(f"t{number}")
            heap.fold()
        assert len(base_files(path)) > least
        for number in range(1, 6):
            heap.untag(f"t{number}")
        assert ids(heap) == [heap.last_commit_id]
        assert len(base_files(path)) == least
        assert_rows_go(heap)
        with heap._store._env.begin() as txn:
            assert txn.stat(heap._store._databases.deltas)["entries"] == 0


def assert_rows_go(heap: dh.Heap) -> None:
    """With later commits, in bunches."""
    for number in range(128):
        heap.commit(f"note {number}")
    with heap._store._env.begin() as txn:
        look = heap._store._index(txn)
        record = look.record(heap.last_commit_id)
        assert look.commit_ids() == [*range(record.fold, record.id + 1)]


# --- tags ----------------------------------------------------------------------------------------


def test_a_tag_keeps_its_commit_through_folds_and_reopening(path: Path) -> None:
    with dh.open(path) as heap:
        commit_many(heap, 2)
        commit = heap.tag("release 1.0")
        assert (commit.id, commit.tags) == (2, ("release 1.0",))
        commit_many(heap, 3)
        heap.fold()
        assert ids(heap) == [2, 5]
    with dh.open(path) as heap:
        assert {name: commit.id for name, commit in heap.tags().items()} == {"release 1.0": 2}
        commit_many(heap, 3)
        heap.fold()
        assert ids(heap) == [2, 8]
    assert at(path, "release 1.0") == at(path, 2) == {"n": 2}


def test_a_commit_may_have_many_names_and_a_name_moves(path: Path) -> None:
    with dh.open(path) as heap:
        commit_many(heap, 3)
        heap.tag("b", 1)
        heap.tag("a", heap.history()[0])
        assert heap.history()[0].tags == ("a", "b")
        heap.fold()
        assert ids(heap) == [1, 3]
        assert heap.tag("a", "b").id == 1
        assert heap.tag("a").id == 3
        assert ids(heap) == [1, 3]
        assert heap.tag("b").id == 3
        assert ids(heap) == [3], "the last name of a commit took it along"
        assert list(heap.tags()) == ["a", "b"]


def test_untag_gives_up_what_only_the_tag_kept(path: Path) -> None:
    with dh.open(path) as heap:
        commit_many(heap, 2)
        heap.tag("x", 1)
        heap.fold()
        heap.untag("x")
        assert heap.tags() == {}
        assert ids(heap) == [2]
        with pytest.raises(KeyError, match="no tag 'x'; the heap has no tags"):
            heap.untag("x")
        heap.tag("y")
        with pytest.raises(KeyError, match="no tag 'x'; there are 'y'"):
            dh.open(path, read_only=True, at="x")


@pytest.mark.parametrize(
    "name,why",
    [("", "empty"), ("x" * 201, "too long"), ("\u20ac" * 170, "too long"), ("12", "like a number"),
     ("-7", "like a number"), ("1_000", "like a number"), ("\u0663", "like a number"),
     ("a\nb", "do not print"), (" a", "space"), ("\ud800", "do not print")],
)  # fmt: skip
def test_a_name_that_cannot_be_a_tag_is_refused_with_the_reason(
    heap: dh.Heap, name: str, why: str
) -> None:
    commit_many(heap, 1)
    with pytest.raises(ValueError, match=why):
        heap.tag(name)
    assert heap.tags() == {}


@pytest.mark.parametrize("name", ["v1.0", "2024-01-02", "x" * 200, "\u20ac" * 166, "Stra\u00dfe 1"])
def test_every_other_printable_text_is_a_name(path: Path, name: str) -> None:
    with dh.open(path) as heap:
        commit_many(heap, 1)
        heap.tag(name)
    with dh.open(path, read_only=True, at=name) as snapshot:
        assert list(snapshot.tags()) == [name]


def test_what_is_not_there_cannot_be_tagged(heap: dh.Heap) -> None:
    with pytest.raises(dh.HeapError, match="nothing was committed yet"):
        heap.tag("x")
    commit_many(heap, 3)
    heap.fold()
    with pytest.raises(dh.HeapError, match="no longer kept"):
        heap.tag("x", 1)
    with pytest.raises(dh.HeapError, match="no commit 9"):
        heap.tag("x", 9)
    with pytest.raises(KeyError, match="no tag 'y'"):
        heap.tag("x", "y")
    for wrong in (1.0, True, b"x", object()):
        with pytest.raises(TypeError, match="named by its id"):
            heap.tag("x", wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name is a str"):
        heap.tag(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name is a str"):
        heap.untag(7)  # type: ignore[arg-type]
    assert heap.tags() == {}


def test_a_tag_that_cannot_be_written_changes_nothing(path: Path) -> None:
    def use() -> Any:
        import resource

        outcomes = []
        with dh.open(path) as heap:
            commit_many(heap, 3)
            heap.tag("old", 1)
            expected = ["old"]
            for limit in range(0, 60_000, 4096):
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                try:
                    heap.tag("new")
                    expected = ["new", "old"]
                    outcomes.append("tagged")
                    heap.untag("new")
                    expected = ["old"]
                except dh.HeapPoisonedError:
                    outcomes.append("poisoned")
                    break
                except dh.HeapError as error:
                    assert "was not written" in str(error)
                    outcomes.append("refused")
                    assert list(heap.tags()) == expected
                finally:
                    infinite = resource.RLIM_INFINITY
                    resource.setrlimit(resource.RLIMIT_FSIZE, (infinite, infinite))
        return outcomes

    outcomes = in_child(use)
    assert isinstance(outcomes, list), outcomes
    assert "refused" in outcomes
    assert contents(path) == {"n": 3}
    with dh.open(path) as heap:
        assert set(heap.tags()) <= {"old", "new"}
        assert ids(heap) in (
            [1, 2, 3],
            [1, 3],
        )  # an untag that worked gave up what keep=1 does not ask for


@pytest.mark.parametrize("verb", ["tag", "move", "untag"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_leaves_a_tag_as_it_was_or_as_it_was_to_be(
    path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, when: str
) -> None:
    """Before the transaction, or when it is durable and what is remembered of the index is not."""
    verbs: dict[str, Any] = {
        "tag": lambda: heap.tag("new", 2),
        "move": lambda: heap.tag("old", 3),
        "untag": lambda: heap.untag("old"),
    }
    afterwards = {"tag": {"new": 2, "old": 1}, "move": {"old": 3}, "untag": {}}

    def interrupt(*args: Any) -> Any:
        raise KeyboardInterrupt

    with dh.open(path) as heap:
        for number in (1, 2, 3):
            rewrite(heap, number)
            heap.commit()
            heap.tag(f"t{number}")
        heap.tag("old", 1)
        heap.untag("t1")
        with monkeypatch.context() as patch:
            if when == "before":
                patch.setattr(store.Store, "_prune_last", interrupt)
                patch.setattr(rows.Tag, "pack", interrupt)
            else:
                patch.setattr(store.Store, "_refresh", interrupt)
            with pytest.raises(KeyboardInterrupt):
                verbs[verb]()
        tags = {name: commit.id for name, commit in heap.tags().items() if name[0] != "t"}
        assert tags == ({"old": 1} if when == "before" else afterwards[verb])
        kept = ids(heap)
        for commit in kept:
            assert at(path, commit)["bulk"] == random.Random(commit).randbytes(3 << 20)
        rewrite(heap, 4)
        heap.commit()
        heap.fold()
        for name in heap.tags():
            heap.untag(name)
    with dh.open(path) as heap:
        assert ids(heap) == [4]
        assert_rows_go(heap)
        assert base_files(path) == {extent.file_name for extent in heap._store.extents.values()}


# --- commits and folds in between ----------------------------------------------------------------


def test_a_fold_that_failed_keeps_the_history(path: Path) -> None:
    with dh.open(path, keep=3) as heap:
        commit_many(heap, 4)
        with fault("extent.write", rc=28), pytest.raises(dh.HeapError):
            heap.fold()
        assert ids(heap) == [1, 2, 3, 4]
        heap.fold()
        assert ids(heap) == [2, 3, 4]
    assert [at(path, commit)["n"] for commit in (2, 3, 4)] == [2, 3, 4]


def test_a_note_only_commit_is_in_the_history_and_restorable(path: Path) -> None:
    with dh.open(path, keep=5) as heap:
        commit_many(heap, 1)
        heap.commit("nothing new")
        heap.fold()
        heap.commit("nothing new again")
        assert [commit.note for commit in heap.history()] == [
            "note 1", "nothing new", "nothing new again",
        ]  # fmt: skip
    assert at(path, 2) == at(path, 3) == {"n": 1}


def test_values_that_return_to_the_old_bases_are_right_in_every_commit(path: Path) -> None:
    """A diff against the base before a fold would be a wrong word after it."""
    with dh.open(path, keep=100) as heap:
        numbers = heap.root["numbers"] = [0] * 500
        for number in range(1, 13):
            numbers = heap.root["numbers"]
            for i in range(500):
                numbers[i] = number % 3
            heap.commit()
            if number % 4 == 0:
                heap.fold()
        kept = ids(heap)
    assert kept == list(range(1, 13))
    for commit in kept:
        assert at(path, commit)["numbers"] == [commit % 3] * 500


# --- rows that are not ours ----------------------------------------------------------------------


def record(**fields: Any) -> rows.Record:
    values: dict[str, Any] = {
        "id": 3, "parent": 2, "parent_hash": bytes(16), "nonce": bytes(8), "time": 1.0, "note": "",
        "root": 1, "hwm_pages": 2, "serial_next": 3, "chunks": 1, "body_hash": bytes(16),
        "pages": 1, "bytes_changed": 8, "fold": 1,
    }  # fmt: skip
    return rows.Record(**{**values, **fields})


def test_a_record_survives_packing() -> None:
    assert rows.Record.unpack(record().pack(), 3) == record()
    folded = record(fold=3, chunks=0)
    assert folded.is_fold_point
    assert rows.Record.unpack(folded.pack(), 3) == folded


@pytest.mark.parametrize(
    "fields",
    [{"id": 4}, {"parent": 1}, {"fold": 4}, {"fold": 3}, {"chunks": -1}, {"chunks": 1 << 32},
     {"chunks": 1 << 64}, {"time": 1}, {"time": float("nan")}, {"time": float("inf")},
     {"note": b""}, {"nonce": None}, {"root": True}, {"pages": 1.0}, {"fold": "1"}],
)  # fmt: skip
def test_a_record_with_a_wrong_field_is_damage(fields: dict[str, Any]) -> None:
    try:
        row = record(**fields).pack()
    except OverflowError:
        return  # cannot even be written
    with pytest.raises(dh.HeapCorruptError):
        rows.Record.unpack(row, 3)


def test_a_record_that_needs_more_is_refused() -> None:
    with pytest.raises(dh.HeapError, match="upgrade dirtyheap"):
        rows.Record.unpack(record(features_required=2).pack(), 3)


def test_a_small_delta_stands_in_the_record() -> None:
    small = record(chunks=2).with_chunks([b"a" * 100, memoryview(b"b" * 50)])
    assert small.body == (b"a" * 100, b"b" * 50) and small.features_required == 1
    assert rows.Record.unpack(small.pack(), 3) == small
    assert small.folded(bytes(8)) == record(fold=3, chunks=0)
    assert record().with_chunks([bytes(10_000)]) == record()
    assert record(chunks=0).with_chunks([]) == record(chunks=0)


@pytest.mark.parametrize(
    "body", [None, [], {}, b"x", "x", [1], ["x"], [b"x", b"y"], [None], [[b"x"]]]
)
def test_a_body_that_is_not_what_the_record_says_is_damage(body: Any) -> None:
    fields = rows.unseal(record(features_required=1).pack(), "")
    with pytest.raises(dh.HeapCorruptError, match="body"):
        rows.Record.unpack(rows.seal({**fields, "body": body}), 3)
    with pytest.raises(dh.HeapCorruptError, match="body"):
        rows.Record.unpack(rows.seal(fields), 3)


@pytest.mark.parametrize("fields", [{}, [], 7, {"id": 1}, {b"id": 1}])
def test_a_map_of_something_else_is_damage(fields: Any) -> None:
    row = rows.seal(fields)
    with pytest.raises(dh.HeapCorruptError):
        rows.Record.unpack(row, 1)
    with pytest.raises(dh.HeapCorruptError):
        rows.Tag.unpack(b"x", row)
    with pytest.raises(dh.HeapCorruptError):
        rows.unpack_extent(bytes(12), row)
    with pytest.raises(dh.HeapCorruptError):
        rows.check_meta(row, "here")
    with pytest.raises(dh.HeapCorruptError):
        rows.unpack_history(row, 1)


def test_every_byte_of_a_row_counts() -> None:
    row = record().pack()
    for at_byte in range(len(row)):
        damaged = bytearray(row)
        damaged[at_byte] ^= 1
        with pytest.raises(dh.HeapCorruptError):
            rows.Record.unpack(bytes(damaged), 3)
    for size in range(len(row)):
        with pytest.raises(dh.HeapCorruptError):
            rows.Record.unpack(row[:size], 3)


def test_an_extent_row_says_what_its_key_and_its_file_name_say() -> None:
    name = f"{7:08x}.{3:016x}.0011aabb"
    extent = store.Extent(7, 3, 4096, 5, name)
    row = rows.pack_extent(extent)
    assert rows.unpack_extent(rows.extent_key(7, 3), row) == extent
    for key in (rows.extent_key(7, 2), rows.extent_key(8, 3), b"", bytes(13)):
        with pytest.raises(dh.HeapCorruptError):
            rows.unpack_extent(key, row)
    fields = {"file_bytes": 4096, "checksum": 5, "file_name": name, "codec": 1}
    with pytest.raises(dh.HeapError, match="codec 1"):
        rows.unpack_extent(rows.extent_key(7, 3), rows.seal(fields))
    for wrong in ({"codec": -1}, {"checksum": 1 << 32}, {"file_name": "../../etc/passwd"},
                  {"file_bytes": "x"}, {"file_name": None}):  # fmt: skip
        with pytest.raises(dh.HeapCorruptError):
            rows.unpack_extent(rows.extent_key(7, 3), rows.seal({**fields, "codec": 0, **wrong}))


def test_a_tag_row_says_what_its_key_says() -> None:
    tag = rows.Tag("name", 3, 1.5)
    assert rows.Tag.unpack(b"name", tag.pack()) == tag
    for key, row in (
        (b"other", tag.pack()),
        (b"12", rows.Tag("12", 3, 1.5).pack()),
        (b"name", rows.Tag("name", 0, 1.5).pack()),
        (b"name", rows.Tag("name", 3, float("nan")).pack()),
        (b"\x1b[2J", rows.Tag("\x1b[2J", 3, 1.5).pack()),
    ):
        with pytest.raises(dh.HeapCorruptError):
            rows.Tag.unpack(key, row)


def test_another_format_is_refused_with_what_to_do() -> None:
    meta = {"format": 1, "uuid": b"", "page_bytes": 4096, "hash_key": bytes(16),
            "features_required": 0, "features_optional": 0}  # fmt: skip
    with pytest.raises(dh.HeapError, match="run `python -m dirtyheap upgrade /some/heap`"):
        rows.check_meta(rows.seal(meta), "/some/heap")
    for newer in ({"format": 3}, {"format": 2, "features_required": 1}):
        with pytest.raises(dh.HeapError, match="newer version"):
            rows.check_meta(rows.seal({**meta, **newer}), "/some/heap")
    with pytest.raises(dh.HeapError, match="pages"):
        rows.check_meta(rows.seal({**meta, "format": 2, "page_bytes": 8192}), "/some/heap")


def put(path: Path, database: bytes, key: bytes, row: bytes | None) -> None:
    """Change one row of a closed heap."""
    import lmdb

    with lmdb.open(str(path), max_dbs=8, map_size=1 << 30) as env:
        handle = env.open_db(database, create=False)
        with env.begin(write=True, db=handle) as txn:
            txn.put(key, row) if row is not None else txn.delete(key)


@pytest.mark.parametrize(
    "database,key,row",
    [
        (b"meta", rows.HISTORY_KEY, rows.pack_history(99)),
        (b"meta", rows.HISTORY_KEY, rows.pack_history(0)),
        (b"commits", rows.commit_key(2), None),
        (b"commits", rows.commit_key(3), record(fold=0).pack()),
        (b"deltas", rows.delta_key(2, 0), None),
        (b"deltas", rows.delta_key(3, 0), b"x" * 100),
        (b"extents", rows.extent_key(0, 9), rows.pack_extent(
            store.Extent(0, 9, 4096, 0, f"{0:08x}.{9:016x}.00000000"))),
        (b"extents", b"short", b""),
        (b"commits", b"short", b""),
    ],
)  # fmt: skip
def test_rows_that_contradict_each_other_are_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch, database: bytes, key: bytes, row: bytes | None
) -> None:
    monkeypatch.setattr(rows, "_BODY_IN_RECORD_MAX", 0)
    with dh.open(path) as heap:
        commit_many(heap, 3)
    put(path, database, key, row)
    with pytest.raises(dh.HeapCorruptError):
        dh.open(path)
    with pytest.raises(dh.HeapCorruptError):
        dh.open(path, read_only=True, at=3)


def test_a_damaged_tag_is_damage_where_tags_are_read(path: Path) -> None:
    with dh.open(path) as heap:
        commit_many(heap, 3)
    put(path, b"tags", b"x", rows.Tag("x", 77, 1.0).pack())
    with dh.open(path) as heap:
        for verb in (heap.tags, heap.fold):
            with pytest.raises(dh.HeapCorruptError, match="commit 77 is missing"):
                verb()
        heap.untag("x")
        heap.fold()
        assert heap.tags() == {}
