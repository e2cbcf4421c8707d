"""Bring a stored commit into a core: base files by name, deltas in commit order, then start.

Reads no page: the core maps the files and enters the deltas, and checks and applies what somebody
comes to, when he does. Must not write to the store.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from ._ffi import check, ffi, lib
from .base_files import Extent
from .rows import Record

if TYPE_CHECKING:
    from .snapshots import Source
    from .store import Store

# struct dh_extent_row of dirtyheap.h
_ROW: Final = struct.Struct("<QQII40s")
assert _ROW.size == ffi.sizeof("dh_extent_row")


def load(
    heap_ptr: Any, store: Store | Source, record: Record | None, *, preload: bool = False
) -> None:
    """Make a new core show one commit of the store; None: the empty heap before the first.

    Args:
        heap_ptr: a ``dh_heap *`` that was opened and nothing else.
        store: where the commit is.
        record: the commit.
        preload: read all base files into memory and check each of their pages.

    Raises:
        HeapCorruptError: what is stored is damaged; the core is fit for closing only.
        HeapFullError: the core's capacity is too small for it.

    Cost: follows the number of extents and of deltas, not their bytes; with preload the bytes.
    """
    try:
        _load(heap_ptr, store, record)
        if preload:
            check(lib.dh_load_preload(heap_ptr), heap_ptr)
    except FileNotFoundError as error:
        raise store.base_is_missing(error) from None


def _load(heap_ptr: Any, store: Store | Source, record: Record | None) -> None:
    rows = _pack_rows(store.extents_at(record.id if record else 0))
    if rows:
        _load_extents(heap_ptr, store, rows)
    state = ffi.NULL
    if record is not None:
        for chunk in store.deltas_of(record):
            check(lib.dh_load_delta(heap_ptr, ffi.from_buffer(chunk), len(chunk)), heap_ptr)
        state = ffi.new("dh_state *", (record.root, record.hwm_pages, record.serial_next))
    check(lib.dh_load_finish(heap_ptr, state), heap_ptr)


def _load_extents(heap_ptr: Any, store: Store | Source, rows: bytes) -> None:
    directory_fd = store.open_base()
    try:
        rc = lib.dh_load_extents(
            heap_ptr,
            directory_fd,
            ffi.cast("dh_extent_row *", ffi.from_buffer(rows)),
            len(rows) // _ROW.size,
        )
    finally:
        os.close(directory_fd)
    check(rc, heap_ptr)


def _pack_rows(extents: Iterable[Extent]) -> bytes:
    pack = _ROW.pack
    return b"".join(
        [
            pack(
                extent.version,
                extent.file_bytes,
                extent.number,
                extent.checksum,
                extent.file_name.encode(),
            )
            for extent in extents
        ]
    )
