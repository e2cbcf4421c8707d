"""The verbs of a heap do what their docstrings say: each alone, in the wrong order, and
interrupted.

An interrupt (KeyboardInterrupt) is injected at every place of a commit where CPython would deliver
a signal: after it, the next commit and a reopening equal memory, or the heap is poisoned and
reopening gives exactly the state before or the state after.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import change, contents, fault, fill, plain, require_tracker, seeded

import dirtyheap as dh

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "heap"


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
        assert empty.ok and full.ok and full.problems == 0 and full.first_problem == ""
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


# --- transaction, hold ---------------------------------------------------------------------------


class Stop(Exception):
    """Leaves a transaction."""


def test_a_transaction_commits_once_at_the_end(path: Path) -> None:
    with dh.open(path) as heap:
        with heap.transaction() as inside:
            assert inside is heap
            heap.root["a"] = 1
            with heap.transaction():
                heap.root["b"] = 2
            assert heap.last_commit_id == 0
        assert heap.last_commit_id == 1
    assert contents(path) == {"a": 1, "b": 2}


def test_an_exception_goes_back_to_the_start_of_the_block_not_to_the_commit(path: Path) -> None:
    with dh.open(path) as heap:
        heap.root["a"] = 1
        heap.commit()
        heap.root["uncommitted"] = {"kept": True}
        held = heap.root["uncommitted"]
        with pytest.raises(Stop), heap.transaction():
            heap.root["a"] = 2
            heap.root["uncommitted"]["more"] = [1]
            late = heap.root["late"] = heap.dict()
            raise Stop
        assert plain(heap) == {"a": 1, "uncommitted": {"kept": True}}
        assert held is heap.root["uncommitted"]
        with pytest.raises(dh.StaleObjectError):
            len(late)
        assert heap.last_commit_id == 1
        assert heap.commit().id == 2
    assert contents(path) == {"a": 1, "uncommitted": {"kept": True}}


def test_an_inner_block_is_undone_alone(path: Path) -> None:
    with dh.open(path) as heap, heap.transaction():
        heap.root["outer"] = [1]
        for value in range(3):
            with pytest.raises(Stop), heap.transaction():
                heap.root["outer"].append(value)
                heap.root["inner"] = value
                raise Stop
        heap.root["outer"].append("end")
    assert contents(path) == {"outer": [1, "end"]}


def test_an_outer_exception_undoes_inner_blocks_that_ended_well(path: Path) -> None:
    with dh.open(path) as heap:
        heap.root["a"] = 1
        heap.commit()
        with pytest.raises(Stop), heap.transaction():
            with heap.transaction():
                heap.root["b"] = 2
            raise Stop
        assert plain(heap) == {"a": 1}


def test_tasks_cannot_interleave_transactions(path: Path) -> None:
    async def first(heap: dh.Heap, entered: asyncio.Event, leave: asyncio.Event) -> None:
        with heap.transaction():
            heap.root["first"] = 1
            entered.set()
            await leave.wait()
            with heap.transaction():  # its own may nest
                heap.root["first"] += 1

    async def second(heap: dh.Heap, entered: asyncio.Event, leave: asyncio.Event) -> None:
        await entered.wait()
        try:
            with pytest.raises(dh.HeapError, match="another asyncio task"), heap.transaction():
                raise AssertionError("got in")
            heap.root["second"] = 1
        finally:
            leave.set()
        await asyncio.sleep(0)

    async def both(heap: dh.Heap) -> None:
        entered, leave = asyncio.Event(), asyncio.Event()
        await asyncio.gather(first(heap, entered, leave), second(heap, entered, leave))

    with dh.open(path) as heap:
        asyncio.run(both(heap))
        assert heap.last_commit_id == 1
    assert contents(path) == {"first": 2, "second": 1}


@pytest.mark.parametrize("outer_fails", [False, True])
def test_blocks_that_end_in_the_wrong_order_are_undone_and_say_so(
    path: Path, outer_fails: bool
) -> None:
    def block(heap: dh.Heap, name: str) -> Iterator[None]:
        with heap.transaction():
            heap.root[name] = 1
            yield
            heap.root[name] = 2

    with dh.open(path) as heap:
        heap.root["before"] = 1
        outer, inner = block(heap, "outer"), block(heap, "inner")
        next(outer)
        next(inner)
        if outer_fails:
            with pytest.raises(Stop):
                outer.throw(Stop())
        else:
            with pytest.raises(dh.HeapError, match="both were undone"):
                next(outer)
        assert heap.root == {"before": 1}
        with pytest.raises(dh.HeapError, match="ended first"):
            next(inner)
        heap.rollback()
        assert heap.root == {}
        heap.root["after"] = 1
        heap.commit()
    assert contents(path) == {"after": 1}


def test_a_block_ends_in_its_thread_only(path: Path) -> None:
    with dh.open(path) as heap:
        block = heap.transaction()
        block.__enter__()
        heap.root["a"] = 1
        errors: list[BaseException] = []

        def end() -> None:
            try:
                block.__exit__(None, None, None)
            except RuntimeError as error:
                errors.append(error)

        thread = threading.Thread(target=end)
        thread.start()
        thread.join(60)
        assert "another thread" in str(errors[0])
        block.__exit__(None, None, None)
        assert heap.last_commit_id == 1
        with pytest.raises(RuntimeError, match="not begun"):
            block.__exit__(None, None, None)


def test_an_interrupt_inside_undoes_too(path: Path) -> None:
    # The process may have been started with the signal ignored.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupt_inside(path)
    finally:
        signal.signal(signal.SIGINT, previous)


def interrupt_inside(path: Path) -> None:
    with dh.open(path) as heap:
        with pytest.raises(KeyboardInterrupt), heap.transaction():
            heap.root["a"] = 1
            signal.raise_signal(signal.SIGINT)
        assert heap.root == {}
        heap.root["b"] = 1
        heap.commit()


def test_commit_and_rollback_inside_a_transaction_are_refused(path: Path) -> None:
    with dh.open(path) as heap:
        with heap.transaction():
            heap.root["a"] = 1
            for verb in (heap.commit, heap.rollback):
                with pytest.raises(dh.HeapError, match="inside transaction"):
                    verb()
            heap.collect()
            heap.pending()
            heap.verify()
            assert heap.root["a"] == 1
        assert heap.last_commit_id == 1


def test_a_transaction_whose_commit_fails_keeps_its_changes(path: Path) -> None:
    with dh.open(path) as heap:
        with fault("commit.encode"), pytest.raises(OSError), heap.transaction():
            heap.root["a"] = 1
        assert plain(heap) == {"a": 1}
        assert heap.commit().id == 1
    assert contents(path) == {"a": 1}


def test_closing_inside_a_transaction_ends_it(path: Path) -> None:
    heap = dh.open(path)
    with pytest.raises(dh.HeapClosedError), heap.transaction():
        heap.root["a"] = 1
        heap.close()
    assert heap.closed
    assert contents(path) == {}


def test_nobody_commits_while_another_thread_holds(path: Path) -> None:
    with dh.open(path) as heap:
        entered, leave, commits = threading.Event(), threading.Event(), []

        def holder(block: Callable[[], Any]) -> None:
            with block():
                entered.set()
                assert leave.wait(60)
                heap.root["from inside"] = 1

        for block in (heap.hold, heap.transaction):
            entered.clear()
            leave.clear()
            commits.clear()
            other = threading.Thread(target=holder, args=(block,))
            other.start()
            assert entered.wait(60)
            committer = threading.Thread(target=lambda: commits.append(heap.commit("waited")))
            committer.start()
            heap.root["from outside"] = 1
            assert commits == []  # nothing can have come: the other thread has the lock
            leave.set()
            other.join(60)
            committer.join(60)
            assert len(commits) == 1
            assert commits[0].note == "waited"
    assert contents(path) == {"from inside": 1, "from outside": 1}


# --- close ---------------------------------------------------------------------------------------

METHODS: dict[str, Callable[[dh.Heap], Any]] = {
    "root": lambda heap: heap.root,
    "dict": lambda heap: heap.dict(),
    "dict of": lambda heap: heap.dict({"a": [1]}),
    "list": lambda heap: heap.list([1]),
    "buffer": lambda heap: heap.buffer(10),
    "buffer of": lambda heap: heap.buffer(b"abc"),
    "commit": lambda heap: heap.commit(),
    "rollback": lambda heap: heap.rollback(),
    "transaction": lambda heap: heap.transaction().__enter__(),
    "hold": lambda heap: heap.hold().__enter__(),
    "pending": lambda heap: heap.pending(),
    "collect": lambda heap: heap.collect(),
    "fold": lambda heap: heap.fold(),
    "verify": lambda heap: heap.verify(),
    "stats": lambda heap: heap.stats(),
    "mark_dirty": lambda heap: heap.mark_dirty(b"abc"),
    "path": lambda heap: heap.path,
    "last_commit_id": lambda heap: heap.last_commit_id,
}


def test_every_public_name_of_a_heap_is_tried_after_close() -> None:
    harmless = {"close", "closed"}
    tried = {name.split()[0] for name in METHODS}
    assert {name for name in vars(dh.Heap) if not name.startswith("_")} == tried | harmless


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
    with fault("watch.arm"), warnings.catch_warnings():
        warnings.simplefilter("error")
        with dh.open(path) as heap:  # nothing to arm in an empty heap
            heap.commit("one")
        with pytest.raises(OSError):
            dh.open(path)
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


# --- interrupts ----------------------------------------------------------------------------------


class InterruptAt:
    """Raises KeyboardInterrupt at the n-th place where CPython looks for signals: when a Python
    function is entered, and when a C function has returned."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.where = ""

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        if event not in ("call", "c_return"):
            return
        if frame.f_code is InterruptAt.__exit__.__code__ or argument is sys.setprofile:
            return
        self.left -= 1
        if self.left == 0:
            sys.setprofile(None)
            name = getattr(argument, "__name__", "") if event == "c_return" else "entry"
            self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno} {name}"
            raise KeyboardInterrupt(self.where)

    def __enter__(self) -> InterruptAt:
        sys.setprofile(self)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)


