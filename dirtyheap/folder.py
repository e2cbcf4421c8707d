"""Folds of a heap: when one is due, who takes its steps, and what becomes of one that fails.

    due --> in the background: a thread of its own, one step to a turn of the heap's lock
              |  a verb cannot wait: memory is over its limit, the fold is overdue, fold() is called
              v
            in that call, what is left of it

What a fold does is folding.py. Nothing here changes what a user sees, and a fold can be cut short
anywhere. Never called without the heap's lock, but for :meth:`Folder.join`.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from threading import RLock
from typing import Any, Final, Protocol

from ._ffi import check, ffi, lib
from .errors import HeapClosedError, HeapPoisonedError
from .folding import Fold
from .guard import acquire_while
from .rebasing import switch_memory, switchable
from .store import PAGE_BYTES, Store

# When a fold is due: docs/design.md, "Fold", has the reasons and figures.
_DELTA_BYTES_MIN: Final = 4 << 20
_COMMITS_MAX: Final = 768
# One that runs in the background and is due this many times over has to be waited for.
_OVERDUE: Final = 2
# Each failure doubles the distance to the next attempt, up to this.
_DISTANCE_MAX: Final = 64
# The lock is not fair: who lets it go and wants it again must leave those who wait a moment.
_COURTESY_S: Final = 0.0002


class Owner(Protocol):
    """What the thread needs of the heap; it keeps none alive."""

    _lock: RLock

    def _take_fold_step(self, step: Callable[[], None]) -> None: ...


class Folder:
    """Folds of one heap, which keep its memory below ``memory_limit``."""

    def __init__(
        self, heap_ptr: Any, owner: Callable[[], Owner | None], memory_limit: int | None = None
    ) -> None:
        self._ptr = heap_ptr
        self._owner = owner
        self.memory_limit = memory_limit
        self._residue_bytes = 0  # what the last fold could not give back
        self._fold: Fold | None = None
        self._thread: threading.Thread | None = None
        self._has_failed = False  # what is there waits until it is due again
        self._distance = 1  # of due folds, after failures
        self._untold = ""  # why the last one in the background failed

    @property
    def poison(self) -> str:
        """The reason why there can be no more commits; "" as a rule."""
        return self._fold.poison if self._fold else ""

    # --- in the caller's thread --------------------------------------------------------------

    def fold(self, store: Store) -> int:
        """Merge all deltas into base files; see Heap.fold."""
        check(lib.dh_store_begin(self._ptr), self._ptr)
        count = 0
        fold = self._current()
        if fold is not None:  # begun in the background: what is left of it
            is_all = store.last is not None and fold.version == store.last.id
            count = self._finish()
            if is_all:
                return count
        if store.last is None:
            return 0
        self._fold = Fold(self._ptr, store)
        return count + self._finish()

    def _current(self) -> Fold | None:
        """The fold that is under way and can be gone on with."""
        if self._fold is not None and self._fold.is_broken:
            self._drop(self._fold)
        return self._fold

    def _drop(self, fold: Fold) -> None:
        self._fold = None  # first: whatever interrupts, it is not gone on with
        fold.abandon()

    def _finish(self) -> int:
        """All that is left of the fold there is; returns how many extents it rewrote."""
        fold = self._fold
        assert fold is not None
        try:
            fold.run(self)
        except BaseException:
            self._note_failure(fold)
            raise
        self._note_success()
        if fold.complaint:
            _warn(fold.complaint)
        return fold.extents_count

    def _note_failure(self, fold: Fold) -> None:
        """It is tried again when one is due anew, each time after a longer distance."""
        self._has_failed = True
        self._distance = min(self._distance * 2, _DISTANCE_MAX)
        if not fold.is_recorded and not fold.poison:  # the former is gone on with
            self._drop(fold)

    def _note_success(self) -> None:
        self._fold = None
        self._has_failed = False
        self._distance = 1

    # --- after commits -----------------------------------------------------------------------

    def after_commit(self, store: Store) -> None:
        """Fold if it is due. The commit before it stands, and is told to the caller, whatever
        becomes of its fold."""
        untold, self._untold = self._untold, ""
        if untold:
            _warn(untold)
        try:
            if self._is_over_limit():
                self.fold(store)
                switch_memory(self._ptr, store, switchable(self._ptr, 1))
                self._residue_bytes = self.private_bytes()
            elif self._current() is None:
                if is_due(store, self._distance):
                    self._fold = Fold(self._ptr, store)
                    self._start()
            elif is_due(store, _OVERDUE * self._distance):
                self._finish()
            elif not self._has_failed or is_due(store, self._distance):
                self._start()
        except Exception as error:
            _warn(f"the commit is durable, but the fold after it failed: {error}")

    def private_bytes(self) -> int:
        """Memory that is the heap's own: pages of the arena that are no file's, and images of
        commits since the last fold."""
        stats = ffi.new("dh_heap_stats *")
        lib.dh_heap_stats_read(self._ptr, stats)
        return int(stats.private_pages_count * PAGE_BYTES + stats.overlay_bytes)

    def _is_over_limit(self) -> bool:
        if self.memory_limit is None:
            return False
        # Exported memory cannot be given back: a fold at every commit would change nothing.
        limit = max(self.memory_limit, self._residue_bytes + self.memory_limit // 4)
        return self.private_bytes() > limit

    # --- in the background -------------------------------------------------------------------

    def _start(self) -> None:
        """Let a thread take the steps, unless one does; also after an interrupt that came between
        the beginning of the fold and that of its thread."""
        fold = self._fold
        assert fold is not None
        if self._thread is not None and self._thread.is_alive():
            return
        self._has_failed = False
        thread = threading.Thread(
            # Not a daemon: an interpreter that ends would stop it with the heap's lock held.
            target=self._drive, args=(fold,), name="dirtyheap-fold", daemon=False,
        )  # fmt: skip
        fold.take(thread)
        try:
            thread.start()
        except RuntimeError:  # none is to be had, or the interpreter ends
            self._finish()
        else:
            self._thread = thread

    def _drive(self, fold: Fold) -> None:
        thread = threading.current_thread()
        while self._take_turn(fold, thread):
            fold.work_outside(thread)
            time.sleep(_COURTESY_S)

    def _take_turn(self, fold: Fold, thread: threading.Thread) -> bool:
        """One step; whether there are more for this thread."""
        owner = self._owner()
        if owner is None or not acquire_while(owner._lock, lambda: is_wanted(fold, thread)):
            return False
        try:
            if not fold.is_driven_by(thread):
                return False
            owner._take_fold_step(fold.step)
            if fold.is_over:
                self._untold = fold.complaint
                self._note_success()
        except (HeapClosedError, HeapPoisonedError):
            return False  # the next verb tells of it
        except Exception as error:
            self._untold = f"a fold in the background failed: {error}. All commits are durable"
            self._note_failure(fold)
            return False
        finally:
            owner._lock.release()
        return not fold.is_over

    def join(self) -> None:
        """Wait for the end of the thread, if there is one. Who holds the heap's lock must have
        taken the fold from it."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    # --- the end -----------------------------------------------------------------------------

    def close(self) -> None:
        """The heap goes. A fold that is not recorded leaves nothing, the rest of one that is, is
        what opening does. Harmless when done before."""
        if self._fold is not None:
            self._fold.abandon()


def is_wanted(fold: Fold, thread: threading.Thread) -> bool:
    """Whether a thread is to go on: nobody took the fold from it, and the interpreter does not
    wait for it to end."""
    return fold.is_driven_by(thread) and threading.main_thread().is_alive()


def is_due(store: Store, times: int = 1) -> bool:
    """Whether the deltas since the last fold are so many, or several times as many, that opening
    would take notice."""
    base_bytes = sum(extent.file_bytes for extent in store.extents.values())
    return (
        store.delta_bytes > times * max(_DELTA_BYTES_MIN, base_bytes // 3)
        or store.deltas_count > times * _COMMITS_MAX
    )


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=8)
