"""Opening reads no page, stores make it ready, folds give memory back: counted, never timed."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import TRACKERS, change, contents, fault, fill, in_child, plain, seeded

import dirtyheap as dh
from dirtyheap._ffi import ffi, lib

MIB = 1 << 20


def is_lazy(heap: dh.Heap) -> bool:
    stats = ffi.new("dh_heap_stats *")
    lib.dh_heap_stats_read(heap._ptr, stats)
    return bool(stats.is_lazy)


def own_bytes() -> int:
    """Memory that this process alone has, by the kernel's count."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Private_Dirty in smaps_rollup")


def rewrite(heap: dh.Heap, key: str, mib: int, byte: int) -> None:
    heap.root[key] = [bytes([byte, n % 256]) * 500 for n in range(mib * 1000)]


@pytest.fixture
def stored(path: Path) -> Path:
    """32 MB in base files and a few pages in deltas."""
    with dh.open(path) as heap:
        fill(heap)
        rewrite(heap, "bulk", 32, 1)
        heap.commit()
        heap.fold()
        for _ in range(3):
            change(heap, seeded())
            heap.commit()
    return path


# --- reading --------------------------------------------------------------------------------------


def test_opening_and_reading_take_no_memory_of_the_heap(stored: Path) -> None:
    def use() -> tuple[int, int, bool]:
        with dh.open(stored) as heap:
            before = own_bytes()
            assert len(heap.root["bulk"]) == 32_000
            assert all(len(item) == 1000 for item in heap.root["bulk"])
            return own_bytes() - before, heap.stats().private_bytes, is_lazy(heap)

    taken, private, lazy = in_child(use)
    assert lazy and taken < 8 * MIB and private < MIB


def test_what_is_read_lazily_is_what_was_committed(stored: Path) -> None:
    with dh.open(stored) as heap:
        lazily = plain(heap)
        assert is_lazy(heap) and heap.pending() == dh.Pending(0, 0)
        heap.root["numbers"][1] = 1
        assert not is_lazy(heap)
        heap.rollback()
        assert plain(heap) == lazily
    with dh.open(stored, preload=True) as heap:
        assert plain(heap) == lazily and heap.verify().ok


def test_verbs_that_change_nothing_leave_it_so(stored: Path) -> None:
    with dh.open(stored) as heap:
        assert heap.rollback() == 0 and heap.pending().pages == 0
        assert heap.verify().ok and heap.stats().allocated_bytes > 30 * MIB
        assert heap.history()
        assert is_lazy(heap)


@pytest.mark.parametrize("tracker", TRACKERS)
@pytest.mark.parametrize(
    "first", ["store", "new", "view", "collect", "commit", "fold", "transaction"]
)
def test_every_first_store_is_in_the_next_commit(stored: Path, tracker: str, first: str) -> None:
    rng = seeded()
    with dh.open(stored, tracker=tracker) as heap:
        if first == "store":
            heap.root["numbers"][5] = "changed"
        elif first == "new":
            heap.root["made"] = heap.dict({"a": [1]})
        elif first == "view":
            with memoryview(heap.root["buffer"]) as view:
                view[7:12] = b"views"
        elif first == "collect":
            heap.collect()
        elif first == "commit":
            heap.commit("nothing but a note")
        elif first == "fold":
            assert heap.fold() > 0
        else:
            with heap.transaction():
                heap.root["numbers"][6] = "in a transaction"
        assert not is_lazy(heap)
        change(heap, rng)
        expected = plain(heap)
        heap.commit()
    assert contents(stored, tracker=tracker) == expected


def test_a_forked_child_reads_what_its_parent_opened(stored: Path) -> None:
    with dh.open(stored) as heap:
        expected = contents_of_copy(stored)
        assert in_child(lambda: plain(heap)) == expected
        heap.root["a"] = 1
        heap.commit()
    assert contents(stored) == expected | {"a": 1}


def contents_of_copy(path: Path) -> Any:
    with dh.open(path, read_only=True) as snapshot:
        return plain(snapshot)