def interrupted_everywhere(
    path: Path, work: Callable[[dh.Heap, InterruptAt], Any], stride: int = 1
) -> int:
    """Run work again and again, interrupted at its first place, its second one, ... until it ends
    by itself; returns how many places there were. Work enters the interrupt around a verb.
    A stride beyond 1 visits a random part of the places, one in so many."""
    rng = seeded()
    heap = dh.open(path)
    fill(heap)
    heap.commit()
    for number in itertools.count(rng.randrange(1, stride + 1), stride):
        before, last = plain(heap), heap.last_commit_id
        change(heap, rng)
        now = plain(heap)
        interrupt = InterruptAt(number)
        try:
            work(heap, interrupt)
        except KeyboardInterrupt:
            pass
        else:
            if not interrupt.where:
                still_whole(heap, path, before, now, last, "the end").close()
                return number - 1
        where = f"place {number}, {interrupt.where}"
        heap = still_whole(heap, path, before, now, last, where)
    raise AssertionError("not reached")


def still_whole(heap: dh.Heap, path: Path, before: Any, now: Any, last: int, where: str) -> dh.Heap:
    """Nothing is lost in memory and the next commit has it; or the heap is poisoned, and the
    directory holds one of the two states. Returns a heap to go on with."""
    try:
        heap.commit()
    except dh.HeapPoisonedError as error:
        assert "close" in str(error), where
        heap.close()
        heap = dh.open(path)
        assert plain(heap) in (before, now), where
        assert heap.last_commit_id in (last, last + 1), where
        return heap
    assert plain(heap) == now, where
    assert heap.verify().ok, where
    heap.close()
    heap = dh.open(path)
    assert plain(heap) == now, where
    return heap


