"""Heap: open, root, commit, rollback, transaction, collect, close.

What a user holds. Between the compiled core (pages, containers, deltas as bytes) and the store.
One lock serves every verb; containers need none, the GIL is theirs. Nothing here loops over pages.
"""

from __future__ import annotations

import operator
import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial, wraps
from pathlib import Path
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    ParamSpec,
    SupportsIndex,
    TypeVar,
    overload,
)

from . import _native, arrays
from ._ffi import check, ffi, lib
from .committer import Committer
from .errors import HeapClosedError, HeapCorruptError, HeapError, HeapPoisonedError
from .results import CollectStats, Commit, HeapStats, Pending, VerifyReport
from .store import PAGE_BYTES, Store

if TYPE_CHECKING:  # numpy is optional
    import numpy
    from numpy.typing import NDArray

CAPACITY_BYTES: Final = 64 << 30
CAPACITY_BYTES_MIN: Final = 1 << 20
CAPACITY_BYTES_MAX: Final = 4 << 40
_TRACKERS: Final = {
    "auto": lib.DH_TRACKER_AUTO,
    "uffd": lib.DH_TRACKER_UFFD,
    "uffd-dev": lib.DH_TRACKER_UFFD_DEV,
    "compare": lib.DH_TRACKER_COMPARE,
}


def open(
    path: str | os.PathLike[str],
    *,
    create: bool = True,
    capacity: int = CAPACITY_BYTES,
    tracker: str = "auto",
    allow_pickle: bool = False,
) -> Heap:
    """Open the heap in a directory, at its last commit.

    Args:
        path: the directory; made when it does not exist (its parent must).
        create: False: FileNotFoundError instead of a new heap.
        capacity: bytes of address space to reserve, the most the heap can grow to while it is
            open. Costs no memory. 1 MiB to 4 TiB.
        tracker: how written pages are found: ``"auto"`` takes userfaultfd by system call, else by
            device node, else ``"compare"`` (every page against its committed image: slower, same
            results). ``"uffd"``, ``"uffd-dev"``, ``"compare"`` force one. The environment variable
            ``DIRTYHEAP_TRACKER`` says what ``"auto"`` means.
        allow_pickle: True: values stored as :class:`Pickled` are read. That runs whatever code the
            heap's author chose: only for heaps that you trust. False: reading one is a HeapError.

    Raises:
        HeapLockedError: another process (or this one) has it open for writing.
        HeapCorruptError: it is damaged; nothing was changed.
        HeapError: the path is not a heap, or of a newer format.
        TrackerError: the tracker asked for does not work here.

    Cost: reads the whole heap once.

    >>> import dirtyheap as dh, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "inventory")
    >>> with dh.open(path) as heap:
    ...     heap.root["bolts"] = {"m4": 40}
    ...     heap.root["bolts"]["m4"] -= 1
    ...     heap.commit("first").id
    1
    >>> with dh.open(path) as heap:
    ...     heap.root["bolts"]["m4"]
    39
    """
    if not os.fspath(path):
        raise ValueError("path is empty: give the heap's directory ('.' for the current one)")
    capacity = operator.index(capacity)
    if not CAPACITY_BYTES_MIN <= capacity <= CAPACITY_BYTES_MAX:
        raise ValueError(f"capacity={capacity}: must be from 1 MiB to 4 TiB, in bytes")
    return Heap(
        Path(path).absolute(),
        create=create,
        capacity=capacity,
        tracker=tracker,
        allow_pickle=allow_pickle,
    )


def _tracker_id(name: str) -> int:
    if name == "auto":
        name = os.environ.get("DIRTYHEAP_TRACKER", "auto")
    try:
        return int(_TRACKERS[name])
    except KeyError:
        raise ValueError(f"tracker {name!r}: must be one of {', '.join(_TRACKERS)}") from None


def _current_task() -> Any:
    """The asyncio task that runs in this thread, or None; imports nothing."""
    current_task = getattr(sys.modules.get("asyncio.tasks"), "current_task", None)
    if current_task is None:
        return None
    try:
        return current_task()
    except RuntimeError:  # no loop runs in this thread
        return None


_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Scalar = TypeVar("_Scalar", bound="numpy.generic")
_Method = Callable[Concatenate["Heap", _Arguments], _Result]


