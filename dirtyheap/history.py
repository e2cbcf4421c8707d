"""History of a heap: which commits can be opened, and the names that keep them.

The verbs of Heap about commits other than the last; what they need of the heap is declared, not
imported: heap.py is above this module.
"""

from __future__ import annotations

import errno
import operator
import time
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import differ, surveys
from ._ffi import check, ffi, lib
from .base_files import Extent
from .census import Growth
from .errors import HeapError, HeapPoisonedError
from .guard import Guarded, exclusive
from .results import Commit, Diff
from .rows import Record, Tag, why_no_tag_name
from .savepoints import Savepoint

if TYPE_CHECKING:
    from . import _native
    from .committer import Committer
    from .heap import Heap
    from .savepoints import Savepoints
    from .snapshots import SnapshotStore
    from .store import Store


_Result = TypeVar("_Result")


def commit_argument(commit: object) -> int | str | None:
    """How a user may name a commit: by id, by tag, by what the history gave; None: the newest.

    Raises:
        TypeError: anything else.
    """
    if isinstance(commit, Commit):
        return commit.id
    if isinstance(commit, int | str | None) and not isinstance(commit, bool):
        return commit
    raise TypeError(
        f"a commit is named by its id (int), a tag (str) or a Commit, not {type(commit).__name__}"
    )


def describe(record: Record, tags: Iterable[Tag] = ()) -> Commit:
    """A record as users see it."""
    return Commit(
        id=record.id,
        parent=record.parent,
        time=record.time,
        note=record.note,
        pages=record.pages,
        bytes_changed=record.bytes_changed,
        tags=tuple(tag.name for tag in tags if tag.commit == record.id),
    )


