"""Collections through the public API: what each frees, what it reports, what interrupts it."""

from __future__ import annotations

import errno
import gc
import logging
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import COLLECTIONS, collect, fault, in_child

import dirtyheap as dh
from dirtyheap import collector as collector_module
from dirtyheap._ffi import lib
from dirtyheap.rebasing import switch_memory, switchable

CELLS_OF_A_NODE = 2  # a dict of one short entry: head and entries, unless its keys are shared


def fill(heap: dh.Heap, count: int) -> None:
    """Lists of lists, so that marking takes more than one step."""
    heap.root["all"] = [[[i], [str(i) * 10]] for i in range(count)]


def finish(heap: dh.Heap) -> dh.CollectStats:
    while not (stats := heap.collect(budget_ms=0.2)).done:
        pass
    return stats


# --- what is freed ------------------------------------------------------------------------------


def test_young_frees_what_was_new_and_nothing_else(heap: dh.Heap) -> None:
    fill(heap, 1000)
    heap.collect()
    old = heap.root["all"]
    del heap.root["all"]
    del old
    heap.root["new"] = [[i] for i in range(100)]
    del heap.root["new"]
    before = heap.stats().allocated_bytes
    young = heap.collect("young")
    assert young.generation == "young"
    assert 100 < young.freed_cells < 1000
    assert heap.stats().allocated_bytes == before - young.freed_bytes
    full = heap.collect()
    assert full.freed_cells > 2000  # what was old
    assert full.live_cells < 100


def test_young_keeps_what_only_an_old_container_refers_to(heap: dh.Heap) -> None:
    fill(heap, 1000)
    heap.collect("young")
    heap.commit()
    heap.root["all"][500].append({"deep": [["new"] * 20]})
    for _ in range(3):
        stats = heap.collect("young")
        assert heap.root["all"][500][-1] == {"deep": [["new"] * 20]}
    assert stats.freed_cells == 0
    assert heap.verify().ok


def test_young_keeps_what_only_python_holds(heap: dh.Heap) -> None:
    held = heap.list([["a"], ["b"]])
    for _ in range(3):
        heap.collect("young")
        heap.list([["garbage"]] * 10)
    assert held == [["a"], ["b"]]
    heap.root["held"] = held
    heap.collect("young")
    assert heap.root["held"][0] == ["a"]


def test_a_commit_between_collections_loses_nothing_for_them(heap: dh.Heap) -> None:
    fill(heap, 100)
    heap.collect()
    heap.root["all"][7][0] = {"new": ["one"]}
    heap.commit()  # its scan protects the page again, and must tell the collector
    heap.collect("young")
    assert heap.root["all"][7][0] == {"new": ["one"]}
    assert heap.verify().ok


@pytest.mark.parametrize("tracker", ["auto", "compare"])
def test_a_freed_cell_that_is_used_again_where_the_slot_looks_as_before(
    path: Path, tracker: str
) -> None:
    """A -> B -> A: the page with the slot has its committed bytes again, and what it leads to is
    new."""
    with dh.open(path, tracker=tracker) as heap:
        heap.root["a"] = "the first long string"
        heap.commit()
        heap.collect()
        for i in range(50):
            heap.root["a"] = None
            heap.root["a"] = f"another long string {i}"
            heap.collect("young")
            assert heap.root["a"] == f"another long string {i}"
            assert heap.verify().ok


