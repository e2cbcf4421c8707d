"""Heap: open, commit, rollback, transaction, hold, close.

What a user holds; its other verbs stand in contents.py, history.py and looking.py. Between the
compiled core (pages, containers, deltas as bytes) and the store. One lock serves every verb;
containers need none, the GIL is theirs. Nothing here loops over pages.
"""

from __future__ import annotations

import operator
import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, SupportsIndex

from . import _native, retention
from . import proof as proof_mode
from ._ffi import check, ffi, lib
from .collector import Collector
from .committer import Committer
from .contents import Contents
from .errors import HeapClosedError, HeapError, HeapPoisonedError, ReadOnlyError
from .folder import Folder
from .guard import exclusive
from .history import History, commit_argument
from .loader import load
from .looking import Looking
from .results import Commit
from .savepoints import Savepoints, show
from .sizes import CAPACITY_BYTES, CAPACITY_BYTES_MAX, CAPACITY_BYTES_MIN
from .snapshots import SnapshotStore, Source
from .store import Record, Store
from .trackers import tracker_id

MEMORY_LIMIT_MIN: Final = 1 << 20


def open(
    path: str | os.PathLike[str],
    *,
    create: bool = True,
    read_only: bool = False,
    at: int | str | Commit | None = None,
    capacity: int = CAPACITY_BYTES,
    tracker: str = "auto",
    allow_pickle: bool = False,
    keep: int | timedelta = 1,
    preload: bool = False,
    memory_limit: int | None = None,
    proof: bool | None = None,
) -> Heap:
    """Open the heap in a directory, at its last commit.

    Args:
        path: the directory; made when it does not exist (its parent must).
        create: False: FileNotFoundError instead of a new heap.
        read_only: True: a snapshot. It shows one commit and never another; every change raises
            ReadOnlyError. It takes no lock of the writer's, and may be opened beside it, in its
            process or another; by a user who may not write the files, while nobody else does.
        at: which commit a snapshot shows: its id, its tag, or what :meth:`Heap.history` gave for
            it. None: the newest.
        capacity: bytes of address space to reserve, the most the heap can grow to while it is
            open. Costs no memory. 1 MiB to 4 TiB.
        tracker: how written pages are found: ``"auto"`` takes userfaultfd by system call, else by
            device node, else ``"compare"`` (every page against its committed image: slower, same
            results). ``"uffd"``, ``"uffd-dev"``, ``"compare"`` force one. The environment variable
            ``DIRTYHEAP_TRACKER`` says what ``"auto"`` means.
        allow_pickle: True: values stored as :class:`Pickled` are read. That runs whatever code the
            heap's author chose: only for heaps that you trust. False: reading one is a HeapError.
        keep: which commits can be opened later, tagged ones aside: an int for the last n, a
            timedelta for those younger than it and the last one. What is older goes with the next
            fold or change of a tag, or when its base files are replaced, for good.
        preload: True: read all of the heap into memory now, and check every page. For those who
            will touch everything: page by page later it takes several times as long.
        memory_limit: bytes of memory of its own that the heap should not take more of: pages
            written since they were last in a base file. A commit that finds more folds at once
            and gives back what it can; the memory of exported buffers and arrays it cannot, and
            what is written between two commits is not bounded by it. None: memory goes back when
            a fold is due for other reasons. At least 1 MiB.
        proof: True: every commit hashes every page of the heap in its stop, and raises
            :class:`UnreportedWriteError` when one changed that the tracker did not report: for
            tests, and where memory is written by devices. Costs about 0.2 us a page and commit,
            and 8 bytes a page. None: the environment variable ``DIRTYHEAP_PROOF`` (0 or 1) says.

    Raises:
        HeapLockedError: another process (or this one) has it open for writing.
        KeyError: there is no tag ``at``.
        HeapCorruptError: it is damaged; nothing was changed.
        HeapError: no heap is there, or one of another format; commit ``at`` is not kept.
        TrackerError: the tracker asked for does not work here.
        OSError: no file descriptor is left (EMFILE); "auto" takes no other tracker then.

    Cost: follows the number of base files (one for 4 MiB) and deltas, not what is in them: pages
    are read, and checked where a delta changes them, when they are first used. The first store
    pays for what opening left out: tens of milliseconds per GiB, and 10 us per page with deltas.

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
    >>> with dh.open(path, read_only=True, at=1) as snapshot:
    ...     dh.to_python(snapshot.root)
    {'bolts': {'m4': 39}}
    """
    if not os.fspath(path):
        raise ValueError("path is empty: give the heap's directory ('.' for the current one)")
    capacity = operator.index(capacity)
    if not CAPACITY_BYTES_MIN <= capacity <= CAPACITY_BYTES_MAX:
        raise ValueError(f"capacity={capacity}: must be from 1 MiB to 4 TiB, in bytes")
    if memory_limit is not None:
        memory_limit = operator.index(memory_limit)
        if memory_limit < MEMORY_LIMIT_MIN:
            raise ValueError(f"memory_limit={memory_limit}: must be at least 1 MiB, in bytes")
    if at is not None and not read_only:
        raise ValueError(
            "at= shows an older commit, which cannot be written to: pass read_only=True"
        )
    return Heap(
        Path(path).absolute(),
        create=create,
        read_only=read_only,
        at=commit_argument(at),
        capacity=capacity,
        tracker=tracker,
        allow_pickle=allow_pickle,
        keep=retention.check_keep(keep),
        preload=preload,
        memory_limit=memory_limit,
        proof=proof_mode.is_wanted(proof),
    )


