"""The conductor of a commit: the order of steps, and what each failure leaves behind.

    pre-copy, when much was written (precopy.py)
    capture (short stop) -> encode -> base files, synced -> one transaction -> settle

Before the transaction is durable every failure puts the dirty set back: nothing is lost. After it,
the process must take the commit as its own committed image (settle). A failure of that is tried
once more, and a commit that then stands is a success; what cannot be taken over poisons the heap,
because a diff against the wrong image would be a wrong diff. Never called without the heap's lock.
"""

from __future__ import annotations

import time
from typing import Any, Final

from ._ffi import check, ffi, lib
from .base_files import Extent
from .errors import CommitError, HeapPoisonedError
from .folder import Folder
from .precopy import Precopy
from .rebasing import drop_replaced, drop_unnamed, switch_views, write_base_files
from .results import Commit
from .store import Record, Store, body_hash
from .written_bytes import bytes_written_by_this_thread

_CHUNK_BYTES: Final = 12 << 20  # closed at the next extent's end, so that values stay near 16 MiB


class Committer:
    """Commits of one heap; ``poison`` is the reason why there can be no more."""

    def __init__(self, heap_ptr: Any, folder: Folder) -> None:
        self._ptr = heap_ptr
        self._folder = folder
        self.poison = ""

    def _check(self, rc: int) -> None:
        if rc != 0:
            check(rc, self._ptr)

    # --- commit ------------------------------------------------------------------------------

    def commit(self, store: Store, note: str, began_ns: int) -> Commit:
        """Make the present state durable; see Heap.commit."""
        written_before = bytes_written_by_this_thread()
        flight = _Flight(self._ptr, store, self._folder.memory_limit)
        try:
            stats = flight.take()
            is_new = (
                store.last is None
                or stats.pages_count > 0
                or note != ""
                or bool(flight.precopy.files)
            )
            if is_new:
                flight.precopy.finish(flight.capture)
                flight.files = self._write_rebased(store, flight) + flight.precopy.files
                flight.record = flight.describe(stats, note)
                flight.replaced = store.append(flight.record, flight.chunks, flight.files)
            flight.is_settling = True
            self._settle(store, flight)
        except BaseException as error:
            # Before any call: an interrupt may come at each, also while this is put in order.
            self.poison = (
                "a commit failed and its cleaning up was interrupted: close the heap and open it "
                "again; it is at the last commit or at the one that failed"
            )
            stands = self._recover(store, flight, error)
            if isinstance(error, OSError) and not stands:
                raise CommitError(
                    f"commit {flight.parent_id + 1} was not written: {error}. Nothing is lost: the "
                    "changes are still in memory and in the next commit"
                ) from error
            if not stands or not isinstance(error, Exception):
                raise
        drop_replaced(store, flight.replaced)
        self._folder.after_commit(store)
        return _result(
            store,
            stats,
            is_new,
            bytes_written_by_this_thread() - written_before,
            time.perf_counter_ns() - began_ns,
        )

    def _settle(self, store: Store, flight: _Flight) -> None:
        """The record is durable: make it the committed image of this process too. After an
        interrupt or a failure it can be called again."""
        if flight.capture == ffi.NULL:
            return  # settled, and then interrupted
        switch_views(self._ptr, store, flight.files)
        self._check(lib.dh_commit_done(self._ptr, flight.capture_out))

    def _recover(self, store: Store, flight: _Flight, error: BaseException) -> bool:
        """Whatever stopped the commit: put the dirty set back, or finish what is durable; returns
        whether the commit stands. The heap is poisoned until one of both is done."""
        if flight.is_settling:
            self._settle_again(store, flight, error)
            return True
        if flight.capture == ffi.NULL:
            self.poison = ""
            return False  # before the first file was written
        try:
            durable = flight.record is not None and store.is_durable(flight.record)
        except BaseException as unknown:
            self.poison = str(unknown)
            flight.put_back()
            raise
        if durable:  # an interrupt came between the transaction's end and its return
            assert flight.record is not None
            flight.replaced = store.adopt(flight.record)
            self._settle_again(store, flight, error)
            return True
        flight.put_back()
        self.poison = ""
        drop_unnamed(store, flight.files or flight.precopy.files)
        return False

    def _settle_again(self, store: Store, flight: _Flight, error: BaseException) -> None:
        self.poison = (
            f"commit {store.last.id if store.last else 0} is durable, but this process was "
            f"stopped while it took it over ({error!r}): close the heap and open it again"
        )
        try:
            self._settle(store, flight)
        except Exception as again:
            raise HeapPoisonedError(self.poison) from again
        self.poison = ""

    def _write_rebased(self, store: Store, flight: _Flight) -> list[Extent]:
        """Base files for extents that changed almost wholly; durable when this returns."""
        capture = flight.capture
        count = lib.dh_commit_rebased_count(capture)
        numbers = [lib.dh_commit_rebased_extent(capture, i) for i in range(count)]
        return write_base_files(self._ptr, store, capture, numbers, flight.parent_id + 1)


