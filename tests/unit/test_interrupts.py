"""Verbs of a heap that are interrupted.

An interrupt (KeyboardInterrupt) is injected at every place of a verb where CPython would deliver a
signal: after it, the next commit and a reopening equal memory, or the heap is poisoned and
reopening gives exactly the state before or the state after.
"""

from __future__ import annotations

import gc
import itertools
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import Stop, change, fault, fill, plain, seeded
from interrupts import InterruptAt

import dirtyheap as dh
from dirtyheap import folder

pytestmark = pytest.mark.timeout(120)


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
        with fault("commit.encode"), pytest.raises(dh.CommitError), interrupt:
            heap.commit()

    assert interrupted_everywhere(path, fail) > 20


def test_an_interrupt_anywhere_in_a_fold_loses_nothing(path: Path) -> None:
    def commit_and_fold(heap: dh.Heap, interrupt: InterruptAt) -> None:
        heap.fold()  # else each interrupted one would leave the next more to do
        heap.commit()
        with interrupt:
            heap.fold()

    assert interrupted_everywhere(path, commit_and_fold, stride=4) > 100


@pytest.mark.parametrize("has_thread", [False, True])
def test_an_interrupt_anywhere_in_a_commit_that_finds_a_fold_due_loses_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, has_thread: bool
) -> None:
    """It begins one, or finishes the one that is overdue; then the thread, which is not
    interrupted, comes to its end."""
    monkeypatch.setattr(folder, "_COMMITS_MAX", 1)
    if not has_thread:
        monkeypatch.setattr(threading.Thread, "start", _refuse_to_start)

    def commit(heap: dh.Heap, interrupt: InterruptAt) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            heap.fold()  # else each interrupted one would leave the next more to do
            heap.commit()
            heap.commit("begins one, in a thread if there is one")
            try:
                with interrupt:
                    heap.commit("due")
            finally:
                heap._folder.join()

    assert interrupted_everywhere(path, commit, stride=31 if has_thread else 7) > 100


def _refuse_to_start(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


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
    stride = 3 if verb == "open" else 1
    for number in itertools.count(seeded().randrange(1, stride + 1), stride):
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


def test_an_interrupt_anywhere_in_opening_a_snapshot_lets_others_in(path: Path) -> None:
    """Other threads, because the interrupted one passes a lock that it has left locked; and a
    writer, who waits for the end of what only looked to be under way."""
    with dh.open(path) as heap:
        fill(heap)
        heap.commit()
    stride = 3
    for number in itertools.count(seeded().randrange(1, stride + 1), stride):
        interrupt = InterruptAt(number)
        try:
            with interrupt, dh.open(path, read_only=True):
                pass
        except KeyboardInterrupt:
            pass
        else:
            if not interrupt.where:
                break
        assert opens_in_a_thread(path), f"place {number}, {interrupt.where}"
    assert number > 100


def opens_in_a_thread(path: Path) -> bool:
    opened = []

    def open_both() -> None:
        for read_only in (True, False):
            dh.open(path, read_only=read_only).close()
        opened.append(True)

    thread = threading.Thread(target=open_both, daemon=True)
    thread.start()
    thread.join(30)
    return bool(opened)
