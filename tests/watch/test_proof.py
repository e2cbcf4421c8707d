"""Proof mode: what the watch does not report is caught, what it reports is not, nothing is lost.

The negative controls: a scan whose pages reach no cursor, in every situation a heap can be in, and
a buffer that is pinned for io_uring, which the kernel itself writes unseen.
"""

from __future__ import annotations

import errno
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixed_buffer import FixedBuffer
from helpers import (
    TRACKERS,
    change,
    contents,
    fault,
    fill,
    hits,
    plain,
    require_tracker,
    seeded,
    skip_test,
)
from routes import address_of

import dirtyheap as dh
from dirtyheap import precopy

pytestmark = pytest.mark.timeout(120)
PAGE_BYTES = 4096


@pytest.fixture(params=TRACKERS)
def proved(request: pytest.FixtureRequest, path: Path) -> Iterator[dh.Heap]:
    """A heap in proof mode, filled and committed, under each tracker."""
    require_tracker(request.param)
    with dh.open(path, tracker=request.param, proof=True) as heap:
        fill(heap)
        heap.commit()
        yield heap


def expect_unreported(heap: dh.Heap, commit: Callable[[], Any] | None = None) -> None:
    """This commit must fail as one whose watch missed something, and leave all as it was."""
    before, last = plain(heap), heap.last_commit_id
    with fault("watch.merge", rc=5), pytest.raises(dh.UnreportedWriteError) as caught:
        (commit or heap.commit)()
    text = str(caught.value)
    assert "the watch did not report" in text and "mark_dirty" in text
    assert heap.last_commit_id == last and plain(heap) == before


def expect_kept(heap: dh.Heap) -> None:
    """The next commit holds everything."""
    expected, path = plain(heap), heap.path
    heap.commit()
    assert heap.pending().pages == 0
    report = heap.verify()
    assert report.ok, report.first_problem
    with dh.open(path, read_only=True) as snapshot:
        assert plain(snapshot) == expected


# --- the test hook ------------------------------------------------------------------------------


def test_a_store_that_reaches_no_cursor_is_caught_and_kept(proved: dh.Heap) -> None:
    assert proved.stats().proof
    proved.root["numbers"][17] = "changed"
    expect_unreported(proved)
    expect_kept(proved)


def test_so_is_one_through_a_view(proved: dh.Heap) -> None:
    view = np.frombuffer(proved.root["buffer"], "u1")
    view[5000] ^= 255
    expect_unreported(proved)
    expect_kept(proved)


def test_so_is_one_that_a_look_at_what_is_pending_lost(proved: dh.Heap) -> None:
    proved.root["texts"][3] = "x"
    with fault("watch.merge", rc=5):
        proved.pending()
    if proved.stats().tracker != "compare":  # which looks at the page anew
        with pytest.raises(dh.UnreportedWriteError):
            proved.commit()
    expect_kept(proved)


def test_so_is_the_first_store_to_a_heap_that_was_opened(path: Path) -> None:
    require_tracker("auto")
    with dh.open(path) as heap:
        fill(heap)
        heap.commit()
        heap.root["numbers"][1] = "in a delta"
        heap.commit()
    with dh.open(path, proof=True) as heap:
        heap.root["buffer"][70] = 9
        expect_unreported(heap)
        expect_kept(heap)


def test_so_is_one_after_memory_was_switched_to_base_files(proved: dh.Heap) -> None:
    proved.fold()
    proved.root["numbers"][5] = "after the fold"
    expect_unreported(proved)
    expect_kept(proved)


def test_so_is_one_after_a_rollback_and_a_collection(proved: dh.Heap) -> None:
    change(proved, random.Random(1))
    proved.rollback()
    proved.commit()
    del proved.root["numbers"]
    proved.collect()
    proved.commit("the collection")
    proved.root["texts"][0] = "later"
    expect_unreported(proved)
    expect_kept(proved)


