"""Looking at a heap: what is pending, what is alive, what is sound; copies of it, and figures."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from . import arrays, surveys, verifier
from ._ffi import check, ffi, lib
from .backup import backup
from .census import Census, Why
from .collector import Collector, Generation
from .guard import Guarded, exclusive
from .results import Backup, CollectStats, HeapStats, Pending, VerifyReport
from .store import PAGE_BYTES
from .trackers import TRACKERS
from .verifier import Progress

if TYPE_CHECKING:
    from . import _native
    from .snapshots import SnapshotStore
    from .store import Store

_Result = TypeVar("_Result")


class Looking(Guarded):
    """The part of a heap that changes no value; collect() and mark_dirty() are told what is."""

    if TYPE_CHECKING:
        _core: _native.Core
        _ptr: Any
        _is_proved: bool
        _collector: Collector

        def _open_store(self) -> Store | SnapshotStore: ...

    def _check(self, rc: int) -> None:
        if rc != 0:
            check(rc, self._ptr)

    @exclusive("pending()", writes=False)
    def pending(self) -> Pending:
        """What a commit would store now. Changes nothing; costs what the commit's stop costs."""
        pages, changed = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        self._check(lib.dh_pending(self._ptr, pages, changed))
        return Pending(pages=pages[0], bytes=changed[0])

    def collect(
        self,
        generation: Generation = "full",
        *,
        budget_ms: float | None = None,
        concurrent: bool = False,
    ) -> CollectStats:
        """Free what neither the root nor a live Python reference reaches.

        Changes no live value and dirties no page. Frees space in memory at once, and in the store
        with the next commit. Runs by itself when containers have taken much room since the heap
        was opened (:attr:`collector`): a job that is short calls it before its last commit.

        Args:
            generation: "full", or "young": only what was made since the last collection, found
                through the pages written since, as the kernel tells; costs what these hold, and
                not what the heap does.
            budget_ms: take the next steps of a full collection for about so long, and return;
                ``done`` tells whether it is complete. Call it again until it is, or never: until
                then freed memory waits for it.
            concurrent: a full collection that marks without the GIL and without the heap's lock,
                beside other threads, and stops the application only shortly at its begin and end.
                One that a rollback or another collection has ended three times is made in one stop.

        A rollback or another collection ends one that is under way in steps: nothing is lost by it,
        and the next step begins it anew. Automatic young ones wait for it a while.

        Cost: one stop, of some 50 ns for each cell that lives; see ``docs/gc.md`` for the others.

        Raises:
            ValueError: what was asked for is contradictory.
            HeapClosedError: the heap was closed in another thread meanwhile.

        >>> heap.root["a"] = [1, 2, 3]
        >>> del heap.root["a"]
        >>> stats = heap.collect()
        >>> stats.freed_cells > 0, stats.done, len(stats.stops_ns)
        (True, True, 1)
        >>> heap.collect(concurrent=True).freed_cells
        0
        """
        self._refuse_in_child()
        self._refuse_read_only("collect()")
        return self._collector.collect(generation, budget_ms, concurrent)

    @exclusive("collect()")
    def _collect_step(self, step: Callable[[], _Result]) -> _Result:
        return step()

    @property
    def collector(self) -> Collector:
        """Collections of this heap: when they come by themselves, what they did."""
        return self._collector

    @exclusive("census()", writes=False)
    def census(self) -> Census:
        """Count what lives in the heap, by type, and the room between it: see :class:`Census`.

        For who wants to know what takes the memory. Counts what is in memory now, uncommitted
        changes included; also of a snapshot (``dh.open(path, read_only=True)``). ``print`` shows
        the result as a table.

        Raises:
            HeapCorruptError: what the heap was opened from is damaged; :meth:`verify` says where.

        Cost: the application is stopped, two to three times as long as for a full :meth:`collect`
        in one stop. Memory: at most 5 % of the heap, and 1 MiB. ``python -m dirtyheap census``
        stops nobody: it counts the last commit.

        >>> heap.root["users"] = [{"name": "Ada", "tags": [1, 2]}, {"name": "Grace", "tags": []}]
        >>> census = heap.census()
        >>> census.of("list").objects, census.of("dict").objects, census.unreachable_cells
        (4, 3, 0)
        >>> str(census).splitlines()[0].split()
        ['type', 'objects', 'cells', 'bytes']
        >>> census.bytes == sum(count.bytes for count in census.types)
        True
        """
        store = self._open_store()
        return surveys.census(self._ptr, store.last.id if store.last else 0)

    @exclusive("why()", writes=False)
    def why(self, container: Any) -> Why:
        """What keeps a container alive: one of the shortest paths that lead to it from the root.

        For what should be garbage by now and is not. When no path leads from the root, other
        containers that Python holds are tried; see :class:`Why`.

        Args:
            container: a Dict, List, record, ... of this heap, or an ndarray whose memory is in it.

        Raises:
            TypeError: it is none of these. Strings, tuples and other values belong to the slot that
                holds them.
            ValueError: it belongs to another heap.
            StaleObjectError: it is not part of the state that the heap shows.

        Cost: stops the application; goes through what is as near to the root as the container, all
        of the heap at worst. Memory: 16 bytes for each container on the way, and 1 % of the heap.

        >>> heap.root["users"] = [{"name": "Ada", "tags": ["x"]}]
        >>> tags = heap.root["users"][0]["tags"]
        >>> why = heap.why(tags)
        >>> print(why)
        root['users'][0]['tags']
        >>> [step.type for step in why.steps]
        ['list', 'dict', 'list']
        >>> del heap.root["users"]
        >>> print(heap.why(tags))
        only Python's references keep this list: nothing leads to it
        """
        return surveys.why(self._ptr, self._core.reference(arrays.holder_of(container)))

    @exclusive("verify()", writes=False)
    def verify(self, *, progress: Progress | None = None) -> VerifyReport:
        """Check everything: what is stored, and what is in memory; see :class:`VerifyReport`.

        Stored: the index, every row by its hash, the chain of commits, every base file page by
        page, every delta by the checksum of the pages that come of it. In memory: the allocator
        against itself and its committed table, pages that were not written against their committed
        image, every container, and that every value has one owner. Damage is named by how it is
        reached. Garbage is counted, and no problem. :func:`dirtyheap.verify` does the same for a
        heap that is not open.

        Args:
            progress: called as ``progress(step, done, total)`` between the steps.

        Cost: reads every file, and everything that can be reached with the application stopped.
        Memory as for :func:`dirtyheap.verify`.

        >>> heap.root["a"] = [1, 2, {"b": 3}]
        >>> report = heap.verify()
        >>> report.ok, report.problems
        (True, ())
        """
        store = self._open_store()
        return verifier.verify_open(
            self._ptr, store.directory, store.last.id if store.last else 0, progress
        )

    @exclusive("mark_dirty()")
    def mark_dirty(self, buffer: Any) -> None:
        """Say that memory of this heap was written in a way the kernel cannot see: by io_uring
        into registered buffers, RDMA, a GPU. ``buffer``: a Buffer, or a view or array over one."""
        extent = arrays.extent_of(buffer)
        if extent is not None:
            if extent[1] > 0:
                self._check(lib.dh_mark_dirty(self._ptr, *extent))
            return
        with memoryview(buffer) as view:
            if view.nbytes == 0:
                return
            if not view.c_contiguous:
                raise ValueError("the view has gaps: pass the Buffer, or a contiguous view of it")
            address = int(ffi.cast("uintptr_t", ffi.from_buffer(view)))
            self._check(lib.dh_mark_dirty(self._ptr, address, view.nbytes))

    def backup(self, path: str | os.PathLike[str]) -> Backup:
        """Copy the heap as of its last commit to a new directory, with its history and tags.

        The copy is durable and whole when this returns, opens by itself, and shares no file with
        this heap. Other threads, and a writer in another process, go on meanwhile. What is not
        committed is not in it. For a heap that is not open:
        ``python -m dirtyheap backup HEAP TARGET``.

        Raises:
            FileExistsError: the path exists.
            FileNotFoundError: its parent does not.
            HeapCorruptError: a base file is missing or too short.
            OSError: reading or writing failed, the disk is full; nothing is left of the copy.

        Cost: reads and writes every file of the heap once; where the file system can share blocks
        (btrfs, XFS) the index only.

        >>> copy = heap.backup("copy of the heap")
        >>> copy.commit, copy.path.name
        (0, 'copy of the heap')
        """
        self._refuse_in_child()
        return backup(self._open_store().directory, path)

    @exclusive("stats()", writes=False)
    def stats(self) -> HeapStats:
        """Figures about the open heap; cheap."""
        store = self._open_store()
        stats = ffi.new("dh_heap_stats *")
        lib.dh_heap_stats_read(self._ptr, stats)
        names = {number: name for name, number in TRACKERS.items()}
        reason = ffi.string(lib.dh_heap_tracker_reason(self._ptr)).decode("utf-8", "replace")
        return HeapStats(
            tracker=names.get(stats.tracker, "script"),
            tracker_reason=reason,
            proof=self._is_proved,
            capacity_bytes=stats.capacity_pages * PAGE_BYTES,
            arena_bytes=stats.hwm_pages * PAGE_BYTES,
            free_bytes=stats.free_pages_count * PAGE_BYTES,
            allocated_bytes=stats.allocated_bytes,
            handles=stats.handles_count,
            exported_views=stats.exports_count,
            overlay_pages=stats.overlay_pages_count,
            overlay_bytes=stats.overlay_bytes,
            base_bytes=stats.base_pages_count * PAGE_BYTES,
            delta_bytes=store.delta_bytes,
            private_bytes=stats.private_pages_count * PAGE_BYTES + stats.overlay_bytes,
            commit=store.last.id if store.last else 0,
        )