class _Flight:
    """One commit under way: what was captured, and how far it has come."""

    def __init__(self, heap_ptr: Any, store: Store, memory_limit: int | None) -> None:
        self._ptr = heap_ptr
        self._store = store
        self.parent_id = store.last.id if store.last else 0
        # The core writes the capture's address here itself: no interrupt can come between the
        # moment the dirty set is in flight and the moment we know its address.
        self.capture_out = ffi.new("dh_capture **")
        self.precopy = Precopy(heap_ptr, store, self.parent_id + 1, memory_limit)
        self.chunks: list[Any] = []
        self.files: list[Extent] = []
        self.replaced: list[Extent] = []
        self.record: Record | None = None
        self.is_settling = False

    @property
    def capture(self) -> Any:
        """The core's capture; ffi.NULL before :meth:`take`."""
        return self.capture_out[0]

    def take(self) -> Any:
        """Pre-copy, capture and encode; returns the statistics."""
        self.precopy.run(self.capture_out)
        rc = lib.dh_commit_capture(self._ptr, self.capture_out)
        if rc != 0:
            check(rc, self._ptr)
        rc = lib.dh_commit_encode(
            self._ptr, self.capture, self.parent_id, self.parent_id + 1, _CHUNK_BYTES
        )
        if rc != 0:
            check(rc, self._ptr)
        size = ffi.new("size_t *")
        for index in range(lib.dh_commit_chunks_count(self.capture)):
            data = lib.dh_commit_chunk(self.capture, index, size)
            self.chunks.append(ffi.buffer(data, size[0]))
        stats = ffi.new("dh_commit_stats *")
        lib.dh_commit_stats_read(self.capture, stats)
        return stats

    def describe(self, stats: Any, note: str) -> Record:
        """The record for what was captured."""
        state = ffi.new("dh_state *")
        lib.dh_commit_state(self.capture, state)
        return self._store.next_record(
            time=time.time(),
            note=note,
            root=state.root,
            hwm_pages=state.hwm_pages,
            serial_next=state.serial_next,
            chunks=len(self.chunks),
            body_hash=body_hash(self.chunks),
            pages=stats.pages_count,
            bytes_changed=stats.changed_bytes,
        )

    def put_back(self) -> None:
        """Nothing became durable: the dirty set goes back, the copies go."""
        self.chunks.clear()
        lib.dh_commit_failed(self._ptr, self.capture)


def _result(store: Store, stats: Any, is_new: bool, bytes_written: int, total_ns: int) -> Commit:
    last = store.last
    assert last is not None
    return Commit(
        id=last.id,
        parent=last.parent,
        time=last.time,
        note=last.note,
        pages=stats.pages_count if is_new else 0,
        bytes_changed=stats.changed_bytes if is_new else 0,
        bytes_written=bytes_written if is_new else 0,
        pause_ns=stats.stop_ns,
        total_ns=total_ns,
    )