class History(Guarded):
    """The part of a heap that knows of its commits."""

    if TYPE_CHECKING:
        _committer: Committer
        _core: _native.Core
        _ptr: Any
        _savepoints: Savepoints

        def _open_store(self) -> Store | SnapshotStore: ...
        def _writable_store(self) -> Store: ...
        def _refuse_in_transaction(self, verb: str) -> None: ...
        def _commit_now(self, note: str, began_ns: int) -> Commit: ...
        def _load_beside(self, record: Record) -> _native.Core: ...
        def _snapshot(self, at: int | str | None) -> Heap: ...

    @exclusive("history()", writes=False)
    def history(self) -> list[Commit]:
        """The commits that can be opened, oldest first: those that ``keep`` asks for, those that
        no fold has merged yet, and the tagged ones.

        Cost: reads one record of some 200 bytes for each.

        >>> import dirtyheap as dh, tempfile, os
        >>> with dh.open(os.path.join(tempfile.mkdtemp(), "h"), keep=10) as heap:
        ...     for word in ("one", "two"):
        ...         heap.root["word"] = word
        ...         commit = heap.commit(word)
        ...     [(commit.id, commit.note) for commit in heap.history()]
        [(1, 'one'), (2, 'two')]
        """
        records, tags = self._open_store().history()
        return [describe(record, tags) for record in records]

    @exclusive("tags()", writes=False)
    def tags(self) -> dict[str, Commit]:
        """All tags, in the order of their names, and the commits that they keep."""
        records, tags = self._open_store().tagged()
        return {tag.name: describe(records[tag.commit], tags) for tag in tags}

    @exclusive("tag()")
    def tag(self, name: str, commit: int | str | Commit | None = None) -> Commit:
        """Give a commit a name, which keeps it until :meth:`untag`; returns the commit.

        A tag that is there already moves, as if by :meth:`untag`. What a kept commit costs is the
        base files that were replaced since, at most once the heap, and its deltas.

        Args:
            name: printable text of at most 200 characters (500 bytes in UTF-8), not a number.
            commit: id, tag or Commit; None: the last one. Uncommitted changes are not in it.

        Raises:
            ValueError: the name is none.
            KeyError: ``commit`` is a tag that there is not.
            HeapError: there is no such commit, or it is no longer kept; nothing was changed.

        >>> import dirtyheap as dh, tempfile, os
        >>> path = os.path.join(tempfile.mkdtemp(), "h")
        >>> with dh.open(path) as heap:
        ...     heap.root["version"] = 1
        ...     _ = heap.commit()
        ...     _ = heap.tag("release")
        ...     heap.root["version"] = 2
        ...     _ = heap.commit()
        >>> with dh.open(path, read_only=True, at="release") as snapshot:
        ...     snapshot.root["version"]
        1
        """
        if not isinstance(name, str):
            raise TypeError(f"a tag's name is a str, not {type(name).__name__}")
        if why := why_no_tag_name(name):
            raise ValueError(f"{name!r} cannot be a tag: {why}")
        store = self._writable_store()
        record = store.find(commit_argument(commit))
        if record is None:
            raise HeapError("there is no commit to tag: nothing was committed yet")
        self._change_tags(lambda: store.set_tag(Tag(name, record.id, time.time())))
        return describe(record, store.tagged()[1])

    @exclusive("untag()")
    def untag(self, name: str) -> None:
        """Forget a name. Commits that neither ``keep`` nor another tag asks for are gone then, and
        their space comes back.

        Raises:
            KeyError: there is no such tag.
        """
        store = self._writable_store()
        if not isinstance(name, str):
            raise TypeError(f"a tag's name is a str, not {type(name).__name__}")
        tag = store.tag(name)
        self._change_tags(lambda: store.drop_tag(tag.name))

    # --- other states ---------------------------------------------------------------------------

    @exclusive("restore()")
    def restore(self, commit: int | str | Commit) -> Commit:
        """Make the state of a kept commit the present one, and commit it as a new commit, whose
        note says which. What is uncommitted is gone, as after :meth:`rollback`.

        Containers that were in that state stay valid objects, with the contents they had then;
        others raise StaleObjectError from then on, even if a later restore brings them back: read
        those again from the root. Nothing of the history is lost: the commits between stay
        as long as they are kept.

        Args:
            commit: id, tag or Commit.

        Raises:
            KeyError: there is no such tag.
            HeapError: there is no such commit, it is no longer kept, or a transaction() is under
                way.
            BufferError: a view of a buffer is alive whose memory holds something else in that
                state.
            CommitError: it could not be written; the heap shows what it showed before, uncommitted
                changes included. Containers that were not in that state are stale all the same:
                read them again from the root.

        Cost: reads what differs, and the deltas since that commit's last fold.

        >>> import dirtyheap as dh, tempfile, os
        >>> with dh.open(os.path.join(tempfile.mkdtemp(), "h")) as heap:
        ...     heap.root["word"] = "good"
        ...     _ = heap.tag("before", heap.commit())
        ...     heap.root["word"] = "bad"
        ...     _ = heap.commit()
        ...     heap.restore("before").note
        ...     heap.root["word"]
        "restored commit 1 ('before')"
        'good'
        """
        began_ns = time.perf_counter_ns()
        self._refuse_in_transaction("restore()")
        if commit is None:
            raise TypeError("restore() needs a commit; rollback() goes back to the last one")
        at = commit_argument(commit)
        record = self._writable_store().find(at)
        assert record is not None  # at is not None
        note = f"restored commit {record.id}" + (f" ({at!r})" if isinstance(at, str) else "")
        core = self._load_beside(record)
        try:
            return self._show_and_commit(core, note, began_ns)
        finally:
            core.close()

    def _show_and_commit(self, core: _native.Core, note: str, began_ns: int) -> Commit:
        """Show another core's state and commit it; on failure show what was there before."""
        before = Savepoint(cast("Heap", self))
        self._savepoints.take(before)
        try:
            pages, stop_ns = ffi.new("uint64_t *"), ffi.new("uint64_t *")
            source = ffi.cast("dh_heap *", core.address)
            rc = lib.dh_show_heap(self._ptr, source, pages, stop_ns)
            if rc == errno.EBUSY:
                raise BufferError(ffi.string(lib.dh_heap_error_text(self._ptr)).decode())
            check(rc, self._ptr)
            return self._commit_now(note, began_ns)
        except BaseException:
            if not before._ended and not self._committer.poison:
                self._savepoints.rollback(before)
            raise
        finally:
            self._savepoints.end(before, "restore() is over")

    def diff(
        self, a: int | str | Commit, b: int | str | Commit | None = None, *, limit: int = 1000
    ) -> Diff:
        """What differs between two kept commits: pages and bytes, and which containers, keys,
        elements and bytes of buffers, by path from the root.

        Containers are the same by identity, not by path: one that was moved is one change. A list
        is compared from both ends; what is left between is compared place by place. Uncommitted
        changes are in neither.

        Args:
            a, b: id, tag or Commit; ``b`` None: the last commit.
            limit: how many changes are listed; the others are counted in ``Diff.more``.

        Raises:
            KeyError: there is no such tag.
            HeapError: there is no such commit, or it is no longer kept.

        Cost: opens two snapshots and walks both: time and memory follow the number of containers
        in both states. Holds no lock of the heap.

        >>> import dirtyheap as dh, tempfile, os
        >>> with dh.open(os.path.join(tempfile.mkdtemp(), "h")) as heap:
        ...     heap.root["users"] = [{"name": "Ada"}]
        ...     first = heap.commit()
        ...     heap.root["users"][0]["name"] = "Grace"
        ...     _ = heap.commit()
        ...     for change in heap.diff(first).changes:
        ...         print(change)
        changed root['users'][0]['name']: 'Ada' -> 'Grace'
        """
        return self._between("diff()", a, b, limit, differ.compare)

    def growth(
        self, a: int | str | Commit, b: int | str | Commit | None = None, *, limit: int = 20
    ) -> Growth:
        """What grew between two kept commits: by type, and by container as a path from the root.

        For finding a leak: commit, let the application work, commit, and look. Containers are the
        same by identity, wherever they stand; what was stored below one counts for the nearest
        container above it that is in both commits. ``print`` shows the result as tables.
        Uncommitted changes are in neither.

        Args:
            a, b: id, tag or Commit; ``b`` None: the last commit.
            limit: how many containers are told.

        Raises:
            KeyError: there is no such tag.
            HeapError: there is no such commit, or it is no longer kept.
            HeapCorruptError: one of them is damaged.

        Cost: opens two snapshots, reads all of both, and counts; some 150 bytes for each container
        and tuple. Holds no lock of the heap, and other threads go on.

        >>> import dirtyheap as dh, tempfile, os
        >>> with dh.open(os.path.join(tempfile.mkdtemp(), "h")) as heap:
        ...     heap.root["cache"] = {"hits": []}
        ...     heap.root["users"] = ["Ada"]
        ...     first = heap.commit()
        ...     heap.root["cache"]["hits"].extend({"page": n} for n in range(1000))
        ...     _ = heap.commit()
        ...     growth = heap.growth(first)
        >>> [(grown.path, grown.objects) for grown in growth.containers]
        [("root['cache']['hits']", 1000)]
        >>> growth.types[0].type, growth.types[0].objects
        ('dict', 1000)
        """
        return self._between("growth()", a, b, limit, surveys.growth)

    def _between(
        self, verb: str, a: Any, b: Any, limit: int, compare: Callable[[Heap, Heap, int], _Result]
    ) -> _Result:
        """What comes of two kept commits, each opened beside the heap."""
        self._refuse_in_child()
        self._open_store()
        limit = operator.index(limit)
        if limit < 0:
            raise ValueError(f"limit={limit}: must not be negative")
        first, second = commit_argument(a), commit_argument(b)
        if first is None:
            raise TypeError(f"{verb} needs a commit to begin with")
        with self._snapshot(first) as old, self._snapshot(second) as new:
            return compare(old, new, limit)

    @exclusive("savepoint()")
    def savepoint(self) -> Savepoint:
        """Remember the present state, uncommitted changes included, to go back to it.

        It lasts until the next commit; savepoints nest, in one another and in transaction()
        blocks. What is taken inside a block that is undone goes with it; what was taken before a
        block cannot be gone back to inside it.

        Cost: a copy of the pages written since the last commit.

        >>> import dirtyheap as dh, tempfile, os
        >>> heap = dh.open(os.path.join(tempfile.mkdtemp(), "h"))
        >>> heap.root["n"] = 1
        >>> savepoint = heap.savepoint()
        >>> heap.root["n"] = 2
        >>> pages = savepoint.rollback()
        >>> heap.root["n"]
        1
        >>> heap.close()
        """
        savepoint = Savepoint(cast("Heap", self))
        self._savepoints.take(savepoint)
        return savepoint

    @exclusive("Savepoint.rollback()")
    def _savepoint_rollback(self, savepoint: Savepoint) -> int:
        return self._savepoints.rollback(savepoint)

    def _savepoint_release(self, savepoint: Savepoint) -> None:
        self._refuse_in_child()
        with self._lock:
            self._savepoints.end(savepoint, "it was released")

    def _savepoint_ended(self, savepoint: Savepoint) -> bool:
        with self._lock:
            self._savepoints.notice_undone()
            return savepoint._ended != ""

    def _change_tags(self, change: Callable[[], list[Extent]]) -> None:
        try:
            gone = change()
        except HeapPoisonedError as unknown:
            self._committer.poison = str(unknown)
            raise
        try:
            self._writable_store().drop_base(gone)
        except OSError as error:  # the next open does it
            warnings.warn(
                f"an old base file could not be removed: {error}", RuntimeWarning, stacklevel=5
            )
