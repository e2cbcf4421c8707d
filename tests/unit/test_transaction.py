"""transaction() and hold(): all or nothing, in order, in one thread and one task."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import Stop, contents, fault, plain

import dirtyheap as dh

pytestmark = pytest.mark.timeout(120)


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
@pytest.mark.parametrize("inner_fails", [False, True])
def test_blocks_that_end_in_the_wrong_order_poison_the_heap(
    path: Path, outer_fails: bool, inner_fails: bool
) -> None:
    """Whatever the suspended one goes on to do could be neither committed nor undone alone."""

    def block(heap: dh.Heap, name: str) -> Iterator[None]:
        with heap.transaction():
            heap.root[name] = 1
            yield
            heap.root[name] = 2
            if inner_fails:
                raise Stop

    with dh.open(path) as heap:
        heap.root["before"] = 1
        heap.commit()
        outer, inner = block(heap, "outer"), block(heap, "inner")
        next(outer)
        next(inner)
        with pytest.raises((Stop, dh.HeapPoisonedError)):
            outer.throw(Stop()) if outer_fails else next(outer)
        assert heap.root == {"before": 1}
        with pytest.raises(Stop if inner_fails else dh.HeapPoisonedError):
            next(inner)
        for verb in (heap.commit, heap.rollback, heap.transaction().__enter__):
            with pytest.raises(dh.HeapPoisonedError, match="close the heap"):
                verb()
    assert contents(path) == {"before": 1}


def test_a_block_that_ends_in_another_thread_poisons_the_heap(path: Path) -> None:
    """A suspended generator, finalised by whichever thread runs Python's collector."""

    def block(heap: dh.Heap) -> Iterator[None]:
        with heap.transaction():
            heap.root["half"] = 1
            yield

    with dh.open(path) as heap:
        heap.root["before"] = 1
        heap.commit()
        suspended = block(heap)
        next(suspended)
        errors: list[BaseException] = []

        def end() -> None:
            try:
                suspended.close()
            except RuntimeError as error:
                errors.append(error)

        thread = threading.Thread(target=end)
        thread.start()
        thread.join(60)
        assert "another thread" in str(errors[0])
        with pytest.raises(dh.HeapPoisonedError, match="another thread"):
            heap.commit()
    assert contents(path) == {"before": 1}


def test_a_block_is_for_one_with_statement(path: Path) -> None:
    with dh.open(path) as heap:
        block = heap.transaction()
        with pytest.raises(RuntimeError, match="not begun"):
            block.__exit__(None, None, None)
        with block:
            heap.root["a"] = 1
        assert heap.last_commit_id == 1
        with pytest.raises(RuntimeError, match="begun already"):
            block.__enter__()
        with pytest.raises(RuntimeError, match="has ended"):
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
        with fault("commit.encode"), pytest.raises(dh.CommitError), heap.transaction():
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
