"""Threads write disjoint containers while another one commits, collects, folds and looks.

Every store made under the GIL is in one commit whole: a pair of stores made inside `hold()` is
never split between two, and what is found on reopening is a state that each thread really went
through. Progress is counted, nothing waits for time.
"""

from __future__ import annotations

import itertools
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import TRACKERS, fault, plain, require_tracker, seeded

import dirtyheap as dh

pytestmark = pytest.mark.timeout(120)

ROUNDS = 40
WRITERS = 3


class Crew:
    """Threads whose exceptions reach the test."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.threads: list[threading.Thread] = []

    def start(self, work: Callable[..., None], *arguments: Any) -> None:
        def guarded() -> None:
            try:
                work(*arguments)
            except BaseException as error:
                self.errors.append(error)

        thread = threading.Thread(target=guarded)
        self.threads.append(thread)
        thread.start()

    @property
    def busy(self) -> bool:
        return any(thread.is_alive() for thread in self.threads) and not self.errors

    def join(self) -> None:
        for thread in self.threads:
            thread.join(100)
            assert not thread.is_alive()
        if self.errors:
            raise self.errors[0]


def write(root: Any, number: int, seed: int, is_over: Callable[[int], bool]) -> None:
    """One writer's part of the heap: a function of its seed and the steps made."""
    rng = random.Random(seed + number)
    part = root[f"part {number}"]
    for step in itertools.count():
        if is_over(step):
            return
        key = rng.randrange(200)
        part["table"][key] = [step, {"text": "x" * rng.randrange(80), "big": rng.getrandbits(100)}]
        if key % 3 == 0:
            part["table"].pop(key + 1, None)
        part["log"].append((step, rng.random()))
        if len(part["log"]) > 100:
            del part["log"][:50]
        part["step"] = step


def new_part() -> dict[str, Any]:
    return {"table": {}, "log": [], "step": -1}