def test_the_end_of_a_transaction_fails_and_its_changes_stay(proved: dh.Heap) -> None:
    def transaction() -> None:
        with proved.transaction():
            proved.root["texts"][7] = "in a block"

    with fault("watch.merge", rc=5), pytest.raises(dh.UnreportedWriteError):
        transaction()
    assert proved.root["texts"][7] == "in a block"
    expect_kept(proved)


def test_a_savepoint_outlives_the_failure(proved: dh.Heap) -> None:
    proved.commit()  # compare: pages of the commit before stay suspect for one more scan
    with proved.savepoint() as savepoint:
        proved.root["texts"][7] = "unwanted"
        expect_unreported(proved)
        savepoint.rollback()
        assert proved.root["texts"][7] != "unwanted"
        expect_kept(proved)


def test_a_big_commit_that_copies_ahead_of_its_stop(
    proved: dh.Heap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precopy, "WINDOW_PAGES", 64)
    proved.root["bulk"] = proved.buffer(np.arange(1 << 19, dtype="u8").tobytes())
    proved.commit()
    words = np.frombuffer(proved.root["bulk"], "u8")
    words[:] += 1
    proved.commit()
    words[::512] += 1
    expect_unreported(proved)
    expect_kept(proved)
    del words


# --- no false alarm -----------------------------------------------------------------------------


