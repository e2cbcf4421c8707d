"""A thread without the GIL stores into exported memory while the heap commits, folds, collects and
rolls back: what it had stored before the last commit began is in that commit.

The thread (storer.c) numbers its stores and publishes each number after the store. Before a commit
the published number is read; after it a copy of the heap's directory is opened as a next process
would, and no slot may hold less than the last store into it up to that number. A rollback takes
back what was stored since the last commit, and the thread's memory stays valid under it.
"""

from __future__ import annotations

import ctypes
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import TRACKERS, compile_library, fault, require_tracker, seeded

import dirtyheap as dh
from dirtyheap import precopy

pytestmark = pytest.mark.timeout(180)

PAGE_BYTES = 4096
PAGES = 3072  # three extents
BULK_WORDS = 500  # of the 512 in a page: what the other writer, with the GIL, overwrites
SLOT_BYTES = 8 * 505


class Storer(ctypes.Structure):
    _fields_ = (
        ("memory", ctypes.c_void_p),
        ("slots_count", ctypes.c_uint64),
        ("first_bytes", ctypes.c_uint64),
        ("stride_bytes", ctypes.c_uint64),
        ("published", ctypes.c_uint64),
        ("is_over", ctypes.c_int),
        ("thread", ctypes.c_ulong),
    )


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    output = tmp_path_factory.mktemp("storer") / "storer.so"
    loaded = ctypes.CDLL(str(compile_library(output, Path(__file__).with_name("storer.c"))))
    loaded.storer_published.restype = ctypes.c_uint64
    return loaded


@contextmanager
def storing(library: ctypes.CDLL, memory: Any) -> Iterator[Any]:
    """A running thread; yields the function that reads the published number."""
    one = Storer(memory.ctypes.data, PAGES, SLOT_BYTES, PAGE_BYTES)
    assert library.storer_start(ctypes.byref(one)) == 0
    try:
        yield lambda: library.storer_published(ctypes.byref(one))
    finally:
        assert library.storer_stop(ctypes.byref(one)) == 0


@dataclass
class Bounds:
    """The least that each slot of the last commit, and of the next one, must hold."""

    committed: Any
    taken_back: int = 0  # stores up to this one may have been rolled back

    def expect(self, published: int) -> Any:
        """What a commit that begins now must hold."""
        slots = np.arange(PAGES, dtype="u8")
        newest = published - (published - slots) % PAGES  # the last store of each slot
        return np.where(newest > self.taken_back, newest, self.committed)


def slots_in(path: Path) -> Any:
    """What the next opener finds in the slots."""
    with dh.open(path, create=False) as heap:
        words = np.frombuffer(heap.root["memory"], dtype="u8").reshape(PAGES, -1)
        return words[:, SLOT_BYTES // 8].copy()


@dataclass
class Run:
    """What happened, for the test's own judgement."""

    commits: int = 0
    folds: int = 0
    rollbacks: int = 0
    stores: int = 0
    lost: int = 0  # slots that held less than they must


def run(
    library: ctypes.CDLL,
    path: Path,
    tracker: str,
    rng: random.Random,
    steps: int,
    proof: bool | None = None,
) -> Run:
    course = Run()
    bounds = Bounds(np.zeros(PAGES, dtype="u8"))
    with dh.open(path, tracker=tracker, proof=proof) as heap:
        heap.root["memory"] = heap.buffer(PAGES * PAGE_BYTES)
        heap.commit()
        words = np.frombuffer(heap.root["memory"], dtype="u8").reshape(PAGES, -1)
        with storing(library, words) as published:
            for step in range(steps):
                wait_for_stores(published)
                if rng.random() < 0.4:
                    words[:, :BULK_WORDS] = rng.getrandbits(60)
                heap.root["step"] = step
                event = rng.randrange(6)
                if event == 0:
                    heap.rollback()
                    # The store under way may have come before the bytes went back.
                    bounds.taken_back = published() + 1
                    course.rollbacks += 1
                    continue
                if event == 1:
                    heap.fold()
                    course.folds += 1
                elif event == 2:
                    heap.collect()
                expected = bounds.expect(published())
                heap.commit()
                bounds.committed = expected
                course.commits += 1
                copy = path.with_name("copy")
                heap._folder.join()  # no file goes while they are copied
                shutil.copytree(path, copy)
                course.lost += int((slots_in(copy) < expected).sum())
                shutil.rmtree(copy)
            course.stores = published()
        del words
    return course


def wait_for_stores(published: Any) -> None:
    """Every slot is stored to once more."""
    goal = published() + PAGES
    while published() < goal:
        time.sleep(0)


@pytest.mark.parametrize("window", [precopy.WINDOW_PAGES, 0])
@pytest.mark.parametrize("tracker", TRACKERS)
def test_stores_without_the_gil_are_in_the_next_commit(
    library: ctypes.CDLL, path: Path, tracker: str, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """window 0: whatever is worth it is copied ahead of the stop, under the thread's stores."""
    require_tracker(tracker)
    monkeypatch.setattr(precopy, "WINDOW_PAGES", window)
    course = run(library, path, tracker, seeded(), steps=24)
    print(course)
    assert course.commits > 5
    assert course.lost == 0


@pytest.mark.parametrize("window", [precopy.WINDOW_PAGES, 0])
@pytest.mark.parametrize("tracker", TRACKERS)
def test_proof_mode_accuses_no_store_without_the_gil(
    library: ctypes.CDLL, path: Path, tracker: str, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are stored to between the scan, the copy and the hash."""
    require_tracker(tracker)
    monkeypatch.setattr(precopy, "WINDOW_PAGES", window)
    course = run(library, path, tracker, seeded(), steps=10, proof=True)
    assert course.commits + course.rollbacks > 5
    assert course.lost == 0


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("window", [precopy.WINDOW_PAGES, 0])
@pytest.mark.parametrize("tracker", TRACKERS)
def test_stores_without_the_gil_for_minutes(
    library: ctypes.CDLL, path: Path, tracker: str, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_tracker(tracker)
    monkeypatch.setattr(precopy, "WINDOW_PAGES", window)
    course = run(library, path, tracker, seeded(), steps=2000)
    print(course)
    assert course.lost == 0


@pytest.mark.parametrize("tracker", TRACKERS)
def test_pages_that_nobody_reports_are_noticed(
    library: ctypes.CDLL, path: Path, tracker: str
) -> None:
    """The negative control: what the scan of the last commit reports does not reach its cursor."""
    require_tracker(tracker)
    bounds = Bounds(np.zeros(PAGES, dtype="u8"))
    with dh.open(path, tracker=tracker, proof=False) as heap:
        heap.root["memory"] = heap.buffer(PAGES * PAGE_BYTES)
        heap.commit()
        words = np.frombuffer(heap.root["memory"], dtype="u8").reshape(PAGES, -1)
        with storing(library, words) as published:
            wait_for_stores(published)
            expected = bounds.expect(published())
            with fault("watch.merge"):
                heap.commit()
        del words
    assert (slots_in(path) < expected).sum() == PAGES