@pytest.mark.parametrize("source", ["watch", "everything"])
@pytest.mark.parametrize("tracker", ["auto", "compare"])
def test_random_changes_between_all_kinds_of_collections(
    path: Path, tracker: str, source: str
) -> None:
    chance = random.Random(os.environ.get("DH_TEST_SEED", "7"))
    plain: dict[int, list[Any]] = {}
    with dh.open(path, tracker=tracker, capacity=256 << 20) as heap:
        heap.collector.source = source
        kept = heap.root["kept"] = {}
        kept = heap.root["kept"]
        committed = dh.to_python(kept)
        for turn in range(400):
            for _ in range(chance.randrange(30)):
                key = chance.randrange(200)
                value = [turn, "text " * chance.randrange(5), [[key]] * chance.randrange(4)]
                kept[key], plain[key] = value, value
                if chance.random() < 0.3:
                    kept.pop(key // 2, None)
                    plain.pop(key // 2, None)
            collect(heap, chance.choice(COLLECTIONS))
            if chance.random() < 0.2:
                heap.commit()
                committed = dict(plain)
            elif chance.random() < 0.1:
                heap.rollback()
                plain = dict(committed)
            if turn % 20 == 0:
                assert kept == plain
        assert kept == plain
        heap.collect()
        assert heap.collect().freed_cells == 0
        report = heap.verify()
        assert report.ok, report.first_problem
        assert report.unreachable_cells == 0


# --- in steps -----------------------------------------------------------------------------------


def test_steps_free_what_one_stop_frees(heap: dh.Heap) -> None:
    fill(heap, 20_000)
    heap.commit()
    heap.root["all"][::2] = [None] * 10_000
    stats = heap.collect(budget_ms=0.05)
    assert not stats.done
    assert stats.freed_cells == 0
    stats = finish(heap)
    assert stats.done
    assert stats.freed_cells >= 10_000 * 5
    assert len(stats.stops_ns) >= 3
    assert stats.pause_ns == max(stats.stops_ns)
    assert stats.total_ns >= sum(stats.stops_ns)
    assert heap.collect().freed_cells == 0
    assert heap.root["all"][1] == [[1], ["1" * 10]]


def interruptions() -> dict[str, Callable[[dh.Heap], object]]:
    return {
        "rollback": lambda heap: heap.rollback(),
        "commit": lambda heap: heap.commit(),
        "fold": lambda heap: heap.fold(),
        "collect": lambda heap: heap.collect(),
        "young": lambda heap: heap.collect("young"),
        "concurrent": lambda heap: heap.collect(concurrent=True),
        "verify": lambda heap: heap.verify(),
        "savepoint": lambda heap: heap.savepoint().rollback(),
    }


@pytest.mark.parametrize("name", interruptions())
@pytest.mark.parametrize("steps", [1, 3, 6, 10, 20])
def test_anything_may_come_between_two_steps(heap: dh.Heap, name: str, steps: int) -> None:
    fill(heap, 20_000)
    heap.commit()
    plain = dh.to_python(heap.root)
    garbage = heap.list([[i] for i in range(5000)])
    del garbage
    for _ in range(steps):
        if heap.collect(budget_ms=0.05).done:
            break
    interruptions()[name](heap)
    assert heap.root == plain
    heap.root["all"][5].append("changed")
    heap.root["new"] = {"a": [1]}
    finish(heap)
    assert heap.root["all"][5][-1] == "changed"
    assert heap.root["new"] == {"a": [1]}
    heap.collect()
    report = heap.verify()
    assert report.ok, report.first_problem
    assert report.unreachable_cells == 0


def test_close_and_reopen_in_the_middle_of_a_cycle(path: Path) -> None:
    for steps in (1, 4, 10):
        with dh.open(path) as heap:
            fill(heap, 20_000)
            heap.commit()
            heap.root["all"][::2] = [None] * 10_000
            for _ in range(steps):
                heap.collect(budget_ms=0.05)
            heap.commit()
            plain = dh.to_python(heap.root)
            heap.collect(budget_ms=0.05)
        with dh.open(path) as heap:
            assert heap.root == plain
            assert heap.verify().ok
            heap.collect()
            assert heap.verify().unreachable_cells == 0


def test_a_child_forked_in_the_middle_of_a_cycle_reads_on(heap: dh.Heap) -> None:
    fill(heap, 20_000)
    for _ in range(6):
        heap.collect(budget_ms=0.05)
    assert in_child(lambda: len(heap.root["all"])) == 20_000
    refused = in_child(lambda: heap.collect(budget_ms=1))
    assert refused[0] == "raised"
    finish(heap)
    assert heap.verify().ok


def test_garbage_in_the_way_of_a_full_arena(small_heap: dh.Heap) -> None:
    """A cycle holds freed cells back; an arena that needs them ends it instead of failing."""
    text = "x" * 1000
    small_heap.root["a"] = [text + str(i) for i in range(500)]
    small_heap.collect(budget_ms=0.001)
    for i in range(3000):
        small_heap.root["a"][i % 500] = text + str(-i)
    assert small_heap.verify().ok


# --- beside the application ---------------------------------------------------------------------


def test_threads_go_on_while_it_marks(heap: dh.Heap) -> None:
    fill(heap, 60_000)
    heap.commit()
    plain = dh.to_python(heap.root["all"])
    is_over = threading.Event()
    changes_count = 0

    def change() -> None:
        nonlocal changes_count
        chance = random.Random(3)
        items = heap.root["all"]
        while not is_over.is_set():
            for _ in range(100):
                i, j = chance.randrange(60_000), chance.randrange(60_000)
                items[i], items[j] = items[j], items[i]  # subtrees change their places
                plain[i], plain[j] = plain[j], plain[i]
                items[i] = plain[i] = [[changes_count], ["new " * 4]]
                changes_count += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        cycles = [heap.collect(concurrent=True) for _ in range(15)]
    finally:
        is_over.set()
        thread.join()
    assert heap.root["all"] == plain
    assert changes_count > 100
    assert sum(stats.dirty_pages for stats in cycles) > 0
    heap.collect()
    report = heap.verify()
    assert report.ok, report.first_problem
    assert report.unreachable_cells == 0


def test_commits_and_rollbacks_go_on_while_it_marks(heap: dh.Heap) -> None:
    fill(heap, 40_000)
    heap.commit()
    is_over = threading.Event()
    failures: list[BaseException] = []

    def collect_on() -> None:
        try:
            while not is_over.is_set():
                heap.collect(concurrent=True)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=collect_on)
    thread.start()
    try:
        for i in range(60):
            heap.root["all"][i] = {"i": i, "items": [i] * 10}
            if i % 7 == 0:
                heap.rollback()
                heap.root["all"][i] = {"i": i, "items": [i] * 10}
            heap.commit()
    finally:
        is_over.set()
        thread.join()
    assert not failures
    assert all(heap.root["all"][i] == {"i": i, "items": [i] * 10} for i in range(60))
    assert heap.verify().ok


def test_a_refused_mapping_while_it_marks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a fold gives back is made anew where the mapping fails: empty for a moment."""
    monkeypatch.setattr(
        collector_module, "_MARK_SLICE_NS", 10**10
    )  # whole: it never waits for the GIL
    with dh.open(path) as heap:
        heap.collector.automatic = False
        fill(heap, 40_000)
        heap.commit()
        heap.fold()
        is_over = threading.Event()
        refused_count = 0

        def refuse() -> None:
            nonlocal refused_count
            for number in switchable(heap._ptr, 0) * 3:
                with fault("extent.map", rc=errno.ENOMEM), pytest.raises(MemoryError):
                    switch_memory(heap._ptr, heap._store, [number])
                refused_count += 1

        def give_back() -> None:
            while not is_over.is_set():
                heap._take_fold_step(refuse)

        thread = threading.Thread(target=give_back)
        thread.start()
        try:
            for _ in range(30):
                assert heap.collect(concurrent=True).freed_cells == 0
                report = heap.verify()
                assert report.ok, report.first_problem
        finally:
            is_over.set()
            thread.join()
        assert refused_count > 30


def test_the_heap_is_closed_while_it_marks(path: Path) -> None:
    heap = dh.open(path)
    fill(heap, 100_000)
    began = threading.Event()
    outcome: list[BaseException] = []
    heap.collector.callbacks.append(lambda phase, stats: began.set())

    def collect_on() -> None:
        try:
            while True:
                heap.collect(concurrent=True)
        except dh.HeapError as error:
            outcome.append(error)

    thread = threading.Thread(target=collect_on)
    thread.start()
    assert began.wait(60)
    heap.close()
    thread.join(60)
    assert len(outcome) == 1
    assert isinstance(outcome[0], dh.HeapClosedError)


# --- by itself ----------------------------------------------------------------------------------


def test_a_heap_that_makes_garbage_collects_by_itself(heap: dh.Heap) -> None:
    collected = threading.Event()
    heap.collector.callbacks.append(
        lambda phase, stats: collected.set() if phase == "stop" else None
    )
    heap.collector.young_bytes = 1 << 20
    for i in range(10_000_000):
        heap.root["a"] = {"made": [i, "and dropped"]}
        if collected.is_set():
            break
    assert collected.is_set()
    heap.collector.automatic = False
    heap.collector.join()
    first = heap.collector.history[0]
    assert first.generation == "young"
    assert first.freed_cells > 1000


def test_old_garbage_makes_a_full_collection_due(heap: dh.Heap) -> None:
    """Each young collection finds all of it alive; in the next round it is garbage."""
    heap.collector.young_bytes = 1 << 18
    heap.collector.full_growth = 1.0
    for i in range(10_000):
        heap.root["a"] = [[j, f"{i} {j} ..."] for j in range(2000)]
        if any(stats.generation == "full" for stats in heap.collector.history):
            break
    heap.collector.automatic = False
    heap.collector.join()
    full = next(stats for stats in heap.collector.history if stats.generation == "full")
    assert full.freed_cells > 0
    assert len(heap.root["a"]) == 2000
    assert heap.verify().ok


def test_nothing_comes_by_itself_when_it_is_switched_off(heap: dh.Heap) -> None:
    heap.collector.young_bytes = 1 << 16
    heap.collector.automatic = False
    for i in range(20_000):
        heap.root["a"] = {"made": [i, "and dropped"]}
    heap.collector.join()
    assert not heap.collector.history


def test_nothing_falls_inside_a_hold(heap: dh.Heap) -> None:
    heap.collector.young_bytes = 1 << 16
    with heap.hold():
        for i in range(20_000):
            heap.root["a"] = {"made": [i, "and dropped"]}
        assert not heap.collector.history
    heap.close()


def test_containers_of_all_kinds_under_automatic_collection(heap: dh.Heap) -> None:
    heap.collector.young_bytes = 1 << 16
    heap.collector.full_growth = 1.0
    chance = random.Random(11)
    heap.root.update(d={}, a=[], s=set(), q=heap.deque(), t=heap.sorted_dict())
    d, a, s, q, t = (heap.root[name] for name in "dasqt")
    plain: tuple[Any, ...] = ({}, [], set(), [], {})
    for i in range(20_000):
        key = f"key {chance.randrange(500)}"
        value = [i, {"text": "x" * chance.randrange(30)}]
        d[key] = plain[0][key] = value
        t[key] = plain[4][key] = value
        s.add(key)
        plain[2].add(key)
        for one, other in ((a, plain[1]), (q, plain[3])):
            one.append(value)
            other.append(value)
            if len(other) > 300:
                one.pop()
                other.pop()
                del one[17]
                del other[17]
    heap.collector.automatic = False
    heap.collector.join()
    assert len(heap.collector.history) > 3
    assert (d, a, s, list(q), dict(t)) == plain
    report = heap.verify()
    assert report.ok, report.first_problem


# --- what it reports ----------------------------------------------------------------------------


def test_callbacks_history_and_log(heap: dh.Heap, caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, dh.CollectStats | None]] = []
    heap.collector.callbacks.append(lambda phase, stats: told.append((phase, stats)))
    with caplog.at_level(logging.DEBUG, "dirtyheap.collector"):
        young = heap.collect("young")
        full = heap.collect()
    assert told == [("start", None), ("stop", young), ("start", None), ("stop", full)]
    assert list(heap.collector.history) == [young, full]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["young", "full"]


def test_a_callback_that_fails_is_told_and_changes_nothing(
    heap: dh.Heap, monkeypatch: pytest.MonkeyPatch
) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)

    def fail(phase: str, stats: dh.CollectStats | None) -> None:
        raise RuntimeError(phase)

    heap.collector.callbacks.append(fail)
    assert heap.collect().done
    assert [str(told.exc_value) for told in unraisable] == ["start", "stop"]


def test_a_callback_may_use_the_heap(heap: dh.Heap) -> None:
    heap.collector.callbacks.append(lambda phase, stats: heap.root.update({phase: 1}))
    heap.collect()
    assert heap.root == {"start": 1, "stop": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("old",), "'young' or 'full'"),
        (("young", 5.0), "one short stop"),
        (("young", None, True), "one short stop"),
        (("full", 5.0, True), "budget_ms"),
        (("full", 0), "budget_ms"),
        (("full", float("nan")), "budget_ms"),
    ],
)
def test_contradictions_are_refused(
    heap: dh.Heap, arguments: tuple[Any, ...], message: str
) -> None:
    generation, budget_ms, concurrent = (
        (*arguments, None, False)[:3] if len(arguments) < 3 else arguments
    )
    with pytest.raises(ValueError, match=message):
        heap.collect(generation, budget_ms=budget_ms, concurrent=bool(concurrent))


def test_policy_is_checked(heap: dh.Heap) -> None:
    collector = heap.collector
    for name, value in (("young_bytes", 0), ("full_growth", 0.5), ("source", "nothing")):
        before = getattr(collector, name)
        with pytest.raises(ValueError, match=name):
            setattr(collector, name, value)
        assert getattr(collector, name) == before


def test_a_collector_does_not_keep_its_heap(path: Path) -> None:
    heap = dh.open(path)
    collector = heap.collector
    heap.close()
    del heap
    gc.collect()
    collector.young_bytes = 5
    collector.automatic = False
    with pytest.raises(dh.HeapClosedError):
        collector.source = "everything"


# --- a collection dirties nothing -----------------------------------------------------------------


@pytest.mark.parametrize("how", sorted(set(COLLECTIONS)))
def test_a_clean_heap_without_garbage_stays_clean(heap: dh.Heap, how: str) -> None:
    fill(heap, 5000)
    heap.collect()
    heap.commit()
    collect(heap, how)
    finish(heap)
    assert heap.pending() == dh.Pending(pages=0, bytes=0)
    assert heap.commit().pages == 0


def test_a_child_forked_when_a_collection_is_due_starts_none(heap: dh.Heap) -> None:
    assert in_child(lambda: (heap.collector.due(), threading.active_count())[1]) == 1


def test_without_tracking_it_is_due_later_the_larger_the_heap(path: Path) -> None:
    with dh.open(path, tracker="compare") as heap:
        fill(heap, 20_000)
        heap.collector.young_bytes = 1 << 16
        heap.root["more"] = [[i] for i in range(20_000)]
        heap.collector.join()
        made_count = len(heap.collector.history)
        for i in range(2000):  # far more than young_bytes, far less than the heap
            heap.root["a"] = [i, "and dropped"]
        heap.collector.join()
        assert made_count > 0
        assert len(heap.collector.history) == made_count


def test_what_becomes_due_while_the_thread_ends_is_not_forgotten(
    heap: dh.Heap, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector, threads, is_seen = heap.collector, [], threading.Event()

    def begin() -> None:
        """The last that a thread does: here it is told again, the first time."""
        threads.append(threading.current_thread())
        if len(threads) == 1 and is_seen.wait(60):
            collector.due()

    monkeypatch.setattr(collector, "begin", begin)
    collector.due()
    first = collector._thread
    assert first is not None
    is_seen.set()
    first.join()
    collector.join()
    assert len(set(threads)) == 2
    assert len(collector.history) == 2


def test_threads_that_store_are_collected_for_while_the_main_thread_waits(path: Path) -> None:
    with dh.open(path, capacity=32 << 20) as heap:
        heap.collector.young_bytes = 1 << 20

        def store() -> None:
            for i in range(300_000):  # twice the capacity, and nothing of it lives
                heap.root["a"] = [i, "and dropped", ["with", "more"]]

        storing = threading.Thread(target=store)
        storing.start()
        storing.join()  # here no instruction of the main thread ends
        heap.collector.join()
        assert len(heap.collector.history) > 3
        assert heap.root["a"][0] == 299_999


def test_it_becomes_due_in_the_middle_of_anything_the_main_thread_does(heap: dh.Heap) -> None:
    """Held by the main thread wherever a thread is started or waited for (threading.py)."""
    locks = [
        getattr(threading, name)
        for name in ("_active_limbo_lock", "_shutdown_locks_lock")
        if hasattr(threading, name)
    ]
    assert locks
    heap.collector.young_bytes = 1 << 16
    for lock in locks:
        with lock:
            for i in range(5000):
                heap.root["a"] = [i, "and dropped"]
        heap.collector.join()
    assert heap.collector.history


def test_a_small_heap_full_of_garbage_is_not_full(path: Path) -> None:
    """young_bytes is larger than its capacity."""
    with dh.open(path, capacity=16 << 20) as heap:
        for i in range(400_000):
            heap.root["a"] = {"number": i, "text": "of some length, so that it takes room"}
        assert heap.root["a"]["number"] == 399_999


def test_the_thread_of_a_collection_may_end_while_the_heap_closes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it tells the core at its end waits for the closing, and the other way round."""
    heap = dh.open(path)
    collector, is_closing = heap.collector, threading.Event()
    closer = threading.Thread(target=heap.close)
    due_at = collector_module.lib.dh_collect_due_at
    closed_before: list[bool] = []

    class Lib:
        """The core, but closing begins when it is told of the end."""

        def __getattr__(self, name: str) -> Any:
            return getattr(lib, name)

        def dh_collect_due_at(self, ptr: Any, due_bytes: int) -> int:
            if threading.current_thread() is collector._thread:
                closer.start()
                assert is_closing.wait(60)
                closer.join(0.05)  # where it does not wait it is over by now
                closed_before.append(heap.closed)
            return int(due_at(ptr, due_bytes))

    close = collector.close

    def close_told() -> None:
        is_closing.set()
        close()

    monkeypatch.setattr(collector, "close", close_told)
    monkeypatch.setattr(collector_module, "lib", Lib())
    collector.due()
    assert collector._thread is not None
    collector._thread.join()
    closer.join()
    assert closed_before == [False]


# --- a cycle that somebody else ends ------------------------------------------------------------


def test_a_cycle_in_steps_that_was_dropped_is_not_called_done(heap: dh.Heap) -> None:
    heap.collector.automatic = False
    fill(heap, 20_000)
    heap.collect()
    del heap.root["all"]
    assert not heap.collect(budget_ms=0.001).done
    heap.collect("young")  # ends it
    stats = heap.collect(budget_ms=0.001)
    assert not stats.done or stats.freed_cells > 60_000
    assert finish(heap).freed_cells > 60_000


def test_steps_come_to_their_end_beside_automatic_collections(heap: dh.Heap) -> None:
    heap.collector.automatic = False
    fill(heap, 50_000)
    heap.collect()
    heap.root["all"][::2] = [None] * 25_000
    heap.collector.young_bytes = 1 << 16
    heap.collector.full_growth = 1e6  # the steps alone make full ones
    heap.collector.automatic = True
    for turn in range(3000):
        for number in range(1000):
            heap.root["new"] = {"turn": [turn, number]}
        if (stats := heap.collect(budget_ms=0.02)).done:
            break
    assert stats.done
    assert stats.freed_cells > 50_000
    assert any(each.generation == "young" for each in heap.collector.history)


def test_a_concurrent_collection_does_not_go_on_with_anothers_marks(heap: dh.Heap) -> None:
    heap.collector.automatic = False
    fill(heap, 20_000)
    heap.collect()
    assert not heap.collect(budget_ms=0.001).done
    del heap.root["all"]  # marked, perhaps, by the cycle under way
    assert heap.collect(concurrent=True).freed_cells > 60_000
    assert heap.verify().unreachable_cells == 0


def test_steps_give_all_free_pages_back(heap: dh.Heap) -> None:
    heap.collector.automatic = False
    heap.root["all"] = [bytes(3000) for _ in range(12_000)]
    heap.commit()
    heap.collect()
    del heap.root["all"]
    heap.commit()
    stats = finish(heap)
    assert stats.freed_pages > 8192  # more than a slice gives back
    assert stats.released_pages >= stats.freed_pages - 16


def test_closing_waits_for_a_thread_that_is_about_to_start(
    heap: dh.Heap, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector, errors, is_waiting = heap.collector, [], threading.Event()
    start, join = threading.Thread.start, collector.join

    def close() -> None:
        try:
            heap.close()
        except Exception as error:
            errors.append(error)

    def join_told() -> None:
        is_waiting.set()
        join()

    closer = threading.Thread(target=close)

    def start_late(thread: threading.Thread) -> None:
        """Another thread closes the heap before this one has started."""
        monkeypatch.setattr(threading.Thread, "start", start)
        closer.start()
        assert is_waiting.wait(60)
        closer.join(0.05)  # where close() did not wait it is over by now
        start(thread)

    monkeypatch.setattr(collector, "join", join_told)
    monkeypatch.setattr(threading.Thread, "start", start_late)
    collector.due()
    closer.join()
    assert not errors
    assert collector._thread is not None
    assert not collector._thread.is_alive()