def test_an_interrupt_anywhere_in_a_commit_loses_nothing(path: Path) -> None:
    def commit(heap: dh.Heap, interrupt: InterruptAt) -> None:
        with interrupt:
            heap.commit("interrupted")

    places = interrupted_everywhere(path, commit)
    print(f"{places} places")
    assert places > 100


def test_an_interrupt_anywhere_in_a_failing_commit_loses_nothing(path: Path) -> None:
    """While the commit cleans up after another error, say."""

    def fail(heap: dh.Heap, interrupt: InterruptAt) -> None:
        with fault("commit.encode"), pytest.raises(OSError), interrupt:
            heap.commit()

    assert interrupted_everywhere(path, fail) > 20


def test_an_interrupt_anywhere_in_a_fold_loses_nothing(path: Path) -> None:
    def commit_and_fold(heap: dh.Heap, interrupt: InterruptAt) -> None:
        heap.fold()  # else each interrupted one would leave the next more to do
        heap.commit()
        with interrupt:
            heap.fold()

    assert interrupted_everywhere(path, commit_and_fold, stride=4) > 100


def test_an_interrupt_anywhere_in_a_transaction_leaves_no_half_of_it(path: Path) -> None:
    rng = seeded()
    with dh.open(path) as heap:
        fill(heap)
        heap.root["in both"] = [0, 0]
        heap.commit()
        for number in itertools.count(1):
            change(heap, rng)
            before = plain(heap)
            interrupt = InterruptAt(number)
            try:
                with interrupt, heap.transaction():
                    heap.root["in both"][0] = number
                    heap.root["in both"][1] = number
            except KeyboardInterrupt:
                pass
            after = plain(heap)
            assert after["in both"] in ([number, number], before["in both"]), interrupt.where
            after["in both"] = before["in both"] = 0
            assert after == before, interrupt.where
            # The heap is still of use.
            try:
                heap.commit()
            except dh.HeapPoisonedError:
                heap.close()
                heap = dh.open(path)
            if not interrupt.where:
                break
        assert number > 100