def _exclusive(
    verb: str,
) -> Callable[[_Method[_Arguments, _Result]], _Method[_Arguments, _Result]]:
    """Hold the heap's lock for one verb; refuse re-entry from a callback of this thread.

    Not a context manager: CPython delivers interrupts where a function written in Python begins,
    so that the end of one could be left out, and the heap be busy for ever.
    """

    def decorate(method: _Method[_Arguments, _Result]) -> _Method[_Arguments, _Result]:
        @wraps(method)
        def guarded(self: Heap, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
            self._refuse_in_child()  # where the lock's owner may not exist
            with self._lock:
                self._refuse_if_busy(verb)
                try:
                    self._verb = verb
                    return method(self, *args, **kwargs)
                finally:
                    self._verb = ""

        return guarded

    return decorate


class Heap:
    """A persistent object graph. Made by :func:`open`; use as a context manager or close it.

    Leaving the ``with`` block closes without committing: what was not committed is gone.
    """

    def __init__(
        self,
        directory: Path,
        *,
        create: bool,
        capacity: int,
        tracker: str,
        allow_pickle: bool = False,
    ) -> None:
        self._lock = threading.RLock()
        self._verb = ""  # the verb that holds the lock now; guards against re-entry
        self._store: Store | None = None
        self._is_closing = False
        self._task: weakref.ref[Any] | None = None  # the asyncio task inside transaction()
        self._owner_pid = os.getpid()
        tracker_id = _tracker_id(tracker)
        store = Store(directory, create=create)
        try:
            key = store.meta["hash_key"]
            self._core = _native.Core(
                capacity,
                tracker_id,
                int.from_bytes(key[:8], "little"),
                int.from_bytes(key[8:], "little"),
            )
            self._core.allow_pickle = bool(allow_pickle)
            # The method below hands its keywords through, which costs as much as the record.
            self.new = self._core.new_record  # type: ignore[method-assign]
            try:
                self._ptr = ffi.cast("dh_heap *", self._core.address)
                self._committer = Committer(self._ptr)
                lib.dh_fork_guard_fd(self._ptr, store.lock_fd)
                self._load(store)
                store.drop_orphans()
            except BaseException:
                self._core.close()
                raise
        except BaseException:
            store.close()
            raise
        self._store = store

    # --- life -------------------------------------------------------------------------------------

    def _load(self, store: Store) -> None:
        last = store.last
        for extent in store.extents_at(last.id if last else 0):
            fd = store.locate(extent)
            try:
                if os.fstat(fd).st_size != extent.file_bytes:
                    raise HeapCorruptError(f"the base file {extent.file_name} has a wrong size")
                self._check(
                    lib.dh_load_extent(
                        self._ptr,
                        extent.number,
                        extent.version,
                        fd,
                        extent.file_bytes,
                        extent.checksum,
                    )
                )
            finally:
                os.close(fd)
        state = ffi.NULL
        if last is not None:
            for chunk in store.deltas_of(last):
                self._check(lib.dh_load_delta(self._ptr, ffi.from_buffer(chunk), len(chunk)))
            state = ffi.new("dh_state *", (last.root, last.hwm_pages, last.serial_next))
        self._check(lib.dh_load_finish(self._ptr, state))

    def _check(self, rc: int) -> None:
        if rc != 0:
            check(rc, self._ptr)

    def __enter__(self) -> Heap:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._store is None or self._is_closing:
            return "<dirtyheap.Heap, closed>"
        return f"<dirtyheap.Heap {str(self._store.directory)!r}, commit {self.last_commit_id}>"

    def close(self) -> None:
        """Close without committing. Containers raise HeapClosedError from now on; views of
        buffers stay valid memory, saved nowhere, until the last one is released (ResourceWarning).
        Closing twice is harmless. In a forked child it only forgets the heap."""
        if os.getpid() != self._owner_pid:
            # Without the lock: the thread that holds it may not exist here. The store is the
            # parent's, and its descriptors were closed by the fork guard.
            self._core.close()
            self._store = None
            return
        with self._lock:
            if self._store is None:
                return
            if self._verb:
                raise HeapError(f"close() called from inside {self._verb}")
            # An interrupt may come between any two: each can be done again, and the last says that
            # all are done.
            self._is_closing = True
            exports = self._core.exports_count
            self._core.close()
            self._store.close()
            self._store = None
        if exports:
            warnings.warn(
                f"the heap was closed while {exports} views of its buffers were alive: their "
                "memory stays until they go, and is saved nowhere",
                ResourceWarning,
                stacklevel=2,
            )

    def __del__(self) -> None:
        store = getattr(self, "_store", None)
        if store is not None:
            what = repr(self)
            self.close()  # first: the warning may be made an error
            warnings.warn(f"unclosed heap {what}", ResourceWarning, stacklevel=2, source=self)

    @property
    def closed(self) -> bool:
        """True after :meth:`close`."""
        return self._store is None

    @property
    def path(self) -> Path:
        """The heap's directory."""
        return self._open_store().directory

    @property
    def last_commit_id(self) -> int:
        """Id of the last commit, 0 before the first."""
        last = self._open_store().last
        return last.id if last else 0

    def _open_store(self) -> Store:
        if self._store is None or self._is_closing:
            raise HeapClosedError("the heap is closed")
        return self._store

    def _refuse_in_child(self) -> None:
        if os.getpid() != self._owner_pid:
            raise HeapClosedError(
                "this heap belongs to the parent process: open it again after the parent has "
                "closed it"
            )

    def _refuse_if_busy(self, verb: str) -> None:
        if self._verb:
            raise HeapError(f"{verb} called from inside {self._verb}")
        self._open_store()
        if self._committer.poison:
            raise HeapPoisonedError(self._committer.poison)
        if self._core.undo_failed:
            raise HeapPoisonedError(
                "a transaction could not be undone, or ended in another thread or order than it "
                "began: close the heap and open it again at its last commit"
            )

    def _refuse_in_transaction(self, verb: str) -> None:
        if self._core.in_transaction:
            raise HeapError(f"{verb} inside transaction(): leave the block first")

    # --- contents ---------------------------------------------------------------------------------

    @property
    def root(self) -> _native.Dict:
        """The dict at the top of the graph: what is reachable from it persists."""
        return self._core.root()

    def dict(self, initial: Mapping[Any, Any] | Iterable[Any] | None = None) -> _native.Dict:
        """A new Dict in this heap, linked to nothing yet; copies the initial contents in."""
        return self._core.new_dict(initial)

    def list(self, initial: Iterable[Any] | None = None) -> _native.List:
        """A new List in this heap, linked to nothing yet; copies the initial contents in."""
        return self._core.new_list(initial)

    def set(self, initial: Iterable[Any] | None = None) -> _native.Set:
        """A new Set in this heap, linked to nothing yet; copies the initial elements in."""
        return self._core.new_set(initial)

    def sorted_dict(
        self, initial: Mapping[Any, Any] | Iterable[Any] | None = None
    ) -> _native.SortedDict:
        """A new SortedDict in this heap, linked to nothing yet; copies the initial contents in.

        Its keys stay in order: ``irange``, ``bisect``, ``peekitem`` and positions as in
        ``sortedcontainers.SortedDict``. The order is that of the keys themselves; a key function
        could not be stored. Keys are int, float, bool, Decimal and Fraction among each other, or
        str, bytes, date, datetime (all naive or all aware), time, timedelta, UUID, paths, or tuples
        of these; what Python does not compare is refused (TypeError), and so is NaN (ValueError).

        >>> import dirtyheap as dh, tempfile, os
        >>> from datetime import datetime
        >>> with dh.open(os.path.join(tempfile.mkdtemp(), "h")) as heap:
        ...     prices = heap.root["prices"] = heap.sorted_dict({datetime(2024, 1, 2): 10.5})
        ...     prices[datetime(2024, 1, 1)] = 10.0
        ...     prices.peekitem(0)
        (datetime.datetime(2024, 1, 1, 0, 0), 10.0)
        """
        return self._core.new_sorted_dict(initial)

    def new(
        self,
        cls: Callable[_Arguments, _Result],
        /,
        *args: _Arguments.args,
        **fields: _Arguments.kwargs,
    ) -> _Result:
        """A new record of a class made with :func:`dirtyheap.record`, linked to nothing yet.

        Values are given by name or in the order of the fields; plain containers among them are
        copied in. ``__post_init__`` is called when the class has one.

        Raises:
            TypeError: a field without default got no value, a value is not of its field's type,
                or there is no such field.

        Cost: one cell of 16 bytes and 8 per field, and the values that are not inline.

        >>> import dirtyheap as dh
        >>> @dh.record
        ... class Pixel:
        ...     x: int
        ...     y: int = 0
        >>> heap.root["p"] = heap.new(Pixel, 1)
        >>> heap.root["p"].y += 2
        >>> heap.root["p"]
        Pixel(x=1, y=2)
        """
        made: _Result = self._core.new_record(cls, *args, **fields)
        return made

    def deque(
        self, initial: Iterable[Any] | None = None, maxlen: int | None = None
    ) -> _native.Deque:
        """A new Deque in this heap, linked to nothing yet; copies the initial contents in. With
        ``maxlen`` it never gets longer: what is added at one end pushes out at the other."""
        return self._core.new_deque(initial, maxlen)

    def buffer(self, initial: int | bytes | bytearray | memoryview) -> _native.Buffer:
        """A new Buffer: ``initial`` zero bytes, or a copy of bytes. It takes whole pages.

        Anything that writes through its memory (``memoryview``, ``numpy.frombuffer``,
        ``readinto``, C code) is seen by the next commit.
        """
        return self._core.new_buffer(initial)

    @overload
    def array(
        self,
        shape: SupportsIndex | Sequence[SupportsIndex],
        dtype: type[float] = ...,
        *,
        order: str = ...,
        fill: Any = ...,
    ) -> NDArray[numpy.float64]: ...
    @overload
    def array(
        self,
        shape: SupportsIndex | Sequence[SupportsIndex],
        dtype: type[_Scalar] | numpy.dtype[_Scalar],
        *,
        order: str = ...,
        fill: Any = ...,
    ) -> NDArray[_Scalar]: ...
    @overload
    def array(
        self,
        shape: SupportsIndex | Sequence[SupportsIndex],
        dtype: Any,
        *,
        order: str = ...,
        fill: Any = ...,
    ) -> NDArray[Any]: ...
    def array(
        self,
        shape: SupportsIndex | Sequence[SupportsIndex],
        dtype: Any = float,
        *,
        order: str = "C",
        fill: Any = None,
    ) -> NDArray[Any]:
        """A new numpy.ndarray whose memory is in this heap; needs numpy.

        It is an ordinary ndarray: whatever writes to it or to a view of it, in place or through
        ``out=``, is seen by the next commit. Stored in a container it is linked, not copied, and
        so is any view of it; other ndarrays are copied in. It never grows: make a larger one and
        copy. Takes whole pages.

        Args:
            shape: extents of the axes, or one int.
            dtype: any but those that hold Python objects.
            order: ``"C"`` or ``"F"``: the last or the first axis is contiguous.
            fill: what to fill it with, as in ``array[...] = fill``; zeros if None.

        Raises:
            TypeError: the dtype holds Python objects, or is not one of numpy's own.
            HeapFullError: it does not fit the heap's capacity.
            OverflowError: no heap could hold it.
            ValueError: a negative extent, too many axes, or a fill of another shape.
            ImportError: numpy is not installed.

        Cost: O(bytes).

        >>> import dirtyheap as dh, tempfile, os
        >>> path = os.path.join(tempfile.mkdtemp(), "field")
        >>> with dh.open(path) as heap:
        ...     field = heap.array((3, 4), "f8", fill=1)
        ...     heap.root["field"], heap.root["edge"] = field, field[:, 0]
        ...     field *= 2
        ...     heap.root["edge"][1] = 7
        ...     commit = heap.commit()
        ...     del field
        >>> with dh.open(path) as heap:
        ...     print(heap.root["field"])
        [[2. 2. 2. 2.]
         [7. 2. 2. 2.]
         [2. 2. 2. 2.]]
        """
        return arrays.new(self._core, shape, dtype, order=order, fill=fill)

    # --- commit -----------------------------------------------------------------------------------

    def commit(self, note: str = "") -> Commit:
        """Make the present state durable. After it returns, power may fail.

        The application is stopped while the kernel is asked which pages were written and they are
        copied (``pause_ns``); comparing, encoding and writing run beside it. When nothing changed
        and there is no note, nothing is written and the last commit is returned.

        Raises:
            CommitError: nothing was written (disk full, I/O error); the changes are still in
                memory and in the next commit.
            HeapPoisonedError: the disk failed in a way that leaves open which commit is the last;
                close the heap and open it again.

        Cost: follows the pages written since the last commit, plus about 1 ns per page of heap.
        """
        began_ns = time.perf_counter_ns()
        if not isinstance(note, str):
            raise TypeError(f"note must be a str, not {type(note).__name__}")
        return self._commit(note, began_ns)

    @_exclusive("commit()")
    def _commit(self, note: str, began_ns: int) -> Commit:
        self._refuse_in_transaction("commit()")
        return self._committer.commit(self._open_store(), note, began_ns)

    # --- fold -------------------------------------------------------------------------------------

    @_exclusive("fold()")
    def fold(self) -> int:
        """Merge all deltas into base files; returns how many extents were rewritten.

        Changes nothing that a user sees; makes the next open faster and gives disk space back to
        the store. Runs by itself when deltas outweigh half of the base.
        """
        return self._committer.fold(self._open_store())

    # --- going back -------------------------------------------------------------------------------

    @_exclusive("rollback()")
    def rollback(self) -> int:
        """Go back to the last commit; returns the pages restored. Cost follows the pages written.

        Containers that the commit holds stay valid objects with their old contents; those made
        since raise StaleObjectError.
        """
        self._refuse_in_transaction("rollback()")
        return self._show(ffi.NULL)

    def _show(self, savepoint: Any) -> int:
        pages, stop_ns = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        self._check(lib.dh_show_state(self._ptr, savepoint, pages, stop_ns))
        return int(pages[0])

    def transaction(self) -> AbstractContextManager[Heap]:
        """All or nothing: commits at the end of the block, goes back to its start on an exception.

        Holds the heap's lock: no commit or collection of another thread falls inside. What other
        threads write meanwhile belongs to it and goes back with it; two asyncio tasks cannot be
        inside at once (HeapError). Blocks nest; an inner one is
        kept or undone by itself, and only the outermost commits. When that commit fails or is
        interrupted, the changes stay in memory, as after :meth:`commit`. An interrupt inside the
        block undoes it; it cannot come between the exception and the undoing.

        >>> import dirtyheap as dh, tempfile, os
        >>> heap = dh.open(os.path.join(tempfile.mkdtemp(), "accounts"))
        >>> heap.root["a"] = 10
        >>> try:
        ...     with heap.transaction():
        ...         heap.root["a"] -= 50
        ...         if heap.root["a"] < 0:
        ...             raise ValueError("overdrawn")
        ... except ValueError:
        ...     heap.root["a"]
        10
        >>> heap.close()
        """
        began_ns = time.perf_counter_ns()
        return self._core.block(
            self, self._lock, self._check_begin, partial(self._commit_transaction, began_ns)
        )

    def _check_begin(self) -> None:
        self._refuse_if_busy("transaction()")
        task = _current_task()
        if not self._core.in_transaction:
            self._task = None if task is None else weakref.ref(task)
        elif task is not (None if self._task is None else self._task()):
            raise HeapError(
                "another asyncio task is inside a transaction() of this heap: they cannot be "
                "interleaved; guard them with one asyncio.Lock, or leave no await inside the block"
            )

    @_exclusive("transaction()")
    def _commit_transaction(self, began_ns: int) -> None:
        self._committer.commit(self._open_store(), "", began_ns)

    def hold(self) -> AbstractContextManager[Heap]:
        """No commit, rollback or collection of another thread falls inside the block: for groups
        of stores that belong together, and for writers that do not hold the GIL."""
        return self._core.block(self, self._lock, self._open_store, None)

    # --- looking ----------------------------------------------------------------------------------

    @_exclusive("pending()")
    def pending(self) -> Pending:
        """What a commit would store now. Changes nothing; costs what the commit's stop costs."""
        pages, changed = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        self._check(lib.dh_pending(self._ptr, pages, changed))
        return Pending(pages=pages[0], bytes=changed[0])

    @_exclusive("collect()")
    def collect(self) -> CollectStats:
        """Free what neither the root nor a live Python reference reaches.

        Stops the application for a trace of everything live. Frees space in memory at once and in
        the store with the next commit; changes no live value and dirties no page.
        """
        stats = ffi.new("dh_collect_stats *")
        self._check(lib.dh_collect(self._ptr, stats))
        return CollectStats(
            live_cells=stats.live_cells_count,
            freed_cells=stats.freed_cells_count,
            freed_bytes=stats.freed_bytes,
            freed_pages=stats.freed_pages_count,
            released_pages=stats.released_pages_count,
            roots=stats.roots_count,
            pause_ns=stats.stop_ns,
        )

    @_exclusive("verify()")
    def verify(self) -> VerifyReport:
        """Walk everything reachable and check it against the rules of its structure."""
        cells, problems = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        self._check(lib.dh_check(self._ptr, cells, problems))
        text = ffi.string(lib.dh_heap_error_text(self._ptr)).decode("utf-8", "replace")
        return VerifyReport(cells[0], problems[0], text if problems[0] else "")

    @_exclusive("mark_dirty()")
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

    @_exclusive("stats()")
    def stats(self) -> HeapStats:
        """Figures about the open heap; cheap."""
        store = self._open_store()
        stats = ffi.new("dh_heap_stats *")
        lib.dh_heap_stats_read(self._ptr, stats)
        names = {number: name for name, number in _TRACKERS.items()}
        reason = ffi.string(lib.dh_heap_tracker_reason(self._ptr)).decode("utf-8", "replace")
        return HeapStats(
            tracker=names.get(stats.tracker, "script"),
            tracker_reason=reason,
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
            commit=store.last.id if store.last else 0,
        )
