"""Snapshots: a kept commit, opened for reading beside whoever writes.

    borrow the environment -> pin one read transaction -> check the index -> load -> let go

No lock of the writer is taken, nothing is written, and nothing but memory and mapped files is held
afterwards: mapped files live on though the writer unlinks them. Between the look into the index and
the opening of a base file the writer may prune that file; then the attempt begins anew, with what
the index says now.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import lmdb

from . import index
from .base_files import BaseFiles, Extent
from .environments import DATA_NAME, borrow, refuse_links, require_data
from .errors import HeapCorruptError, HeapError
from .index import Databases, Index
from .rows import Record, Tag
from .store import extents_at

# A writer that commits on and on moves on between two attempts, but not a hundred times within
# the microseconds from the look into the index to the opening of a file.
_ATTEMPTS_MAX: Final = 100
_At = int | str | None
_Result = TypeVar("_Result")


class _Pruned(Exception):
    """A base file went after the index was read."""


class Source:
    """One commit as one read transaction shows it: what is needed to load it. As the writer's
    store, for :func:`dirtyheap.loader.load`. Valid inside :meth:`SnapshotStore.load` only."""

    def __init__(self, look: Index, base: BaseFiles, record: Record | None, meta: Any) -> None:
        self.last = record
        self.meta = meta
        self._look = look
        self._base = base
        newest, _ = look.last()
        self._versions = look.extents(newest.id if newest else 0)

    def extents_at(self, commit: int) -> list[Extent]:
        """The base files that the commit sees."""
        return extents_at(self._versions, commit)

    def deltas_of(self, record: Record) -> Iterator[bytes]:
        """The chunks between the commit's fold point and it."""
        return self._look.deltas(record)

    def open_base(self) -> int:
        """A descriptor of the directory of base files; the caller closes it."""
        return self._base.open_directory()

    def base_is_missing(self, error: FileNotFoundError) -> Exception:
        """What it means that a base file is not there: that the attempt begins anew."""
        return _Pruned(error.strerror)


class SnapshotStore:
    """A heap's directory, looked at: the reading half of the store, without its lock.

    ``last`` is the record of the commit that is shown, once one was loaded; None before, and when
    nothing was committed yet.
    """

    lock_fd: Final = -1  # none is held
    delta_bytes: Final = 0

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.meta: dict[str, Any] = {}
        self.last: Record | None = None
        require_data(directory)
        refuse_links(directory)
        self._base = BaseFiles(directory)

    def load(self, at: _At, load: Callable[[Source], _Result]) -> _Result:
        """Find a kept commit by id or tag (None: the newest) and hand it to ``load``, which is
        called again, from the start, when the writer pruned a base file meanwhile.

        Raises:
            KeyError: there is no such tag.
            HeapError: there is no such commit, or it is not kept.
            HeapCorruptError: it is damaged.
        """

        def attempt(look: Index, meta: dict[str, Any]) -> _Result:
            source = Source(look, self._base, look.find(at), meta)
            result = load(source)
            self.meta, self.last = meta, source.last
            return result

        return self._attempt(attempt)

    def history(self) -> tuple[list[Record], list[Tag]]:
        """The records of all commits that can be opened now, ascending, and all tags."""
        return self._attempt(lambda look, _: look.history())

    def tagged(self) -> tuple[dict[int, Record], list[Tag]]:
        """The records of all tagged commits by id, and all tags."""
        return self._attempt(lambda look, _: look.tagged())

    def close(self) -> None:
        """Nothing is held."""

    def look(self, read: Callable[[Index, dict[str, Any]], _Result]) -> _Result:
        """What ``read`` finds in the index as it is now, and in the heap's description."""
        return self._attempt(read)

    def _attempt(self, read: Callable[[Index, dict[str, Any]], _Result]) -> _Result:
        now, before = 0, 0
        for _ in range(_ATTEMPTS_MAX):
            try:
                with borrow(self.directory, self._prepare) as shared, shared.env.begin() as txn:
                    now = txn.id()
                    return read(Index(shared.databases, txn), shared.meta)
            except lmdb.MapResizedError:
                continue  # the file grew between two steps of ours
            except lmdb.Error as error:
                raise HeapError(f"cannot read {self.directory}: {error}") from error
            except _Pruned as pruned:
                if now == before:  # nobody wrote since: it is not pruned, it is gone
                    raise HeapCorruptError(str(pruned)) from None
                before = now
        raise HeapError(
            f"{self.directory}: its writer pruned what was being read, {_ATTEMPTS_MAX} times on "
            "end; open a tagged commit, or let the writer keep more (keep=)"
        )

    def _prepare(self, env: lmdb.Environment) -> tuple[Databases, dict[str, Any]]:
        """Check an index that nobody in this process has opened yet, and open its databases. From
        the pin on a writer leaves alone what the transaction can reach."""
        with env.begin():
            check_beside_writer(self.directory / DATA_NAME)
            return index.open_databases(env, self.directory)


def check_beside_writer(data: Path) -> None:
    """:func:`index.check_index`, again until nobody wrote meanwhile."""
    for _ in range(_ATTEMPTS_MAX):
        if index.check_index(data) != errno.EAGAIN:
            return
    raise HeapError(
        f"{data} was written to, {_ATTEMPTS_MAX} times on end, while it was checked: try again"
    )
