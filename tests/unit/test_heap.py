"""The verbs of a heap do what their docstrings say: each alone, and in the wrong order."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Stop, change, contents, fault, fill, plain, require_tracker, seeded

import dirtyheap as dh

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_heap_and_its_savepoints_are_not_copied(
    heap: dh.Heap, how: Callable[[Any], object]
) -> None:
    heap.root["n"] = 1
    savepoint = heap.savepoint()
    with pytest.raises(TypeError, match="a Heap cannot be pickled or copied: backup"):
        how(heap)
    with pytest.raises(TypeError, match="a Savepoint cannot be pickled or copied: take another"):
        how(savepoint)
    gc.collect()  # a copy would close the heap here
    heap.root["n"] = 2
    savepoint.rollback()
    assert heap.root["n"] == 1
    assert heap.commit().id == 1


# --- open ----------------------------------------------------------------------------------------


def test_a_new_heap_is_empty_and_has_no_commit(path: Path) -> None:
    with dh.open(path) as heap:
        assert heap.root == {}
        assert heap.last_commit_id == 0
        assert heap.path == path
        assert not heap.closed
        assert repr(heap) == f"<dirtyheap.Heap {str(path)!r}, commit 0>"


def test_what_was_committed_is_there_after_reopening(path: Path) -> None:
    with dh.open(path) as heap:
        fill(heap)
        heap.commit()
        expected = plain(heap)
        heap.root["uncommitted"] = 1
    assert contents(path) == expected


def test_create_false_makes_nothing(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        dh.open(path, create=False)
    assert not path.exists()
    path.mkdir()
    with pytest.raises(FileNotFoundError):
        dh.open(path, create=False)
    assert list(path.iterdir()) == []


def test_a_missing_parent_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        dh.open(tmp_path / "missing" / "heap")
    assert list(tmp_path.iterdir()) == []


def test_a_path_may_be_a_string(path: Path) -> None:
    with dh.open(str(path)) as heap:
        assert heap.path == path


@pytest.mark.parametrize("capacity", [0, 1, (1 << 20) - 1, (4 << 40) + 4096])
def test_an_impossible_capacity_is_refused_and_leaves_no_heap_open(
    path: Path, capacity: int
) -> None:
    with pytest.raises(ValueError, match="capacity"):
        dh.open(path, capacity=capacity)
    assert not path.exists()
    with dh.open(path) as heap:
        assert heap.root == {}


def test_an_unknown_tracker_is_named_and_nothing_is_made(path: Path) -> None:
    with pytest.raises(ValueError, match=r"tracker 'magic': must be one of auto, uffd"):
        dh.open(path, tracker="magic")
    assert not path.exists()


def test_the_tracker_in_use_is_told(path: Path) -> None:
    with dh.open(path, tracker="compare") as heap:
        assert heap.stats().tracker == "compare"
    require_tracker("auto")
    with dh.open(path) as heap:
        assert heap.stats().tracker in ("uffd", "uffd-dev")


# --- commit --------------------------------------------------------------------------------------


def test_commits_count_from_one_and_name_their_parent(path: Path) -> None:
    with dh.open(path) as heap:
        before = time.time()
        for number in range(1, 4):
            heap.root["number"] = number
            commit = heap.commit(f"note {number}")
            assert (commit.id, commit.parent, commit.note) == (number, number - 1, f"note {number}")
            assert before <= commit.time <= time.time()
            assert commit.pages > 0
            assert commit.bytes_written > commit.bytes_changed > 0
            assert 0 < commit.pause_ns < commit.total_ns
            assert heap.last_commit_id == number


def test_a_commit_without_change_writes_nothing(path: Path) -> None:
    with dh.open(path) as heap:
        fill(heap)
        first = heap.commit("first")
        before = (path / "data.mdb").read_bytes()
        heap.root["numbers"][1] = heap.root["numbers"][1]
        again = heap.commit()
        assert (again.id, again.note) == (first.id, "first")
        assert (again.pages, again.bytes_changed, again.bytes_written) == (0, 0, 0)
        assert (path / "data.mdb").read_bytes() == before


def test_a_note_alone_makes_a_commit(path: Path) -> None:
    with dh.open(path) as heap:
        heap.root["a"] = 1
        first = heap.commit()
        second = heap.commit("reached the gate \ud800 \0 ü".replace("\ud800", ""))
        assert (second.id, second.bytes_changed) == (first.id + 1, 0)
    with dh.open(path) as heap:
        assert heap.last_commit_id == second.id
        assert heap.commit().note == "reached the gate  \0 ü"


@pytest.mark.parametrize("note", [None, b"bytes", 3])
def test_a_note_that_is_no_text_is_refused(path: Path, note: Any) -> None:
    with dh.open(path) as heap:
        heap.root["a"] = 1
        with pytest.raises(TypeError, match="note must be a str"):
            heap.commit(note)
        assert heap.last_commit_id == 0
        assert heap.commit().id == 1


def test_a_note_that_cannot_be_stored_loses_nothing(path: Path) -> None:
    """A lone surrogate has no UTF-8."""
    with dh.open(path) as heap:
        heap.root["a"] = 1
        with pytest.raises((ValueError, dh.HeapError)):
            heap.commit("\ud800")
        assert heap.commit().id == 1
    assert contents(path) == {"a": 1}


def test_bytes_changed_counts_words(path: Path) -> None:
    with dh.open(path) as heap:
        heap.root["buffer"] = heap.buffer(100_000)
        heap.commit()
        for at in (0, 3, 8, 50_000, 99_999):  # the first two share a word
            heap.root["buffer"][at] = 1
        assert heap.pending() == dh.Pending(pages=3, bytes=4 * 8)
        commit = heap.commit()
        assert (commit.pages, commit.bytes_changed) == (3, 4 * 8)


def test_zeros_over_zeros_are_no_change(path: Path) -> None:
    with dh.open(path) as heap:
        heap.root["buffer"] = heap.buffer(100_000)
        first = heap.commit()
        heap.root["buffer"][:] = bytes(100_000)
        assert heap.pending() == dh.Pending(0, 0)
        assert heap.commit().id == first.id


# --- pending, stats, verify, collect, fold -------------------------------------------------------


def test_pending_changes_nothing(path: Path) -> None:
    with dh.open(path) as heap:
        fill(heap)
        first = heap.pending()
        assert first.pages > 0 and first.bytes > 0
        assert heap.pending() == first
        commit = heap.commit()
        assert commit.bytes_changed >= first.bytes
        assert heap.pending() == dh.Pending(0, 0)


def test_stats_follow_the_heap(path: Path) -> None:
    with dh.open(path, capacity=16 << 20) as heap:
        empty = heap.stats()
        assert empty.capacity_bytes == 16 << 20
        assert (empty.handles, empty.exported_views, empty.commit) == (0, 0, 0)
        fill(heap)
        full = heap.stats()
        assert full.arena_bytes > empty.arena_bytes
        assert full.allocated_bytes > empty.allocated_bytes + 64 * 256
        heap.commit()
        assert heap.stats().overlay_pages > 0
        assert heap.stats().delta_bytes > 0
        held = heap.root["nested"]
        with memoryview(heap.root["buffer"]):
            assert heap.stats().exported_views == 1
            assert heap.stats().handles >= 2
        del held
        assert heap.stats().exported_views == 0
        assert heap.stats().handles == 0
        heap.fold()
        folded = heap.stats()
        assert folded.base_bytes > 0
        assert (folded.overlay_pages, folded.overlay_bytes, folded.delta_bytes) == (0, 0, 0)
        assert folded.commit == 1


def test_collect_frees_what_nothing_reaches(path: Path) -> None:
    with dh.open(path) as heap:
        heap.root["keep"] = {"a": [1, 2, 3]}
        cycle = heap.dict()
        cycle["self"] = cycle
        cycle["bulk"] = ["x" * 100] * 1000
        heap.commit()
        held = heap.collect()
        assert held.freed_cells == 0
        del cycle
        allocated = heap.stats().allocated_bytes
        freed = heap.collect()
        assert freed.freed_cells > 1000
        assert freed.freed_bytes >= 1000 * 100
        assert heap.stats().allocated_bytes == allocated - freed.freed_bytes
        assert freed.roots >= 1 and freed.pause_ns > 0 and freed.live_cells > 0
        assert plain(heap) == {"keep": {"a": [1, 2, 3]}}
        assert heap.collect().freed_cells == 0
    assert contents(path) == {"keep": {"a": [1, 2, 3]}}


def test_a_held_container_survives_collection_unlinked(path: Path) -> None:
    with dh.open(path) as heap:
        heap.root["a"] = {"inner": [1, {"deep": 2}]}
        inner = heap.root["a"]["inner"]
        del heap.root["a"]
        heap.collect()
        assert dh.to_python(inner) == [1, {"deep": 2}]
        heap.root["back"] = inner
        heap.commit()
    assert contents(path) == {"back": [1, {"deep": 2}]}


def test_verify_counts_what_it_walked(path: Path) -> None:
    with dh.open(path) as heap:
        empty = heap.verify()
        fill(heap)
        full = heap.verify()
        assert empty.ok and full.ok and full.problems == () and full.first_problem == ""
        assert full.cells > empty.cells + 100


def test_a_fold_changes_nothing_that_is_seen(path: Path) -> None:
    rng = seeded()
    with dh.open(path) as heap:
        assert heap.fold() == 0
        fill(heap)
        heap.root["uncommitted later"] = 0
        for _ in range(5):
            change(heap, rng)
            heap.commit()
        heap.root["uncommitted later"] = 1
        expected, last = plain(heap), heap.last_commit_id
        pending = heap.pending()
        assert heap.fold() > 0
        assert heap.pending() == pending
        assert (plain(heap), heap.last_commit_id) == (expected, last)
        assert heap.fold() == 0
    with dh.open(path) as heap:
        expected["uncommitted later"] = 0
        assert (plain(heap), heap.last_commit_id) == (expected, last)
        change(heap, rng)
        assert heap.commit().id == last + 1


def test_mark_dirty_wants_memory_of_this_heap(path: Path) -> None:
    with dh.open(path) as heap:
        buffer = heap.root["buffer"] = heap.buffer(8192)
        heap.commit()
        heap.mark_dirty(buffer)
        heap.mark_dirty(np.frombuffer(buffer, dtype=np.uint8))
        assert heap.pending() == dh.Pending(0, 0)
        with pytest.raises(OSError, match="does not lie in this heap"):
            heap.mark_dirty(bytearray(100))
        with pytest.raises(ValueError, match="gaps"):
            heap.mark_dirty(np.frombuffer(buffer, dtype=np.uint8)[::2])
        heap.mark_dirty(heap.buffer(0))


# --- rollback ------------------------------------------------------------------------------------


def test_rollback_restores_contents_and_keeps_identity(path: Path) -> None:
    rng = seeded()
    with dh.open(path) as heap:
        fill(heap)
        heap.commit()
        expected = plain(heap)
        root, numbers, buffer = heap.root, heap.root["numbers"], heap.root["buffer"]
        for _ in range(10):
            change(heap, rng)
        del heap.root["numbers"], heap.root["buffer"]
        assert heap.rollback() > 0
        assert heap.root is root
        assert heap.root["numbers"] is numbers and heap.root["buffer"] is buffer
        assert plain(heap) == expected
        assert heap.pending() == dh.Pending(0, 0)
        assert heap.verify().ok
        assert heap.rollback() == 0


def test_rollback_before_the_first_commit_leads_to_the_empty_heap(path: Path) -> None:
    with dh.open(path) as heap:
        root = heap.root
        fill(heap)
        late = heap.root["nested"]
        heap.rollback()
        assert heap.root is root and root == {}
        with pytest.raises(dh.StaleObjectError):
            len(late)
        heap.root["a"] = [1]
        assert heap.verify().ok
        heap.commit()
    assert contents(path) == {"a": [1]}


def test_containers_made_since_the_commit_go_stale_at_every_use(path: Path) -> None:
    with dh.open(path) as heap:
        heap.root["a"] = 1
        heap.commit()
        late_dict, late_list, late_buffer = heap.dict({"x": 1}), heap.list([1]), heap.buffer(10)
        heap.root["late"] = late_dict
        heap.rollback()
        uses: list[Callable[[], Any]] = [
            lambda: late_dict["x"],
            lambda: len(late_dict),
            lambda: list(late_dict),
            lambda: late_dict.update(a=1),
            lambda: "x" in late_dict,
            lambda: late_dict.clear(),
            lambda: late_list[0],
            lambda: late_list.append(1),
            lambda: list(late_list),
            lambda: late_list.sort(),
            lambda: 1 in late_list,
            lambda: late_buffer[0],
            lambda: memoryview(late_buffer),
            lambda: late_buffer[:],
            lambda: heap.root.update(link=late_dict),
            lambda: heap.list([late_list]),
            lambda: dh.to_python(late_buffer),
        ]
        for use in uses:
            with pytest.raises(dh.StaleObjectError):
                use()
        assert plain(heap) == {"a": 1}
        # New containers may take the same places: the stale ones stay stale.
        heap.root["new"] = [{"x": 2}, [2], heap.buffer(10)]
        with pytest.raises(dh.StaleObjectError):
            late_dict["x"]


def test_an_iterator_over_a_container_that_went_stale_stops_with_an_error(path: Path) -> None:
    with dh.open(path) as heap:
        heap.commit("empty")
        late = heap.root["late"] = heap.dict({i: i for i in range(100)})
        iterators = [iter(late), iter(late.items()), iter(heap.list([1, 2, 3]))]
        for iterator in iterators:
            next(iterator)
        heap.rollback()
        for iterator in iterators:
            with pytest.raises((dh.StaleObjectError, RuntimeError)):
                next(iterator)


def test_a_rollback_takes_back_a_collection(path: Path) -> None:
    with dh.open(path) as heap:
        heap.root["old"] = {i: [i] for i in range(500)}
        heap.commit()
        expected = plain(heap)
        del heap.root["old"]
        assert heap.collect().freed_cells > 500
        heap.root["new"] = {i: ["other", i] for i in range(500)}
        heap.rollback()
        assert plain(heap) == expected
        assert heap.verify().ok
        heap.collect()
        assert plain(heap) == expected
        heap.commit()
    assert contents(path) == expected


def test_a_view_of_a_buffer_that_was_rolled_back_harms_nobody(path: Path) -> None:
    """Its memory is handed to nobody while the view lives."""
    with dh.open(path, capacity=4 << 20) as heap:
        heap.commit("empty")
        view = memoryview(heap.buffer(1 << 20))
        heap.rollback()
        heap.root["others"] = [bytes(4096) for _ in range(300)]
        view[:] = b"\xff" * len(view)
        assert heap.root["others"] == [bytes(4096)] * 300
        heap.commit()
        assert heap.verify().ok
        view.release()
    assert contents(path) == {"others": [bytes(4096)] * 300}


def test_memory_under_a_view_is_used_again_when_the_view_is_gone(path: Path) -> None:
    """Also when the search for free pages has passed it by meanwhile."""
    with dh.open(path, capacity=4 << 20) as heap:
        heap.commit("empty")
        view = memoryview(heap.buffer(2 << 20))
        other = heap.buffer(1 << 20)
        heap.rollback()
        del other
        heap.root["texts"] = [str(i) * 9000 for i in range(10)]
        with pytest.raises(dh.HeapFullError):
            heap.buffer(2 << 20)
        view.release()
        heap.root["again"] = heap.buffer(2 << 20)
        assert not any(heap.root["again"][:])


# --- close ---------------------------------------------------------------------------------------

RECORD: Any = dh.record(type("RecordOfTheTest", (), {}))
METHODS: dict[str, Callable[[dh.Heap], Any]] = {
    "root": lambda heap: heap.root,
    "dict": lambda heap: heap.dict(),
    "dict of": lambda heap: heap.dict({"a": [1]}),
    "list": lambda heap: heap.list([1]),
    "sorted_dict": lambda heap: heap.sorted_dict(),
    "sorted_dict of": lambda heap: heap.sorted_dict({"a": [1]}),
    "set": lambda heap: heap.set([1]),
    "deque": lambda heap: heap.deque([1]),
    "buffer": lambda heap: heap.buffer(10),
    "buffer of": lambda heap: heap.buffer(b"abc"),
    "array": lambda heap: heap.array(3),
    "new": lambda heap: heap.new(RECORD),
    "commit": lambda heap: heap.commit(),
    "rollback": lambda heap: heap.rollback(),
    "transaction": lambda heap: heap.transaction().__enter__(),
    "hold": lambda heap: heap.hold().__enter__(),
    "pending": lambda heap: heap.pending(),
    "collect": lambda heap: heap.collect(),
    "collect young": lambda heap: heap.collect("young"),
    "collect beside": lambda heap: heap.collect(concurrent=True),
    "collect for": lambda heap: heap.collect(budget_ms=1),
    "census": lambda heap: heap.census(),
    "why": lambda heap: heap.why(heap.root),
    "growth": lambda heap: heap.growth(1),
    "fold": lambda heap: heap.fold(),
    "verify": lambda heap: heap.verify(),
    "stats": lambda heap: heap.stats(),
    "mark_dirty": lambda heap: heap.mark_dirty(b"abc"),
    "path": lambda heap: heap.path,
    "last_commit_id": lambda heap: heap.last_commit_id,
    "history": lambda heap: heap.history(),
    "tags": lambda heap: heap.tags(),
    "tag": lambda heap: heap.tag("name"),
    "untag": lambda heap: heap.untag("name"),
    "backup": lambda heap: heap.backup("elsewhere"),
    "restore": lambda heap: heap.restore(1),
    "diff": lambda heap: heap.diff(1),
    "savepoint": lambda heap: heap.savepoint(),
}


def test_every_public_name_of_a_heap_is_tried_after_close() -> None:
    harmless = {"close", "closed", "collector", "read_only"}
    tried = {name.split()[0] for name in METHODS}
    assert {name for name in dir(dh.Heap) if not name.startswith("_")} == tried | harmless


@pytest.mark.parametrize("method", METHODS)
def test_a_closed_heap_refuses(path: Path, method: str) -> None:
    heap = dh.open(path)
    heap.root["a"] = 1
    heap.close()
    with pytest.raises(dh.HeapClosedError, match="closed"):
        METHODS[method](heap)
    heap.close()
    assert heap.closed
    assert repr(heap) == "<dirtyheap.Heap, closed>"


def test_containers_of_a_closed_heap_refuse(path: Path) -> None:
    heap = dh.open(path)
    fill(heap)
    root, numbers, texts, buffer = (
        heap.root,
        heap.root["numbers"],
        heap.root["texts"],
        heap.root["buffer"],
    )
    heap.close()
    uses: list[Callable[[], Any]] = [
        lambda: root["a"],
        lambda: root.update(a=1),
        lambda: list(root),
        lambda: numbers.items(),
        lambda: list(numbers.items()),
        lambda: texts[0],
        lambda: texts.append(1),
        lambda: buffer[0],
        lambda: memoryview(buffer),
        lambda: dh.to_python(root),
        lambda: root == {},
        lambda: len(texts),
    ]
    for use in uses:
        try:
            result = use()
        except dh.HeapClosedError:
            continue
        # making a lazy view of a closed dict is harmless; using it is not
        with pytest.raises(dh.HeapClosedError):
            list(result)


def test_close_with_views_alive_warns_and_keeps_their_memory(path: Path) -> None:
    heap = dh.open(path)
    heap.root["buffer"] = heap.buffer(b"0123456789" * 1000)
    heap.commit()
    view = memoryview(heap.root["buffer"])
    array = np.frombuffer(heap.root["buffer"], dtype=np.uint8)
    with pytest.warns(ResourceWarning, match="2 views"):
        heap.close()
    assert bytes(view[:10]) == b"0123456789"
    view[0] = ord("x")
    assert array[0] == ord("x")
    # Somebody else may have the heap meanwhile: what the view writes is saved nowhere.
    assert bytes(contents(path)["buffer"]) == b"0123456789" * 1000
    array[5] = 99
    del array
    assert view[5] == 99
    view.release()
    gc.collect()


def test_leaving_the_block_closes_without_committing(path: Path) -> None:
    with pytest.raises(Stop), dh.open(path) as heap:
        heap.root["a"] = 1
        raise Stop
    assert heap.closed
    assert contents(path) == {}


def test_a_forgotten_heap_warns_and_lets_the_next_one_in(path: Path) -> None:
    with pytest.warns(ResourceWarning, match="unclosed heap"):
        dh.open(path)
        gc.collect()
    with dh.open(path) as heap:
        assert heap.root == {}


def test_a_heap_that_fails_to_open_is_not_left_locked(path: Path) -> None:
    with fault("arena.reserve", rc=12), pytest.raises(MemoryError):
        dh.open(path)
    with dh.open(path) as heap:
        heap.commit("one")
    with fault("watch.arm"), warnings.catch_warnings():
        warnings.simplefilter("error")
        with dh.open(path) as heap:
            with pytest.raises(OSError):
                heap.root["a"] = 1  # the first store begins the watch
            assert heap.root == {}
    with dh.open(path) as heap:
        assert heap.last_commit_id == 1


# --- callbacks -----------------------------------------------------------------------------------


class Finalized:
    """Runs something when Python's collector finds it: part of a cycle."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.cycle = self

    def __del__(self) -> None:
        self.work()