def test_a_heap_that_cannot_be_mapped_is_copied(stored: Path) -> None:
    expected = contents_of_copy(stored)
    with fault("extent.map", rc=19), dh.open(stored) as heap:
        assert heap.stats().private_bytes > 30 * MIB
        assert plain(heap) == expected
        heap.root["a"] = 1
        heap.commit()
    assert contents(stored) == expected | {"a": 1}


def test_a_capacity_that_is_too_small_is_told(stored: Path) -> None:
    with pytest.raises(dh.HeapFullError, match="capacity="):
        dh.open(stored, capacity=4 * MIB)


# --- giving memory back ---------------------------------------------------------------------------


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_fold_gives_memory_back_and_keeps_what_is_uncommitted(stored: Path, tracker: str) -> None:
    with dh.open(stored, tracker=tracker) as heap:
        bulk = heap.root["bulk"]
        for n in range(0, len(bulk), 3):
            bulk[n] = bytes([7, n % 256]) * 500
        heap.commit()
        change(heap, seeded())
        bulk[100] = "not committed"
        expected, before = plain(heap), heap.stats().private_bytes
        heap.fold()
        assert heap.stats().private_bytes < before // 4
        assert plain(heap) == expected and heap.verify().ok
        assert heap.pending().pages > 0
        heap.commit()
        change(heap, seeded())
        heap.rollback()
        assert plain(heap) == expected
        heap.fold()
    assert contents(stored, tracker=tracker) == expected


def test_a_rollback_after_a_switch_goes_back_to_the_commit(stored: Path) -> None:
    with dh.open(stored) as heap:
        expected = plain(heap)
        rewrite(heap, "more", 8, 3)
        heap.root["bulk"].clear()
        heap.collect()
        heap.fold()
        heap.rollback()
        assert plain(heap) == expected and heap.verify().ok


class Mappings:
    """Takes all mappings that this process may still have; what was taken goes with the block."""

    PAGE = 4096

    @staticmethod
    def limit() -> int:
        return int(Path("/proc/sys/vm/max_map_count").read_text())

    def __enter__(self) -> Mappings:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        limit = self.limit()
        self._bytes = self.PAGE * 2 * (limit + 1)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        address = self._libc.mmap(
            None, ctypes.c_size_t(self._bytes), 0, flags, -1, ctypes.c_size_t(0)
        )
        assert address != ctypes.c_void_p(-1).value
        self._address = address
        self._taken = 0
        while self._protect(self._taken, mmap.PROT_READ):
            self._taken += 1
        return self

    def _protect(self, index: int, protection: int) -> bool:
        page = ctypes.c_void_p(self._address + self.PAGE * (2 * index + 1))
        return bool(self._libc.mprotect(page, ctypes.c_size_t(self.PAGE), protection) == 0)

    def give_back(self, pairs: int) -> None:
        for _ in range(pairs):
            self._taken -= 1
            assert self._protect(self._taken, 0)

    def __exit__(self, *_: object) -> None:
        self._libc.munmap(ctypes.c_void_p(self._address), ctypes.c_size_t(self._bytes))


@pytest.mark.skipif(Mappings.limit() > 1 << 20, reason="too many mappings to take them all")
def test_a_switch_without_a_mapping_to_be_had_leaves_the_memory_that_was(path: Path) -> None:
    # A view takes one mapping, a switch two more for a moment: some of these fail between them.
    def fold_with(pairs: int) -> bool:
        with dh.open(path / str(pairs), capacity=64 * MIB) as heap:
            rewrite(heap, "bulk", 5, pairs)
            heap.commit()
            heap.root["uncommitted"] = 1
            expected = plain(heap)
            with Mappings() as mappings:
                mappings.give_back(pairs)
                try:
                    heap.fold()
                    is_folded = True
                except MemoryError:
                    is_folded = False
            assert plain(heap) == expected and heap.verify().ok
            heap.root["bulk"].clear()
            heap.collect()
            rewrite(heap, "more", 4, 3)
            expected = plain(heap)
            heap.commit()
            heap.fold()
            assert plain(heap) == expected and heap.verify().ok
        assert contents(path / str(pairs)) == expected
        return is_folded

    path.mkdir()
    folded = [in_child(partial(fold_with, pairs)) for pairs in range(5)]
    assert folded[0] is False and folded[-1] is True


