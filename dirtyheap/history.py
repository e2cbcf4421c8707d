"""History of a heap: which commits can be opened, and the names that keep them.

The verbs of Heap about commits other than the last; what they need of the heap is declared, not
imported: heap.py is above this module.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from .base_files import Extent
from .errors import HeapError, HeapPoisonedError
from .guard import Guarded, exclusive
from .results import Commit
from .rows import Record, Tag, why_no_tag_name

if TYPE_CHECKING:
    from .committer import Committer
    from .snapshots import SnapshotStore
    from .store import Store


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

        def _open_store(self) -> Store | SnapshotStore: ...
        def _writable_store(self) -> Store: ...

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

        A tag that is there already moves. What a kept commit costs is the base files that were
        replaced since, at most once the heap, and its deltas.

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
        """Forget a name. A commit that nothing else keeps is gone then, and its space comes back.

        Raises:
            KeyError: there is no such tag.
        """
        store = self._writable_store()
        if not isinstance(name, str):
            raise TypeError(f"a tag's name is a str, not {type(name).__name__}")
        tag = store.tag(name)
        self._change_tags(lambda: store.drop_tag(tag.name))

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