@pytest.mark.parametrize("window", [64, precopy.WINDOW_PAGES])
def test_no_verb_is_accused(proved: dh.Heap, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that stores to the arena, in any order, with commits that fail in between."""
    monkeypatch.setattr(precopy, "WINDOW_PAGES", window)
    rng = seeded()
    views = [np.frombuffer(proved.root["buffer"], "u1")]
    proved.root["bulk"] = proved.buffer(1 << 20)
    proved.commit()

    def fail() -> None:
        with (
            fault("extent.write", rc=28),
            fault("commit.encode", rc=12),
            pytest.raises((dh.CommitError, MemoryError, OSError)),
        ):
            proved.root["numbers"]["fails"] = rng.random()
            proved.commit()

    def go_back() -> None:
        with proved.savepoint() as savepoint:
            change(proved, rng)
            savepoint.rollback()

    def bulk() -> None:
        proved.root["bulk"][:] = rng.randbytes(1 << 20)

    def churn() -> None:
        proved.root["churn"] = [rng.randbytes(3000) for _ in range(100)]
        del proved.root["churn"]
        proved.collect()

    def view_store() -> None:
        views[0][rng.randrange(len(views[0]))] ^= 1

    verbs: list[Callable[[], Any]] = [
        lambda: change(proved, rng),
        proved.commit,
        proved.rollback,
        proved.fold,
        proved.collect,
        proved.pending,
        proved.verify,
        fail,
        go_back,
        bulk,
        churn,
        view_store,
    ]
    for _ in range(60):
        rng.choice(verbs)()
    views.clear()
    expect_kept(proved)


def test_an_older_commit_is_restored(path: Path) -> None:
    with dh.open(path, keep=10, proof=True) as heap:
        fill(heap)
        first = heap.commit()
        for seed in range(3):
            change(heap, random.Random(seed))
            heap.commit()
        heap.restore(first)
        heap.root["after"] = 1
        heap.commit()
        expect_kept(heap)


# --- a buffer that is pinned for the kernel -------------------------------------------------------


class Pinned:
    """A Buffer of a heap, registered with io_uring, and armed since."""

    PAGES = 4

    def __init__(self, heap: dh.Heap) -> None:
        self.heap = heap
        self.buffer = heap.root["pinned"] = heap.buffer(self.PAGES * PAGE_BYTES)
        self.view = memoryview(self.buffer)
        try:
            self.ring = FixedBuffer(address_of(self.buffer), len(self.buffer))
        except OSError as error:
            self.view.release()
            skip_test(f"io_uring cannot be used here: {error}")
        heap.commit()  # pinning wrote to the pages; from here on they are armed
        assert heap.pending().pages == 0

    def __enter__(self) -> Pinned:
        return self

    def __exit__(self, *_: object) -> None:
        self.ring.__exit__(None, None, None)
        self.view.release()

    def receive(self, data: bytes) -> None:
        """By the kernel, into the pinned pages."""
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.flush()
            self.ring.read(file.fileno(), PAGE_BYTES + 100, len(data))
        assert bytes(self.buffer)[PAGE_BYTES + 100 :][: len(data)] == data


DATA = b"came past the page tables " * 200


def test_a_kernel_write_to_a_pinned_buffer_is_caught_and_kept(path: Path) -> None:
    require_tracker("auto")
    with dh.open(path, proof=True) as heap, Pinned(heap) as pinned:
        pinned.receive(DATA)
        with pytest.raises(dh.UnreportedWriteError, match="io_uring"):
            heap.commit()
        expect_kept(heap)
    assert DATA in bytes(contents(path)["pinned"])


def test_without_proof_it_is_lost(path: Path) -> None:
    """That the control is one: nothing else sees this write."""
    require_tracker("auto")
    with dh.open(path, proof=False) as heap, Pinned(heap) as pinned:
        if heap.stats().tracker == "compare":
            skip_test("the heap compares its pages")
        pinned.receive(DATA)
        assert heap.commit().pages == 0
    assert DATA not in bytes(contents(path)["pinned"])


@pytest.mark.parametrize("proof", [False, True])
@pytest.mark.parametrize("tracker", TRACKERS)
def test_mark_dirty_makes_it_right(path: Path, tracker: str, proof: bool) -> None:
    require_tracker(tracker)
    with dh.open(path, tracker=tracker, proof=proof) as heap, Pinned(heap) as pinned:
        for data in (DATA, DATA[::-1]):
            pinned.receive(data)
            heap.mark_dirty(pinned.buffer)
            assert heap.commit().pages == 2
            expect_kept(heap)
        pinned.receive(DATA)
        with memoryview(pinned.buffer) as view:
            heap.mark_dirty(view[PAGE_BYTES : 3 * PAGE_BYTES])
        expect_kept(heap)
    assert DATA in bytes(contents(path)["pinned"])


def test_the_compare_tracker_sees_it_by_itself(path: Path) -> None:
    with dh.open(path, tracker="compare", proof=True) as heap, Pinned(heap) as pinned:
        pinned.receive(DATA)
        expect_kept(heap)
    assert DATA in bytes(contents(path)["pinned"])


# --- how it is asked for --------------------------------------------------------------------------


def test_the_environment_asks_for_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv("DIRTYHEAP_PROOF", value)
        with dh.open(path) as heap:
            assert heap.stats().proof is expected
        with dh.open(path, proof=not expected) as heap:  # who says it in the program is heard
            assert heap.stats().proof is not expected
    monkeypatch.setenv("DIRTYHEAP_PROOF", "yes")
    with pytest.raises(ValueError, match="DIRTYHEAP_PROOF='yes': must be 0 or 1"):
        dh.open(path)


def test_a_snapshot_has_nothing_to_prove(path: Path) -> None:
    with dh.open(path, proof=True) as heap:
        fill(heap)
        heap.commit()
    with dh.open(path, read_only=True, proof=True) as snapshot:
        assert not snapshot.stats().proof
        assert snapshot.root["numbers"][3] == 9


def test_no_memory_for_it_refuses_the_heap(path: Path) -> None:
    """The hashes take address space beside the arena: one reservation more, and each can fail."""
    with dh.open(path, proof=False) as heap:
        heap.root["a"] = 1
        heap.commit()
    with fault("arena.reserve", rc=0):
        dh.open(path, proof=False).close()
        without_proof = hits("arena.reserve")
    with fault("arena.reserve", rc=0):
        dh.open(path, proof=True).close()
        count = hits("arena.reserve")
    assert count == without_proof + 1
    for nth in range(count):
        with (
            fault("arena.reserve", after=nth, rc=errno.ENOMEM),
            pytest.raises((MemoryError, dh.TrackerError)),
        ):
            dh.open(path, proof=True)
    with dh.open(path, proof=True) as heap:
        assert heap.root["a"] == 1