@pytest.mark.skipif(Mappings.limit() > 1 << 20, reason="too many mappings to take them all")
def test_an_opening_with_few_mappings_to_be_had_shows_all_or_is_refused(stored: Path) -> None:
    expected = contents_of_copy(stored)

    def open_with(pairs: int) -> str:
        with Mappings() as mappings:
            mappings.give_back(pairs)
            try:
                heap = dh.open(stored)
            except (MemoryError, OSError, dh.HeapError):
                return "refused"
        with heap:
            assert plain(heap) == expected and heap.verify().ok
            heap.root["pairs"] = pairs
            heap.rollback()
            assert plain(heap) == expected
        return "opened"

    found = [in_child(partial(open_with, pairs)) for pairs in range(24)]
    assert found[0] == "refused" and found[-1] != "refused"


def test_exported_memory_stays_where_it_is(path: Path) -> None:
    with dh.open(path) as heap:
        buffer = heap.root["buffer"] = heap.buffer(6 * MIB)
        heap.commit()
        view = memoryview(buffer)
        view[:] = bytes([1]) * len(view)
        heap.commit()
        kept = heap.stats().private_bytes
        heap.fold()
        assert heap.stats().private_bytes >= kept - 2 * MIB
        view[5 * MIB] = 99  # the address is the same, and watched
        heap.commit()
        view.release()
        heap.fold()
        assert heap.stats().private_bytes < MIB
    assert contents(path)["buffer"][5 * MIB] == 99


def test_a_thread_that_stores_without_the_gil_loses_nothing_in_folds(path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    stop = threading.Event()
    with dh.open(path) as heap:
        array = heap.root["array"] = heap.array(MIB, "u4")
        heap.root["other"] = heap.buffer(8 * MIB)
        heap.commit()
        counted = 0

        def count(mine: Any) -> None:
            nonlocal counted
            while not stop.is_set():
                numpy.add(mine, 1, out=mine)  # gives the GIL up
                counted += 1

        thread = threading.Thread(target=count, args=(array,))
        thread.start()
        try:
            for n in range(12):
                heap.root["other"][n * 4096] = n + 1
                heap.commit()
                heap.fold()
        finally:
            stop.set()
            thread.join()
        assert counted > 0 and (array == counted).all()
        heap.commit()
        del array, thread
    with dh.open(path) as heap:
        assert (heap.root["array"] == counted).all()


def test_a_memory_limit_bounds_what_commits_leave(path: Path) -> None:
    with dh.open(path, memory_limit=8 * MIB) as heap:
        left = []
        for n in range(8):
            rewrite(heap, f"part {n}", 6, n)
            heap.commit()
            left.append(heap.stats().private_bytes)
        assert max(left) <= 8 * MIB, left
        expected = plain(heap)
    assert contents(path) == expected


def test_a_memory_limit_that_cannot_be_kept_does_not_fold_at_each_commit(path: Path) -> None:
    with dh.open(path, memory_limit=2 * MIB) as heap:
        heap.root["buffer"] = buffer = heap.buffer(16 * MIB)
        with memoryview(buffer) as view:
            view[:] = bytes([1]) * len(view)
            heap.commit()
            folds = 0
            for n in range(10):
                view[n] = n
                heap.commit()
                folds += heap.stats().delta_bytes == 0
            assert folds <= 1


@pytest.mark.parametrize("limit", [0, MIB - 1, -5])
def test_a_memory_limit_below_a_mebibyte_is_refused(path: Path, limit: int) -> None:
    with pytest.raises(ValueError, match="at least 1 MiB"):
        dh.open(path, memory_limit=limit)
    assert not os.path.exists(path)
