"""Base files of a running heap: writing new ones, taking them over, letting the old ones go.

For commits that rewrite whole extents, and what folds have in common with them. Order is the
callers' promise: written and synced before the index names them, taken over and the old ones
dropped afterwards.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from ._ffi import check, ffi, lib
from .base_files import Extent
from .errors import CommitError
from .store import PAGE_BYTES, Store


def write_base_files(
    heap_ptr: Any, store: Store, capture: Any, numbers: Iterable[int], version: int
) -> list[Extent]:
    """New base files, durable when this returns; a failure leaves none behind.

    Args:
        heap_ptr: the ``dh_heap *``.
        store: where they go.
        capture: whose state they hold.
        numbers: of the extents.
        version: id of the commit whose image they are.
    """
    files: list[Extent] = []
    size, checksum = ffi.new("uint64_t *"), ffi.new("uint32_t *")
    try:
        for number in numbers:

            def fill(fd: int, number: int = number) -> tuple[int, int]:
                rc = lib.dh_extent_write(heap_ptr, capture, number, version, fd, size, checksum)
                if rc != 0:
                    check(rc, heap_ptr)
                return size[0], checksum[0]

            files.append(store.write_base(number, version, fill))
        if files:
            store.sync_base()
    except BaseException as error:
        drop_unnamed(store, files)
        if isinstance(error, OSError):
            raise CommitError(
                f"a base file could not be written: {error}. Nothing is lost: the heap is as it "
                "was, uncommitted changes included; try again when that is mended"
            ) from error
        raise
    return files


def switch_views(heap_ptr: Any, store: Store, files: Iterable[Extent]) -> None:
    """Take new base files as the committed image of their extents. May be done again."""
    for extent in files:
        fd = store.locate(extent)
        try:
            rc = lib.dh_extent_switch(
                heap_ptr, extent.number, extent.version, fd, extent.file_bytes, extent.checksum
            )
        finally:
            os.close(fd)
        check(rc, heap_ptr)


def switchable(heap_ptr: Any, pages_min: int) -> list[int]:
    """Extents of which at least so many pages are memory of the arena's own."""
    count = lib.dh_extents_private(heap_ptr, pages_min, ffi.NULL, 0)
    numbers = ffi.new("uint32_t[]", count)
    count = min(count, lib.dh_extents_private(heap_ptr, pages_min, numbers, count))
    return list(numbers[0:count])


def switch_memory(heap_ptr: Any, store: Store, numbers: Iterable[int]) -> int:
    """Let the arena show the base files of these extents; returns how many bytes went back. Each
    is switched in a stop of its own; one with exported memory stays as it is."""
    pages, total = ffi.new("uint64_t *"), 0
    for number in numbers:
        extent = store.extents.get(number)
        if extent is None:
            continue
        fd = store.locate(extent)
        try:
            rc = lib.dh_arena_switch(heap_ptr, number, fd, pages)
        finally:
            os.close(fd)
        check(rc, heap_ptr)
        total += pages[0]
    return int(total) * PAGE_BYTES


def drop_unnamed(store: Store, files: Sequence[Extent]) -> None:
    """Remove base files that no record came to name. What brought them here is to be told, not
    that this failed: the next open removes what is left."""
    with suppress(OSError):
        store.drop_base(list(files))


def drop_replaced(store: Store, replaced: Sequence[Extent]) -> None:
    """Remove base files that nothing names any more; if that fails the next open does it."""
    try:
        store.drop_base(list(replaced))
    except OSError as error:
        warnings.warn(
            f"an old base file could not be removed: {error}", RuntimeWarning, stacklevel=5
        )