def collected_during(verb: Callable[[], Any], work: Callable[[], Any]) -> None:
    """Let Python's collector run, and so the finalizer, wherever the verb allocates."""
    threshold = gc.get_threshold()
    gc.collect()
    Finalized(work)
    gc.set_threshold(1)
    try:
        verb()
    finally:
        gc.set_threshold(*threshold)
    gc.collect()


@pytest.mark.parametrize("verb", ["commit", "rollback", "collect", "fold", "verify", "pending"])
@pytest.mark.parametrize("inner", ["commit", "rollback", "collect", "fold", "close"])
def test_a_verb_from_a_finalizer_is_refused_inside_a_verb(
    path: Path, verb: str, inner: str
) -> None:
    """Or it runs before or after it, whole."""
    errors: list[BaseException] = []
    heap = dh.open(path)
    fill(heap)
    heap.commit()
    heap.root["more"] = list(range(100))

    def call_back() -> None:
        try:
            getattr(heap, inner)()
        except dh.HeapError as error:
            errors.append(error)

    try:
        collected_during(getattr(heap, verb), call_back)
    except dh.HeapClosedError:
        assert inner == "close"
    assert [e for e in errors if "called from inside" not in str(e)] == []
    if not heap.closed:
        assert heap.verify().ok
        heap.commit()
        expected = plain(heap)
        heap.close()
        assert contents(path) == expected
    else:
        assert contents(path)["numbers"][3] == 9