@pytest.fixture(autouse=True)
def frequent_switches() -> Iterator[None]:
    """More ways for the threads to fall between each other, and less waiting for the GIL."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("tracker", TRACKERS)
def test_disjoint_writers_beside_commits_and_collections_lose_nothing(
    tmp_path: Path, tracker: str
) -> None:
    require_tracker(tracker)
    seed = seeded().randrange(1 << 30)
    rng = random.Random(seed)
    with dh.open(tmp_path / "heap", tracker=tracker) as heap:
        for number in range(WRITERS):
            heap.root[f"part {number}"] = new_part()
        crew, stop = Crew(), threading.Event()
        for number in range(WRITERS):
            crew.start(write, heap.root, number, seed, lambda step: stop.is_set())
        changed = rounds = 0
        while changed < ROUNDS and crew.busy:
            changed += heap.commit().pages > 0
            rounds += 1
            wanted = rng.randrange(5)
            if wanted == 0:
                heap.collect()
            elif wanted == 1:
                with fault("commit.encode"), pytest.raises(dh.CommitError):
                    heap.commit("fails")
            elif wanted == 2:
                heap.pending()
            elif wanted == 3 and rounds % 5 == 0:
                heap.fold()
        stop.set()
        crew.join()
        assert heap.verify().ok
        heap.commit()
        steps = [heap.root[f"part {number}"]["step"] + 1 for number in range(WRITERS)]
        print(f"{changed} of {rounds} commits with changes, {steps} steps")
        assert all(steps)
    expected: dict[str, Any] = {f"part {number}": new_part() for number in range(WRITERS)}
    for number in range(WRITERS):
        write(expected, number, seed, lambda step, number=number: step == steps[number])
    with dh.open(tmp_path / "heap") as heap:
        assert heap.verify().ok
        assert plain(heap) == expected


@pytest.mark.parametrize("tracker", TRACKERS)
def test_what_is_stored_inside_hold_is_in_one_commit(tmp_path: Path, tracker: str) -> None:
    """Each commit is read back as the next opener would: both halves are equal in every one."""
    require_tracker(tracker)
    with dh.open(tmp_path / "heap", tracker=tracker) as heap:
        heap.root["halves"] = [0, [0] * 600, 0]
        heap.commit()
        crew = Crew()
        done = threading.Event()

        def writer() -> None:
            halves = heap.root["halves"]
            number = 0
            while not done.is_set():
                number += 1
                with heap.hold():
                    halves[0] = number
                    halves[1][number % 600] = number
                    halves[2] = number

        crew.start(writer)
        seen = set()
        try:
            while len(seen) < 40 and crew.busy:
                heap.commit()
                # To show the commit, the heap goes back to it; the writer cannot come between.
                with heap.hold():
                    heap.rollback()
                    first, middle, last = heap.root["halves"]
                    assert first == last == max(middle)
                    seen.add(first)
        finally:
            done.set()
        crew.join()
        assert len(seen) >= 40


def test_a_transaction_is_whole_in_every_commit_and_none_falls_inside(tmp_path: Path) -> None:
    with dh.open(tmp_path / "heap") as heap:
        heap.root["accounts"] = dict.fromkeys(range(20), 100)
        heap.commit()
        crew = Crew()
        entered = 0

        def move(seed: int) -> None:
            nonlocal entered
            rng = random.Random(seed)
            for _ in range(60):
                try:
                    with heap.transaction():
                        accounts = heap.root["accounts"]
                        last = heap.last_commit_id
                        source, target = rng.sample(range(20), 2)
                        amount = rng.randrange(1, 150)
                        accounts[source] -= amount
                        if accounts[source] < 0:
                            raise OverflowError
                        accounts[target] += amount
                        entered += 1
                        assert heap.last_commit_id == last
                except OverflowError:
                    pass

        for seed in range(3):
            crew.start(move, seed)
        while crew.busy:
            heap.commit("between")
            with heap.hold():
                assert sum(heap.root["accounts"].values()) == 2000
                assert min(heap.root["accounts"].values()) >= 0
            heap.collect()
        crew.join()
        assert entered > 50
    with dh.open(tmp_path / "heap") as heap:
        assert sum(heap.root["accounts"].values()) == 2000


@pytest.mark.parametrize("tracker", TRACKERS)
def test_stores_without_the_gil_are_whole_in_the_next_commit(tmp_path: Path, tracker: str) -> None:
    """numpy gives the GIL up in large operations: what a commit cuts is whole in the next one."""
    require_tracker(tracker)
    count = 300_000
    with dh.open(tmp_path / "heap", tracker=tracker) as heap:
        heap.root["data"] = heap.buffer(8 * count)
        crew, stop = Crew(), threading.Event()
        rounds = 0

        def writer() -> None:
            nonlocal rounds
            array = np.frombuffer(heap.root["data"], dtype="<i8")
            while not stop.is_set():
                np.add(array, 1, out=array)
                rounds += 1

        crew.start(writer)
        changed = 0
        while changed < 20 and crew.busy:
            changed += heap.commit().pages > 0
        stop.set()
        crew.join()
        heap.commit()
    with dh.open(tmp_path / "heap") as heap:
        assert (np.frombuffer(heap.root["data"], dtype="<i8") == rounds).all()


def test_threads_that_open_and_close_heaps_of_their_own_do_not_meet(tmp_path: Path) -> None:
    crew = Crew()

    def work(number: int) -> None:
        for step in range(6):
            with dh.open(tmp_path / f"heap {number}") as heap:
                assert heap.root.get("step", -1) == step - 1
                heap.root["step"] = step
                heap.root["number"] = {number: [number] * 50}
                heap.commit()
                heap.root["step"] = "rolled back"
                heap.rollback()
                heap.collect()

    for number in range(4):
        crew.start(work, number)
    crew.join()


def test_handles_made_and_dropped_by_many_threads_keep_their_identity(tmp_path: Path) -> None:
    with dh.open(tmp_path / "heap") as heap:
        heap.root["items"] = [[number] for number in range(50)]
        heap.commit()
        crew = Crew()

        def work(seed: int) -> None:
            rng = random.Random(seed)
            for _ in range(3000):
                number = rng.randrange(50)
                item = heap.root["items"][number]
                assert item is heap.root["items"][number]
                assert item[0] == number

        for seed in range(3):
            crew.start(work, seed)
        while crew.busy:
            heap.collect()
            heap.rollback()
        crew.join()
        assert heap.stats().handles == 0
