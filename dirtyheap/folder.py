"""Folds: merging deltas into base files, giving memory back, and when that is due.

    base files of all that is newer than its base, synced -> one transaction -> views -> arena

A fold works from the committed image and never looks at the arena: it changes nothing that a user
sees. It can be cut short anywhere: until its transaction the old files and the deltas are the
heap, and what it has written is removed at the next open. Afterwards the arena is switched to the
new files, one extent to a stop, so that pages which only held what is now in a file go back to the
page cache. Never called without the heap's lock.
"""

from __future__ import annotations

import warnings
from typing import Any, Final

from ._ffi import check, ffi, lib
from .base_files import Extent
from .errors import HeapError, HeapPoisonedError
from .rebasing import (
    drop_replaced,
    drop_unnamed,
    switch_memory,
    switch_views,
    write_base_files,
)
from .store import PAGE_BYTES, Record, Store

# When a fold is due: docs/design.md, "Fold", has the reasons and figures.
_DELTA_BYTES_MIN: Final = 4 << 20
_COMMITS_MAX: Final = 512
# An extent with fewer pages of its own is not worth the faults that its others would take again.
_SWITCH_PAGES_MIN: Final = 32


class Folder:
    """Folds of one heap, which keep its memory below ``memory_limit``; ``poison`` is the reason why
    there can be no more commits."""

    def __init__(self, heap_ptr: Any, memory_limit: int | None = None) -> None:
        self._ptr = heap_ptr
        self.memory_limit = memory_limit
        self._residue_bytes = 0  # what the last fold could not give back
        self.poison = ""

    def fold(self, store: Store) -> int:
        """Merge all deltas into base files; see Heap.fold."""
        check(lib.dh_store_begin(self._ptr), self._ptr)
        if store.last is None:
            return 0
        count = lib.dh_extents_unfolded(self._ptr, ffi.NULL, 0)
        numbers = ffi.new("uint32_t[]", count)
        lib.dh_extents_unfolded(self._ptr, numbers, count)
        files = write_base_files(self._ptr, store, ffi.NULL, list(numbers), store.last.id)
        folded = store.folded_record()
        try:
            replaced = store.replace_base(folded, files)
        except BaseException as error:
            # Before any call, as in commit: until it is known whether the index names the new
            # files, none of them may go, and none of the old.
            self.poison = f"a fold was interrupted ({error!r}): close the heap and open it again"
            replaced = self._recover(store, folded, files)
            if store.last is not None and store.last.nonce == folded.nonce:
                self._finish(store, files, replaced)
            raise
        self._finish(store, files, replaced)
        return len(files)

    def after_commit(self, store: Store) -> None:
        """Fold if it is due. The commit before it stands, and is told to the caller, whatever
        becomes of its fold."""
        try:
            if self._is_over_limit():
                self.fold(store)
                switch_memory(self._ptr, store, 1)
                self._residue_bytes = self.private_bytes()
            elif is_due(store):
                self.fold(store)
        except Exception as error:
            warnings.warn(
                f"the commit is durable, but the fold after it failed: {error}",
                RuntimeWarning,
                stacklevel=4,
            )

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

    def _finish(self, store: Store, files: list[Extent], replaced: list[Extent]) -> None:
        """The index names the new files. The old ones' memory holds the same state: a failure to
        switch changes nothing but when their space comes back."""
        try:
            switch_views(self._ptr, store, files)
            drop_replaced(store, replaced)
            switch_memory(self._ptr, store, _SWITCH_PAGES_MIN)
        except OSError as error:
            raise HeapError(
                f"the fold is recorded, but its files could not be mapped: {error}. Nothing is "
                "lost; memory and disk space come back with the next fold, or when the heap is "
                "opened again"
            ) from error

    def _recover(self, store: Store, folded: Record, files: list[Extent]) -> list[Extent]:
        """Find out whether a fold that failed became durable; what it replaced, if it did."""
        try:
            durable = store.is_durable(folded)
        except HeapPoisonedError as unknown:
            self.poison = str(unknown)
            raise
        if durable:
            replaced = store.adopt(folded)
            self.poison = ""
            return replaced
        self.poison = ""
        drop_unnamed(store, files)
        return []


def is_due(store: Store) -> bool:
    """Whether the deltas since the last fold are so many that opening would take notice."""
    base_bytes = sum(extent.file_bytes for extent in store.extents.values())
    return (
        store.delta_bytes > max(_DELTA_BYTES_MIN, base_bytes // 3)
        or store.deltas_count > _COMMITS_MAX
    )
