"""Collections of a heap: in one stop, in steps, by themselves; when one is due; what it reports.

    collect() --> young, or full in one stop
              \\-> full in steps: begin, mark beside the application, a short stop, sweep
    due ------> the same in a thread of its own: young; full when a young one no longer helps

The steps are native/src/cycle.c. Nothing here changes a value, and a collection can be cut short
anywhere: what was not freed is found by the next. Everything but marking is done with the heap's
lock.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from threading import RLock
from types import TracebackType
from typing import Any, Final, Literal, Protocol, TypeVar

from ._ffi import check, ffi, lib
from ._native import Core
from .errors import HeapClosedError
from .guard import acquire_while
from .results import CollectStats

__all__ = ["Collector", "Generation"]

Generation = Literal["young", "full"]
Callback = Callable[[str, CollectStats | None], object]
_Result = TypeVar("_Result")

_log = logging.getLogger("dirtyheap.collector")

# Room taken between two young collections: they cost as much as what lives of it.
_YOUNG_BYTES: Final = 64 << 20
# A full one is due when the heap has grown by this factor since the last.
_FULL_GROWTH: Final = 1.5
# However small the heap may be: of its capacity, between two young ones; and how much of it may be
# in use before a full one is due that would not be by the factor.
_CAPACITY_SHARE: Final = 8
_CAPACITY_FULL: Final = 0.75
# A young one ends a cycle that marks: it waits until this many times its room is taken.
_PATIENCE: Final = 4
# Without tracking: this share of the heap has to be new.
_COMPARED_SHARE: Final = 4
# One slice of marking; whoever ends the cycle (a rollback, close()) waits for it.
_MARK_SLICE_NS: Final = 5_000_000
# One stop of sweeping, or of giving pages back.
_SWEEP_SLICE_NS: Final = 1_000_000
_RELEASE_SLICE_PAGES: Final = 4096
# Cycles that somebody else ends (a rollback, a full arena) are begun again this many times.
_ATTEMPTS_MAX: Final = 3
_COURTESY_S: Final = 0.0002
_HISTORY_LENGTH: Final = 256
_SOURCES: Final = {"watch": lib.DH_DIRTY_WATCH, "everything": lib.DH_DIRTY_EVERYTHING}
_IDLE, _MARKING = 0, 1


class Owner(Protocol):
    """What a collection needs of the heap; nothing here keeps it alive."""

    _core: Core
    _lock: RLock

    def _collect_step(self, step: Callable[[], _Result]) -> _Result: ...


class _Cycle:
    """What a collection in steps has come to."""

    def __init__(self, generation: Generation) -> None:
        self.generation: Generation = generation
        self.is_marked = False  # the last stop was made
        self.stops_ns: list[int] = []
        self.released_pages = 0
        self.began_ns = time.monotonic_ns()
        self.counts = ffi.new("dh_collect_stats *")

    def stats(self, *, done: bool) -> CollectStats:
        counts = self.counts
        return CollectStats(
            live_cells=counts.live_cells_count,
            freed_cells=counts.freed_cells_count,
            freed_bytes=counts.freed_bytes,
            freed_pages=counts.freed_pages_count,
            released_pages=counts.released_pages_count + self.released_pages,
            roots=counts.roots_count,
            pause_ns=max(self.stops_ns, default=0),
            generation=self.generation,
            done=done,
            dirty_pages=counts.dirty_pages_count,
            rescanned_cells=counts.rescanned_cells_count,
            marked_cells=counts.marked_cells_count,
            rounds=counts.rounds_count,
            stops_ns=tuple(self.stops_ns),
            total_ns=time.monotonic_ns() - self.began_ns,
        )


class Collector:
    """Collections of one heap (``heap.collector``): their policy, and what they have done.

    Attributes:
        callbacks: called as ``callback("start", None)`` before each collection and as
            ``callback("stop", stats)`` after it, in its thread, without the heap's lock; as
            :data:`gc.callbacks`. An exception goes to :func:`sys.unraisablehook`.
        history: the stats of the last collections, the youngest at the end.

    >>> heap.collector.automatic, heap.collector.young_bytes >> 20
    (True, 64)
    >>> heap.root["a"] = {"b": 1}
    >>> del heap.root["a"]
    >>> heap.collect("young").freed_cells > 0
    True
    """

    callbacks: list[Callback]
    history: deque[CollectStats]

    def __init__(
        self, heap_ptr: Any, owner: Callable[[], Owner | None], capacity_bytes: int
    ) -> None:
        self._ptr = heap_ptr
        self._capacity_bytes = capacity_bytes
        self._owner = owner
        # Around a slice of marking, and what else needs no lock of the heap: close() waits for it.
        self._slice_lock = threading.RLock()
        self._start_lock = threading.Lock()  # who sees a thread may wait for it
        self._thread: threading.Thread | None = None
        self._is_at_work = False  # the thread, with more to do than to end
        self._is_closed = False
        self._cycle: _Cycle | None = None  # of collect(budget_ms=...)
        self._under_way: _Cycle | None = None  # whose steps the core's are, if it is in any
        self._waits = 0  # of a young collection that is due, for the end of a cycle
        self._drops = 0  # of cycles in a row that did not come to their end
        self._automatic = True
        self._young_bytes = _YOUNG_BYTES
        self._full_growth = _FULL_GROWTH
        self._source = "watch"
        self._bytes_after_full = 0  # allocated; 0: not known yet
        self._compared_bytes = 0  # of the heap, where there is no tracking
        self._pid = os.getpid()
        self.callbacks = []
        self.history = deque(maxlen=_HISTORY_LENGTH)

    # --- policy --------------------------------------------------------------------------------

    @property
    def automatic(self) -> bool:
        """Whether collections come by themselves, in a thread of their own."""
        return self._automatic

    @automatic.setter
    def automatic(self, value: bool) -> None:
        self._automatic = bool(value)
        self.begin()

    @property
    def young_bytes(self) -> int:
        """A young collection is due when containers have taken this much room since the last
        collection of any kind, or an eighth of the capacity."""
        return self._young_bytes

    @young_bytes.setter
    def young_bytes(self, value: int) -> None:
        if value < 1:
            raise ValueError(f"young_bytes must be at least 1, not {value}")
        self._young_bytes = int(value)
        self.begin()

    @property
    def full_growth(self) -> float:
        """After a young collection a full one follows when what is allocated has grown by this
        factor since the last full one (or since automatic collection began)."""
        return self._full_growth

    @full_growth.setter
    def full_growth(self, value: float) -> None:
        if not value >= 1:
            raise ValueError(f"full_growth must be at least 1, not {value}")
        self._full_growth = float(value)

    @property
    def source(self) -> str:
        """Where written pages come from: "watch" (the heap's tracker), or "everything": every page
        counts as written. For experiments: the second costs a young collection its advantage."""
        return self._source

    @source.setter
    def source(self, value: str) -> None:
        if value not in _SOURCES:
            raise ValueError(
                f"source must be one of {', '.join(map(repr, _SOURCES))}, not {value!r}"
            )
        self._step(lambda: self._check(lib.dh_collect_source(self._ptr, _SOURCES[value])))
        self._source = value

    def begin(self) -> None:
        """Let the core tell when a collection is due, or not any more."""
        with self._slice_lock:  # close() waits: what the pointer leads to goes after it
            if not self._is_closed:
                due_bytes = self._due_bytes * (1 + self._waits)
                lib.dh_collect_due_at(self._ptr, due_bytes if self._automatic else 0)

    @property
    def _due_bytes(self) -> int:
        """Where pages are compared a young collection reads all of the heap: let it be worth it."""
        worth_it = max(self._young_bytes, self._compared_bytes // _COMPARED_SHARE)
        return min(worth_it, self._capacity_bytes // _CAPACITY_SHARE)

    # --- collections ---------------------------------------------------------------------------

    def collect(
        self, generation: Generation, budget_ms: float | None, concurrent: bool
    ) -> CollectStats:
        """See :meth:`dirtyheap.Heap.collect`."""
        if generation not in ("young", "full"):
            raise ValueError(f"generation must be 'young' or 'full', not {generation!r}")
        if generation == "young" and (concurrent or budget_ms is not None):
            raise ValueError("a young collection is one short stop: no budget_ms, not concurrent")
        if budget_ms is not None and (concurrent or not budget_ms > 0):
            raise ValueError("budget_ms is a number above 0, and not for concurrent collections")
        if budget_ms is not None:
            return self._collect_for(budget_ms)
        return self._report(
            generation, self._collect_beside if concurrent else self._collect_stopped
        )

    def _report(
        self, generation: Generation, collect: Callable[[Generation], CollectStats]
    ) -> CollectStats:
        """Tell of one collection from its start to its end."""
        self._call_back("start", None)
        stats = collect(generation)
        self._note(stats)
        return stats

    def _note(self, stats: CollectStats) -> None:
        self.history.append(stats)
        if self._waits:
            self._waits = 0
            self.begin()
        if stats.generation == "full":
            self._bytes_after_full = int(self._heap_stats().allocated_bytes)
        _log.debug(
            "%s: %d cells (%d bytes) freed, %d marked, %d pages written, %d stops, longest %.3f "
            "ms, total %.3f ms",
            stats.generation, stats.freed_cells, stats.freed_bytes, stats.marked_cells,
            stats.dirty_pages, len(stats.stops_ns), stats.pause_ns / 1e6, stats.total_ns / 1e6,
        )  # fmt: skip
        self._call_back("stop", stats)

    def _call_back(self, phase: str, stats: CollectStats | None) -> None:
        for callback in list(self.callbacks):
            try:
                callback(phase, stats)
            except Exception as error:
                sys.unraisablehook(_Unraisable(callback, error))

    def _collect_stopped(self, generation: Generation) -> CollectStats:
        cycle = _Cycle(generation)
        verb = lib.dh_collect_young if generation == "young" else lib.dh_collect
        self._step(lambda: self._check(verb(self._ptr, cycle.counts)))
        cycle.stops_ns.append(cycle.counts.stop_ns)
        return cycle.stats(done=True)

    # --- in steps ------------------------------------------------------------------------------

    def _collect_beside(self, generation: Generation) -> CollectStats:
        """Mark in this thread, without the GIL and the heap's lock. A cycle that somebody else
        ended is begun again; who is ended again and again collects in one stop."""
        for _ in range(_ATTEMPTS_MAX):
            cycle = _Cycle(generation)
            self._step(lambda: self._begin(cycle))  # noqa: B023 - called before the next round
            while not self._mark(_MARK_SLICE_NS):
                time.sleep(0)
            self._step(lambda: self._finish(cycle))  # noqa: B023
            if not cycle.is_marked:
                continue
            while self._step(lambda: self._sweep(cycle)):  # noqa: B023
                time.sleep(_COURTESY_S)
            while self._step(lambda: self._release(cycle)):  # noqa: B023
                time.sleep(_COURTESY_S)
            return cycle.stats(done=True)
        return self._collect_stopped(generation)

    def _collect_for(self, budget_ms: float) -> CollectStats:
        """The next steps of a cycle, for about so long."""
        until_ns = time.monotonic_ns() + int(budget_ms * 1e6)
        if self._cycle is None:
            self._call_back("start", None)
            self._cycle = _Cycle("full")
        cycle = self._cycle
        is_done = self._step(lambda: self._go_on(cycle, until_ns))
        stats = cycle.stats(done=is_done)
        if is_done:
            self._cycle = None
            self._note(stats)
        return stats

    def _go_on(self, cycle: _Cycle, until_ns: int) -> bool:
        """With the heap's lock. A cycle that somebody else ended before it was marked is begun
        again; one that somebody else swept is swept."""
        if not cycle.is_marked:
            if not self._is_under_way(cycle):
                self._drops += bool(cycle.stops_ns)
                self._begin(cycle)
            if not self._mark(max(1, until_ns - time.monotonic_ns())):
                return False
            self._finish(cycle)
            if not cycle.is_marked:
                return False
        while self._sweep(cycle):
            if time.monotonic_ns() >= until_ns:
                return False
        while self._release(cycle):
            if time.monotonic_ns() >= until_ns:
                return False
        return True

    def _mark(self, budget_ns: int) -> bool:
        """Needs no lock of the heap. Whether only the last stop is left, or there is no cycle any
        more."""
        is_marked = ffi.new("int *")
        with self._slice_lock:
            if self._is_closed:
                raise HeapClosedError("the heap was closed during a collection")
            self._check(lib.dh_cycle_mark(self._ptr, budget_ns, is_marked))
        return bool(is_marked[0])

    # The others are called with it.

    def _is_under_way(self, cycle: _Cycle) -> bool:
        return self._under_way is cycle and lib.dh_cycle_phase(self._ptr) != _IDLE

    def _begin(self, cycle: _Cycle) -> None:
        """Another's is ended: what died since it was begun would stay."""
        self._check(lib.dh_cycle_drop(self._ptr))
        self._under_way = cycle
        self._check(lib.dh_cycle_begin(self._ptr, cycle.counts))
        cycle.stops_ns.append(cycle.counts.stop_ns)

    def _finish(self, cycle: _Cycle) -> None:
        """The last stop, unless somebody has ended the cycle before."""
        if self._is_under_way(cycle):
            self._check(lib.dh_cycle_finish(self._ptr, cycle.counts))
            cycle.stops_ns.append(cycle.counts.stop_ns)
            # A full arena ends a cycle without the heap's lock: perhaps before.
            cycle.is_marked = lib.dh_cycle_phase(self._ptr) != _IDLE
        self._drops = 0 if cycle.is_marked else self._drops + 1

    def _sweep(self, cycle: _Cycle) -> bool:
        """One slice; whether there is more."""
        if not self._is_under_way(cycle):
            return False
        is_done = ffi.new("int *")
        self._check(lib.dh_cycle_sweep(self._ptr, _SWEEP_SLICE_NS, cycle.counts, is_done))
        cycle.stops_ns.append(cycle.counts.stop_ns)
        return not is_done[0]

    def _release(self, cycle: _Cycle) -> bool:
        """Give free pages back to the kernel; whether there may be more."""
        pages = ffi.new("uint64_t *")
        self._check(lib.dh_pages_release_some(self._ptr, _RELEASE_SLICE_PAGES, pages))
        cycle.released_pages += int(pages[0])
        return bool(pages[0])

    def _step(self, step: Callable[[], _Result]) -> _Result:
        owner = self._owner()
        if owner is None:
            raise HeapClosedError("the heap is gone")
        if threading.current_thread() is not self._thread:
            return owner._collect_step(step)
        if not acquire_while(owner._lock, self._is_wanted):
            raise HeapClosedError("the heap is closed, or the program ends")
        try:
            return owner._collect_step(step)
        finally:
            owner._lock.release()

    def _check(self, rc: int) -> None:
        if rc != 0:
            check(rc, self._ptr)

    def _heap_stats(self) -> Any:
        stats = ffi.new("dh_heap_stats *")
        self._step(lambda: lib.dh_heap_stats_read(self._ptr, stats))
        return stats

    # --- by themselves -------------------------------------------------------------------------

    def due(self) -> None:
        """A collection is due: give it a thread, unless one is at work. Called by the core, in a
        thread that is there for nothing else."""
        # Not a daemon: an interpreter that ends would stop it with the heap's lock held.
        thread = threading.Thread(target=self._work, name="dirtyheap-collect", daemon=False)
        with self._start_lock:
            if not self._automatic or self._is_closed or self._is_at_work:
                return
            if os.getpid() != self._pid:  # it became due before the fork
                return
            if self._waits_for_a_cycle():
                return
            self._thread, self._is_at_work = thread, True
            try:
                thread.start()
            except RuntimeError:  # none is to be had, or the interpreter ends: told again
                self._thread, self._is_at_work = None, False
                self.begin()

    def _waits_for_a_cycle(self) -> bool:
        """A cycle that marks, in steps or in another thread, is not ended at once; and the less
        often the more it has happened, so that it comes to its end."""
        with self._slice_lock:
            if self._is_closed or lib.dh_cycle_phase(self._ptr) != _MARKING:
                return False
            if self._waits >= _PATIENCE << min(self._drops, 8):
                return False
            self._waits += 1
            self.begin()
            return True

    def _is_wanted(self) -> bool:
        return not self._is_closed and threading.main_thread().is_alive()

    def _work(self) -> None:
        """One young collection, and a full one if that did not help."""
        try:
            self._report("young", self._collect_stopped)
            if self._is_full_due():
                self._report("full", self._collect_beside)
        except Exception as error:  # nobody waits for it; what it left is found by the next
            if self._is_wanted():
                _log.warning("a collection in the background ended early: %s", error)
        finally:
            self._is_at_work = False  # first: what is told from here on finds nobody at work
            self.begin()

    def _is_full_due(self) -> bool:
        stats = self._heap_stats()
        allocated = int(stats.allocated_bytes)
        if stats.tracker == lib.DH_TRACKER_COMPARE:
            self._compared_bytes = allocated
        if self._bytes_after_full == 0:
            self._bytes_after_full = allocated
        grown = allocated - self._bytes_after_full
        if allocated >= _CAPACITY_FULL * self._capacity_bytes:
            return grown >= self._due_bytes
        return grown >= max(self._due_bytes, (self._full_growth - 1) * self._bytes_after_full)

    # --- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """The heap goes: no slice of marking runs from here on. Harmless when done before."""
        self._is_closed = True
        with self._slice_lock:
            self._cycle = None

    def join(self) -> None:
        """Wait for the end of the thread, if there is one or one is about to be."""
        owner = self._owner()
        if owner is not None:
            owner._core.wait_due()
        with self._start_lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()


class _Unraisable:
    """What :func:`sys.unraisablehook` wants to know."""

    exc_type: type[BaseException]
    exc_value: BaseException | None
    exc_traceback: TracebackType | None
    err_msg: str | None
    object: Any

    def __init__(self, callback: Callback, error: Exception) -> None:
        self.exc_type = type(error)
        self.exc_value = error
        self.exc_traceback = error.__traceback__
        self.err_msg = "Exception ignored in a callback of a collection"
        self.object = callback