def test_an_interrupt_after_an_exception_does_not_stop_the_undoing(path: Path) -> None:
    """One exception leaves the block, an interrupt comes before the block has been left."""
    with dh.open(path) as heap:
        heap.root["a"], heap.root["b"] = 10, 0
        heap.commit()
        for number in range(1, 40):
            interrupt = InterruptAt(number)
            try:
                with heap.transaction():
                    heap.root["a"] -= 5
                    sys.setprofile(interrupt)
                    raise Stop
            except (Stop, KeyboardInterrupt):
                sys.setprofile(None)
            assert heap.root == {"a": 10, "b": 0}, interrupt.where
            assert heap.commit().id == 1


def test_timers_do_not_stop_the_undoing(path: Path) -> None:
    rng = seeded()
    interrupted = 0
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with dh.open(path) as heap:
            heap.root["a"], heap.root["b"] = 10, 0
            heap.commit()
            for _ in range(3000):
                try:
                    try:
                        with heap.transaction():
                            heap.root["a"] -= 5
                            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 2e-4))
                            raise Stop
                    except Stop:
                        pass
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    interrupted += 1
                assert heap.root == {"a": 10, "b": 0}
    finally:
        signal.signal(signal.SIGALRM, previous)
    print(f"{interrupted} interrupted")
    assert interrupted > 20


@pytest.mark.parametrize("verb", ["open", "close"])
def test_an_interrupt_anywhere_in_open_and_close_frees_the_lock(path: Path, verb: str) -> None:
    dh.open(path).close()
    for number in itertools.count(1):
        interrupt = InterruptAt(number)
        heap = None if verb == "open" else dh.open(path)
        try:
            with interrupt:
                if heap is None:
                    heap = dh.open(path)
                else:
                    heap.close()
        except KeyboardInterrupt:
            pass
        if heap is not None:
            heap.close()
        heap = None
        gc.collect()
        with dh.open(path) as heap:  # HeapLockedError: left locked
            heap.root["number"] = number
        if not interrupt.where:
            break
    assert number > (50 if verb == "open" else 5)


def test_a_handle_of_a_container_rolled_back_is_stale_whatever_stands_there(path: Path) -> None:
    """Ints that a user stored, of the form a container's own bookkeeping once had."""
    with dh.open(path) as heap:
        lists = [[0, 0, 1, 1] for _ in range(40)]
        for number, items in enumerate(lists):
            heap.root[number] = items
            del heap.root[number][2:]
        heap.commit()
        for shift in range(10, 22):
            for number in range(40):
                heap.root[number][0] = (300 + number * 4) << shift
            heap.commit()
            committed = plain(heap)
            for number in range(40):
                heap.root[number].clear()
            heap.collect()
            made = [heap.list() for _ in range(200)]
            heap.rollback()
            for one in made:
                with pytest.raises(dh.StaleObjectError):
                    one.append("mine")
            assert plain(heap) == committed


def test_interrupts_by_a_timer_lose_nothing(path: Path) -> None:
    """Real signals, at moments nobody chose."""
    rng = seeded()
    heap = dh.open(path)
    fill(heap)
    heap.commit()
    costs = []
    for _ in range(5):
        change(heap, rng)
        costs.append(heap.commit().total_ns / 1e9)
    hit = 0
    previous = signal.signal(signal.SIGALRM, lambda *_: signal.default_int_handler(0, None))
    try:
        for number in range(60):
            before, last = plain(heap), heap.last_commit_id
            change(heap, rng)
            now = plain(heap)
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 1.5 * sorted(costs)[2]))
                try:
                    heap.commit()
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                hit += 1
            heap = still_whole(heap, path, before, now, last, f"timer {number}")
    finally:
        signal.signal(signal.SIGALRM, previous)
    heap.close()
    print(f"{hit} interrupts fell into a commit")
    assert hit >= 5


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