def test_a_finalizer_inside_a_commit_does_not_get_through(path: Path) -> None:
    """The one above may pass without ever being inside; this one is."""
    with dh.open(path) as heap:
        heap.root["a"] = 1
        seen: list[str] = []

        def profile(frame: Any, event: str, argument: Any) -> None:
            if event == "call" and frame.f_code.co_name == "append" and not seen:
                for verb in (heap.commit, heap.rollback, heap.collect, heap.fold, heap.close):
                    try:
                        verb()
                    except dh.HeapError as error:
                        seen.append(str(error))

        sys.setprofile(profile)
        try:
            heap.commit()
        finally:
            sys.setprofile(None)
        assert len(seen) == 5
        assert all("called from inside commit()" in text for text in seen)
        assert heap.last_commit_id == 1
    assert contents(path) == {"a": 1}


# --- threads -------------------------------------------------------------------------------------


def test_a_heap_can_be_used_and_closed_by_another_thread(path: Path) -> None:
    heap = dh.open(path)

    def work() -> None:
        heap.root["thread"] = threading.current_thread().name
        heap.commit()
        heap.close()

    thread = threading.Thread(target=work, name="other")
    thread.start()
    thread.join(60)
    assert heap.closed
    assert contents(path) == {"thread": "other"}


def test_the_heap_leaves_no_descriptor_open(path: Path) -> None:
    def open_descriptors() -> set[str]:
        return {
            os.readlink(f"/proc/self/fd/{fd}")
            for fd in os.listdir("/proc/self/fd")
            if os.path.lexists(f"/proc/self/fd/{fd}")
        }

    before = open_descriptors()
    for _ in range(3):
        with dh.open(path) as heap:
            fill(heap)
            heap.commit()
            heap.fold()
    assert open_descriptors() <= before