def _current_task() -> Any:
    """The asyncio task that runs in this thread, or None; imports nothing."""
    current_task = getattr(sys.modules.get("asyncio.tasks"), "current_task", None)
    if current_task is None:
        return None
    try:
        return current_task()
    except RuntimeError:  # no loop runs in this thread
        return None


class Heap(Contents, History, Looking):
    """A persistent object graph. Made by :func:`open`; use as a context manager or close it.

    Leaving the ``with`` block closes without committing: what was not committed is gone.
    """

    def __init__(
        self,
        directory: Path,
        *,
        create: bool,
        read_only: bool,
        at: int | str | None,
        capacity: int,
        tracker: str,
        allow_pickle: bool,
        keep: retention.Keep,
        preload: bool,
        memory_limit: int | None,
        proof: bool,
    ) -> None:
        self._lock = threading.RLock()
        self._verb = ""  # the verb that holds the lock now; guards against re-entry
        self._store: Store | SnapshotStore | None = None
        self._is_read_only = read_only
        self._is_closing = False
        self._task: weakref.ref[Any] | None = None  # the asyncio task inside transaction()
        self._owner_pid = os.getpid()
        self._options = (capacity, tracker_id(tracker), bool(allow_pickle))
        self._is_preloaded, self._memory_limit = bool(preload), memory_limit
        self._is_proved = proof and not read_only
        if read_only:
            snapshots = SnapshotStore(directory)
            snapshots.load(at, self._start)
            self._store = snapshots
            return
        store = Store(directory, create=create, keep=keep)
        try:
            self._start(store)
            try:
                store.drop_orphans()
            except BaseException:
                self._core.close()
                raise
        except BaseException:
            store.close()
            raise
        self._store = store

    # --- life -------------------------------------------------------------------------------------

    def _start(self, source: Store | Source) -> None:
        """Make the core and load it: a new one each time."""
        self._core = self._new_core(self._options[1], source.meta)
        # The method below hands its keywords through, which costs as much as the record.
        self.new = self._core.new_record  # type: ignore[method-assign]
        try:
            self._ptr = ffi.cast("dh_heap *", self._core.address)
            self._folder = Folder(self._ptr, weakref.ref(self), self._memory_limit)
            self._collector = Collector(self._ptr, weakref.ref(self), self._options[0])
            self._committer = Committer(self._ptr, self._folder)
            self._savepoints = Savepoints(self._core, self._ptr)
            if isinstance(source, Store):
                lib.dh_fork_guard_fd(self._ptr, source.lock_fd)
            else:
                lib.dh_heap_set_read_only(self._ptr)
            if self._is_proved:
                check(lib.dh_heap_prove(self._ptr), self._ptr)
            load(self._ptr, source, source.last, preload=self._is_preloaded)
            if isinstance(source, Store):
                self._core.set_on_due(self._collector.due)
                self._collector.begin()
        except BaseException:
            self._core.close()
            raise

    def _new_core(self, tracker: int, meta: Mapping[str, Any]) -> _native.Core:
        capacity, _, allow_pickle = self._options
        key = meta["hash_key"]
        core = _native.Core(
            capacity, tracker, int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
        )
        core.allow_pickle = allow_pickle
        return core

    def _load_beside(self, record: Record) -> _native.Core:
        """A second core that shows a kept commit; whoever asks for it closes it."""
        store = self._writable_store()
        core = self._new_core(lib.DH_TRACKER_COMPARE, store.meta)
        try:
            ptr = ffi.cast("dh_heap *", core.address)
            lib.dh_heap_set_read_only(ptr)
            load(ptr, store, record)
        except BaseException:
            core.close()
            raise
        return core

    def _snapshot(self, at: int | str | None) -> Heap:
        """Another heap object that shows a kept commit, and reads no pickles."""
        capacity, _, _ = self._options
        return Heap(
            self.path,
            create=False,
            read_only=True,
            at=at,
            capacity=capacity,
            tracker="compare",
            allow_pickle=False,
            keep=1,
            preload=False,
            memory_limit=None,
            proof=False,
        )

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

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Neither pickled nor copied: a second object would close the store under the first."""
        raise TypeError(
            "a Heap cannot be pickled or copied: backup() copies its files, dirtyheap.to_python() "
            "its contents"
        )

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
            if not self._core.closed:
                self._savepoints.end_all("the heap was closed")
                self._folder.close()
                self._collector.close()
            exports = self._core.exports_count
            self._core.close()
            self._store.close()
            self._store = None
        self._folder.join()
        self._collector.join()
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
        """Id of the last commit, 0 before the first; of a snapshot, of the commit that it shows."""
        last = self._open_store().last
        return last.id if last else 0

    @property
    def read_only(self) -> bool:
        """True for a snapshot."""
        return self._is_read_only

    def _open_store(self) -> Store | SnapshotStore:
        if self._store is None or self._is_closing:
            raise HeapClosedError("the heap is closed")
        return self._store

    def _writable_store(self) -> Store:
        store = self._open_store()
        assert isinstance(store, Store)  # see guard.exclusive
        return store

    def _refuse_read_only(self, verb: str) -> None:
        if self._is_read_only:
            raise ReadOnlyError(
                f"{verb} changes the heap, which is open for reading only: open it without "
                "read_only=True"
            )

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
        if poison := self._committer.poison or self._folder.poison:
            raise HeapPoisonedError(poison)
        if self._core.undo_failed:
            raise HeapPoisonedError(
                "a transaction could not be undone, or ended in another thread or order than it "
                "began: close the heap and open it again at its last commit"
            )

    def _refuse_in_transaction(self, verb: str) -> None:
        if self._core.in_transaction:
            raise HeapError(f"{verb} inside transaction(): leave the block first")

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
            UnreportedWriteError: (proof mode) pages changed past the watch. Nothing was committed;
                they are in the next commit.

        Cost: follows the pages written since the last commit, plus about 1 ns per page of heap.
        """
        began_ns = time.perf_counter_ns()
        if not isinstance(note, str):
            raise TypeError(f"note must be a str, not {type(note).__name__}")
        return self._commit(note, began_ns)

    @exclusive("commit()")
    def _commit(self, note: str, began_ns: int) -> Commit:
        self._refuse_in_transaction("commit()")
        return self._commit_now(note, began_ns)

    def _commit_now(self, note: str, began_ns: int) -> Commit:
        store = self._writable_store()
        before = store.last
        try:
            commit = self._committer.commit(store, note, began_ns)
        except BaseException as error:
            # When the changes are where they were, savepoints stand. Without a note an interrupted
            # commit may have had nothing to store, and taken the dirty set all the same.
            is_put_back = store.last is before and (note != "" or isinstance(error, Exception))
            if not is_put_back or self._committer.poison:
                self._savepoints.end_all("the heap was committed")
            raise
        self._savepoints.end_all("the heap was committed")
        return commit

    # --- fold -------------------------------------------------------------------------------------

    @exclusive("fold()")
    def fold(self) -> int:
        """Merge all deltas into base files; returns how many extents were rewritten.

        Changes nothing that a user sees; makes the next open faster, gives disk space back to the
        store, and memory that holds only what is in base files now back to the page cache (except
        that of exported buffers and arrays). Commits that ``keep`` does not ask for go with it.
        Other threads go on reading and storing meanwhile, but for a short stop per extent; their
        commits wait.

        Runs by itself when there are many deltas: after a commit, in a thread of its own, and
        commits go on meanwhile. One that is under way then is finished in this call.

        Raises:
            CommitError: it could not be written (disk full, I/O error); nothing has changed.
        """
        return self._folder.fold(self._writable_store())

    @exclusive("a fold in the background")
    def _take_fold_step(self, step: Callable[[], None]) -> None:
        step()

    # --- going back -------------------------------------------------------------------------------

    @exclusive("rollback()")
    def rollback(self) -> int:
        """Go back to the last commit; returns the pages restored. Cost follows the pages written.

        Containers that the commit holds stay valid objects with their old contents; those made
        since raise StaleObjectError.
        """
        self._refuse_in_transaction("rollback()")
        self._savepoints.end_all("the heap went back to its last commit")
        return show(self._ptr, ffi.NULL)

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
        self._refuse_read_only("transaction()")
        task = _current_task()
        if not self._core.in_transaction:
            self._task = None if task is None else weakref.ref(task)
        elif task is not (None if self._task is None else self._task()):
            raise HeapError(
                "another asyncio task is inside a transaction() of this heap: they cannot be "
                "interleaved; guard them with one asyncio.Lock, or leave no await inside the block"
            )

    @exclusive("transaction()")
    def _commit_transaction(self, began_ns: int) -> None:
        self._commit_now("", began_ns)

    def hold(self) -> AbstractContextManager[Heap]:
        """No commit, rollback or collection of another thread falls inside the block: for groups
        of stores that belong together, and for writers that do not hold the GIL."""
        return self._core.block(self, self._lock, self._open_store, None)
