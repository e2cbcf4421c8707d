"""The store: a directory with an LMDB index, base files beside it, and a writer's lock.

The conductor: it takes the lock, opens the environment, and is the only one who writes. What rows
look like is rows.py, what a transaction shows index.py, what may go retention.py.

One commit is one write transaction with one record; a small delta stands in it, a larger one in
rows beside it. What a record names is durable before it: chunks by the transaction's order, base
files by fsync of file and directory. The store knows nothing of pages; it keeps and returns bytes.
It must never hold a read transaction beyond one call: that would keep LMDB from reusing space.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import lmdb

from . import index, pruning, retention, rows
from .base_files import BASE_NAME, BaseFiles, Extent
from .environments import DATA_NAME, READERS_NAME, WriterLease, refuse_links
from .errors import CommitError, HeapCorruptError, HeapError, HeapPoisonedError
from .index import Index
from .rows import PAGE_BYTES, Record, Tag, body_hash
from .syncing import sync_directory
from .writer_lock import LOCK_NAME, WriterLock

__all__ = ["PAGE_BYTES", "Record", "Store", "Tag", "body_hash"]

_OWN_NAMES: Final = {DATA_NAME, READERS_NAME, LOCK_NAME, BASE_NAME}
_Result = TypeVar("_Result")


class Store:
    """One heap's directory, open for writing.

    All methods need the heap's lock. ``last`` is the newest durable record, or None; ``extents``
    the newest version of every extent.
    """

    def __init__(self, directory: Path, *, create: bool, keep: retention.Keep = 1) -> None:
        self.directory = directory
        self.keep = keep
        is_new = _prepare_directory(directory, create=create)
        self._lock = WriterLock(directory)
        try:
            self._open(is_new)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, is_new: bool) -> None:
        data = self.directory / DATA_NAME
        refuse_links(self.directory)
        # Made after the index's name is durable, and durable before the first commit.
        has_base = (self.directory / BASE_NAME).exists()
        if not has_base:
            self._clear_cut_short(data)
        if data.exists() and data.stat().st_size > 0:
            if index.check_index(data) != 0:
                raise HeapError(f"{data} is being written by somebody who does not hold the lock")
            is_new = False
        elif has_base:
            raise HeapCorruptError(f"{data} is missing or empty: what the heap held is not known")
        self._lease = WriterLease(self.directory)
        self._environment = self._lease.environment
        self._env = self._environment.env
        try:
            self._base = BaseFiles(self.directory)
            self._env.reader_check()  # those who were killed while they opened a snapshot
            self._open_databases(is_new)
            if not has_base:  # which says that there was an index
                sync_directory(self.directory)
            is_base_new = self._base.create()
            self.last: Record | None = None
            self._versions: dict[int, list[Extent]] = {}
            self._is_stale = False
            self._refresh()
            if self.last is None or is_base_new:
                # The names of the heap and of what is in it. Not only where they were made: that
                # process may have been killed before it came to this.
                sync_directory(self.directory)
                sync_directory(self.directory.parent)
        except lmdb.Error as error:
            self._lease.release()
            raise HeapError(f"cannot open {self.directory}: {error}") from error
        except BaseException:
            self._lease.release()
            raise

    def _clear_cut_short(self, data: Path) -> None:
        """Let the making of a heap be begun again where a power failure cut it short."""
        if not data.exists() or _foreign_names(self.directory):
            return
        try:
            index.check_index(data)
        except HeapError:
            if index.is_cut_short(data):
                os.truncate(data, 0)

    def _open_databases(self, is_new: bool) -> None:
        with self._env.begin() as txn:
            is_empty = txn.stat()["entries"] == 0 and self._base.is_empty()
        # A file without any database is one whose creation was cut short; beside files that are
        # not ours it is somebody else's.
        is_new = is_new or (is_empty and not _foreign_names(self.directory))
        if is_new:
            with (
                self._environment.writing,
                self._env.begin(write=True) as txn,
            ):  # all of it or nothing
                index.create_databases(self._env, txn)
        self._databases, self.meta = index.open_databases(self._env, self.directory)
        self._lease.publish(self._databases, self.meta)

    # --- reading -----------------------------------------------------------------------------

    def _index(self, txn: lmdb.Transaction) -> Index:
        return Index(self._databases, txn)

    @contextmanager
    def _look(self, *, buffers: bool = False) -> Iterator[Index]:
        """One read transaction. A failure of the engine says nothing of what is stored."""
        try:
            with self._env.begin(buffers=True) if buffers else self._env.begin() as txn:
                yield self._index(txn)
        except lmdb.MemoryError as error:
            raise MemoryError(f"cannot read {self.directory}: {error}") from error
        except lmdb.Error as error:
            raise HeapError(f"cannot read {self.directory}: {error}") from error

    def _refresh(self) -> list[Extent]:
        """Read anew what is remembered of the index; returns the base files that it named before
        and names no more. After a failure everybody who needs it does this first."""
        self._is_stale = True
        with self._look() as look:
            last, last_hash = look.last()
            versions = look.extents(last.id if last else 0)
            look.oldest(last.id if last else 0)  # damage is found at open, not in a fold
        delta_bytes = 0
        if last is not None:
            with self._look(buffers=True) as look:  # values are not copied
                delta_bytes = look.delta_bytes(last)
        gone = _gone(_all(self._versions), _all(versions))
        self._versions = versions
        self.extents = {number: extents[-1] for number, extents in versions.items()}
        self.delta_bytes = delta_bytes
        self._kept: retention.Needs | None = None
        self._prune_from: int | None = 0
        self.deltas_count = last.id - last.fold if last else 0
        self.last, self._last_hash = last, last_hash  # at the end: see adopt
        self._is_stale = False
        return gone

    def _ensure_fresh(self) -> None:
        if self._is_stale:
            self._refresh()

    def record(self, commit: int) -> Record:
        """The record of one commit; HeapCorruptError when it is not stored."""
        with self._look() as look:
            return look.record(commit)

    def find(self, at: int | str | None) -> Record | None:
        """The record of a kept commit by its id or tag; see :meth:`Index.find`."""
        with self._look() as look:
            return look.find(at)

    def history(self) -> tuple[list[Record], list[Tag]]:
        """The records of all commits that can be opened, ascending, and all tags."""
        with self._look() as look:
            return look.history()

    def tagged(self) -> tuple[dict[int, Record], list[Tag]]:
        """The records of all tagged commits by id, and all tags."""
        with self._look() as look:
            return look.tagged()

    def tag(self, name: str) -> Tag:
        """One tag; KeyError with the names there are."""
        with self._look() as look:
            return look.tag(name)

    def extents_at(self, commit: int) -> list[Extent]:
        """The base files that a kept commit sees: of each extent the newest not after it."""
        self._ensure_fresh()
        return extents_at(self._versions, commit)

    def deltas_of(self, record: Record) -> Iterator[bytes]:
        """Every chunk between a commit's fold point and it, in order; see :meth:`Index.deltas`."""
        with self._look() as look:
            yield from look.deltas(record)

    def open_base(self) -> int:
        """A descriptor of the directory of base files; the caller closes it."""
        return self._base.open_directory()

    def base_is_missing(self, error: FileNotFoundError) -> Exception:
        """What it means that a base file, or all of them, are not there."""
        return HeapCorruptError(error.strerror or "a base file is missing")

    def locate(self, extent: Extent) -> int:
        """A descriptor of an extent's base file; the caller closes it."""
        try:
            return self._base.locate(extent)
        except FileNotFoundError:
            raise HeapCorruptError(f"the base file {extent.file_name} is missing") from None

    def drop_orphans(self) -> None:
        """Remove base files that the index does not name; once all of the heap has been read."""
        self._ensure_fresh()
        self._base.drop_orphans(_all(self._versions))

    # --- writing: commits --------------------------------------------------------------------

    def write_base(self, number: int, version: int, fill: Any) -> Extent:
        """A new base file, durable but for its name: see :meth:`sync_base`."""
        return self._base.write(number, version, fill)

    def begin_base(self, number: int, version: int, fill: Any) -> tuple[Extent, int]:
        """A new base file that the caller syncs by the descriptor, and closes."""
        return self._base.begin(number, version, fill)

    def patch_base(self, extent: Extent, fill: Any) -> Extent:
        """Change a base file that no record names yet; see :meth:`write_base`."""
        return self._base.patch(extent, fill)

    def sync_base(self) -> None:
        """Make the names of new base files durable."""
        self._base.sync()

    def drop_base(self, extents: list[Extent]) -> None:
        """Remove base files that the index does not name any more, or never did."""
        self._base.drop(extents)

    def append(self, record: Record, chunks: list[Any], rebased: list[Extent]) -> list[Extent]:
        """One transaction: the delta's chunks, rows of new base files, the record; base files
        that new ones replace and nothing that is kept needs leave the index. Returns these.

        Raises:
            CommitError: nothing became durable; the same call may be made again.
            HeapPoisonedError: it cannot be known whether the record became durable.
        """
        self._ensure_fresh()
        record = record.with_chunks(chunks)
        packed = record.pack()
        if record.body:
            chunks = []
        try:
            dropped, prune_from = self._write(record, packed, chunks, rebased)
        except (lmdb.Error, OSError, MemoryError) as error:
            if not self.is_durable(record):
                raise CommitError(
                    f"commit {record.id} was not written: {_told(error)}. Nothing is lost: the "
                    "changes are still in memory and in the next commit"
                ) from error
            return self._refresh()
        gone = self._note(record, packed, chunks, rebased, dropped)
        self._prune_from = prune_from
        if rebased:
            self._kept = None
        return gone

    def _write(
        self, record: Record, packed: bytes, chunks: list[Any], rebased: list[Extent]
    ) -> tuple[set[tuple[int, int]], int | None]:
        with self._environment.writing, self._env.begin(write=True) as txn:
            for number, chunk in enumerate(chunks):
                _append(txn, self._databases.deltas, rows.delta_key(record.id, number), chunk)
            for extent in rebased:
                self._put_extent(txn, extent)
            _append(txn, self._databases.commits, rows.commit_key(record.id), packed)
            written_bytes = len(packed) + sum(map(len, chunks))
            prune_from = self._prune_some(txn, record, written_bytes)
            if not rebased:
                return set(), prune_from
            needs = self._needs(txn, record)
            numbers = [extent.number for extent in rebased]
            return self._drop_versions(txn, needs, numbers, rebased), 0

    def _note(
        self,
        record: Record,
        packed: bytes,
        chunks: list[Any],
        rebased: list[Extent],
        dropped: set[tuple[int, int]],
    ) -> list[Extent]:
        self._is_stale = True
        gone = self._note_extents(rebased, dropped)
        self.delta_bytes += len(packed) + sum(len(chunk) for chunk in chunks)
        self.deltas_count += 1
        self.last, self._last_hash = record, rows.record_hash(packed)  # at the end: see adopt
        self._is_stale = False
        return gone

    def _note_extents(self, written: list[Extent], dropped: set[tuple[int, int]]) -> list[Extent]:
        gone: list[Extent] = []
        for number in {extent.number for extent in written} | {number for number, _ in dropped}:
            before = self._versions.get(number, [])
            after = _with(before, [new for new in written if new.number == number])
            after = [old for old in after if (number, old.version) not in dropped]
            gone += _gone(before, after)
            self._versions[number] = after
            self.extents[number] = after[-1]
        return gone

    def is_durable(self, record: Record) -> bool:
        """Whether exactly this record is the store's newest; asked after a commit or fold that
        failed."""
        try:
            with self._env.begin() as txn:
                last, _ = self._index(txn).last()
        except lmdb.Error as error:
            before = "the empty heap" if self.last is None else f"commit {self.last.id}"
            now = f"commit {record.id}"
            which = f"at {now}" if now == before else f"either {before} or {now}"
            raise HeapPoisonedError(
                f"the engine failed while it wrote {now} ({error}): the heap on disk is {which}; "
                "close it and open it again"
            ) from error
        return last is not None and last.nonce == record.nonce

    def adopt(self, record: Record) -> list[Extent]:
        """Take note of a commit or fold that became durable although its writer was interrupted.
        Returns what it replaced."""
        if self.last is not None and self.last.nonce == record.nonce and not self._is_stale:
            return []  # noted before the interrupt; what it replaced goes at the next open
        return self._refresh()

    def next_record(self, **fields: Any) -> Record:
        """The record of the commit after the last one."""
        self._ensure_fresh()
        last = self.last
        return Record(
            id=last.id + 1 if last else 1,
            parent=last.id if last else 0,
            parent_hash=self._last_hash,
            nonce=secrets.token_bytes(8),
            fold=last.fold if last else 0,
            **fields,
        )

    # --- writing: folds ----------------------------------------------------------------------

    def folded_records(self, commit: int) -> list[Record]:
        """The records from a commit to the last as a fold at it writes them: it is a fold point
        without a delta, and the others rest on it. Hashes chain them anew (S5), and the last one
        has a nonce of its own, by which :meth:`is_durable` tells it from what it replaces."""
        self._ensure_fresh()
        assert self.last is not None and self.last.fold <= commit <= self.last.id
        with self._look() as look:
            chain = [link for link in look.chain(self.last) if link.id >= commit]
        folded = [chain[0].folded(secrets.token_bytes(8))]
        for link in chain[1:]:
            parent_hash = rows.record_hash(folded[-1].pack())
            folded.append(replace(link, fold=commit, parent_hash=parent_hash))
        folded[-1] = replace(folded[-1], nonce=secrets.token_bytes(8))
        return folded

    def replace_base(self, folded: list[Record], extents: list[Extent]) -> list[Extent]:
        """Record new base files as of a commit, see :meth:`folded_records`; drop the deltas that
        they contain and all that no kept commit needs. Returns the base files that left the index,
        and those of the new ones that did not come into it: later commits have newer ones.

        Raises:
            CommitError: nothing was recorded.
            HeapPoisonedError: it cannot be known whether it was.
        """
        self._ensure_fresh()
        try:
            self._write_fold(folded, extents)
        except (lmdb.Error, OSError, MemoryError) as error:
            if not self.is_durable(folded[-1]):
                raise CommitError(
                    f"the fold was not recorded: {_told(error)}. Nothing is lost"
                ) from error
        return self._refresh() + self.unnamed(extents)

    def unnamed(self, extents: list[Extent]) -> list[Extent]:
        """Those of these base files that the index does not name."""
        return _gone(extents, _all(self._versions))

    def _write_fold(self, folded: list[Record], extents: list[Extent]) -> None:
        with self._environment.writing, self._env.begin(write=True) as txn:
            for extent in extents:
                self._put_extent(txn, extent)
            for record in folded:
                txn.put(rows.commit_key(record.id), record.pack(), db=self._databases.commits)
            # Its base files have it.
            pruning.delete_chunks(txn, self._databases, folded[0].id)
            numbers = {*self._versions, *(extent.number for extent in extents)}
            self._drop_versions(txn, self._needs(txn, folded[-1]), numbers, extents)

    # --- what is kept ------------------------------------------------------------------------

    def set_tag(self, tag: Tag) -> list[Extent]:
        """Name a commit that :meth:`find` found; the name may have been another commit's, which
        then is pruned. Returns the base files that left the index.

        Raises:
            HeapError: it was not written.
            HeapPoisonedError: it cannot be known whether it was.
        """

        def write(txn: lmdb.Transaction) -> None:
            before = self._index(txn).tags().get(tag.name)
            txn.put(rows.tag_key(tag.name), tag.pack(), db=self._databases.tags)
            if before is not None and before.commit != tag.commit:
                self._prune_last(txn)

        return self._change(f"the tag {tag.name!r}", write, lambda tags: tags.get(tag.name) == tag)

    def drop_tag(self, name: str) -> list[Extent]:
        """Forget a tag that is there; what only it kept is pruned. As :meth:`set_tag`."""

        def write(txn: lmdb.Transaction) -> None:
            txn.delete(rows.tag_key(name), db=self._databases.tags)
            self._prune_last(txn)

        return self._change(f"untag({name!r})", write, lambda tags: name not in tags)

    def _change(
        self,
        what: str,
        write: Callable[[lmdb.Transaction], None],
        is_done: Callable[[dict[str, Tag]], bool],
    ) -> list[Extent]:
        self._ensure_fresh()
        self._is_stale = True
        try:
            with self._environment.writing, self._env.begin(write=True) as txn:
                write(txn)
        except (lmdb.Error, OSError, MemoryError) as error:
            if not self._ask(what, lambda look: is_done(look.tags())):
                self._is_stale = False
                raise HeapError(
                    f"{what} was not written: {_told(error)}. Nothing was changed"
                ) from error
        return self._refresh()

    def _ask(self, what: str, question: Callable[[Index], _Result]) -> _Result:
        try:
            with self._env.begin() as txn:
                return question(self._index(txn))
        except lmdb.Error as error:
            raise HeapPoisonedError(
                f"the engine failed while it wrote {what} ({error}): whether it is on the disk is "
                "not known, the commits are; close the heap and open it again"
            ) from error

    def _needs(self, txn: lmdb.Transaction, last: Record) -> retention.Needs:
        """What must stay from now on, after a change at the last commit; writes it down."""
        look = self._index(txn)
        oldest = look.oldest_to_keep(last.id, self.keep, time.time())
        txn.put(rows.HISTORY_KEY, rows.pack_history(oldest), db=self._databases.meta)
        return look.needs(last.id, oldest)

    def _prune_last(self, txn: lmdb.Transaction) -> None:
        """After a change of what is kept: its base files go now, its rows with coming commits."""
        assert self.last is not None  # there is a tag
        self._drop_versions(txn, self._needs(txn, self.last), self._versions, [])

    def _prune_some(self, txn: lmdb.Transaction, record: Record, written_bytes: int) -> int | None:
        """Delete a bunch of rows that nothing needs, if it is time to; returns where the next one
        goes on, None: nothing is left."""
        if self._prune_from is None or self.last is None:
            return self._prune_from
        if not pruning.is_due(record.id, written_bytes):
            return self._prune_from
        if self._kept is None:
            look = self._index(txn)
            try:
                self._kept = look.needs(self.last.id, look.oldest(self.last.id))
            except HeapCorruptError:  # of an old commit: this one stands, verify() tells
                return None
        first = pruning.delete_some(txn, self._databases, self._kept, self._prune_from)
        return first if first < self._kept.first_of_last else None

    def _drop_versions(
        self,
        txn: lmdb.Transaction,
        needs: retention.Needs,
        numbers: Iterable[int],
        written: list[Extent],
    ) -> set[tuple[int, int]]:
        """Delete the rows of base files of these extents that nothing needs."""
        versions = {
            number: {old.version for old in self._versions.get(number, [])} for number in numbers
        }
        for extent in written:
            versions[extent.number].add(extent.version)
        ascending = {number: sorted(known) for number, known in versions.items()}
        dropped = needs.versions_dropped(ascending, ascending)
        for number, version in dropped:
            txn.delete(rows.extent_key(number, version), db=self._databases.extents)
        return set(dropped)

    def _put_extent(self, txn: lmdb.Transaction, extent: Extent) -> None:
        key = rows.extent_key(extent.number, extent.version)
        txn.put(key, rows.pack_extent(extent), db=self._databases.extents)

    # --- the end -----------------------------------------------------------------------------

    @property
    def lock_fd(self) -> int:
        """The writer lock's descriptor, for the fork guard."""
        return self._lock.fd

    def close(self) -> None:
        """Close the engine and let the next writer in."""
        self._lease.release()
        self._lock.release()


def extents_at(versions: dict[int, list[Extent]], commit: int) -> list[Extent]:
    """Of each extent the newest version that is not after a commit."""
    seen = []
    for extents in versions.values():
        version = retention.version_at([extent.version for extent in extents], commit)
        seen += [extent for extent in extents if extent.version == version]
    return seen


def _told(error: Exception) -> str:
    """What stopped a transaction, and what to do where the engine's words do not say it."""
    if isinstance(error, lmdb.MapFullError):
        # The engine leaves pages alone that the transaction before freed: hence twice.
        return (
            "the index is full: fold(), called twice, makes room in it; it gets more where "
            "'ulimit -v' allows a larger address space"
        )
    return str(error)


def _all(versions: dict[int, list[Extent]]) -> list[Extent]:
    return [extent for extents in versions.values() for extent in extents]


def _gone(before: Iterable[Extent], after: Iterable[Extent]) -> list[Extent]:
    """The base files that were named and are not any more."""
    names = {extent.file_name for extent in after}
    return [extent for extent in before if extent.file_name not in names]


def _with(before: list[Extent], written: list[Extent]) -> list[Extent]:
    """The versions of one extent, ascending, with new ones, which may replace some."""
    versions = {extent.version: extent for extent in [*before, *written]}
    return [versions[version] for version in sorted(versions)]


def _prepare_directory(directory: Path, *, create: bool) -> bool:
    """Make or accept the directory; returns whether the heap has to be made."""
    if not directory.exists():
        if not create:
            raise FileNotFoundError(f"there is no heap at {directory} (create=False)")
        directory.mkdir()
        return True
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory} is a file: a heap is a directory")
    if (directory / DATA_NAME).exists():
        return False
    if foreign := _foreign_names(directory):
        raise HeapError(
            f"{directory} is no heap and not empty (it holds {min(foreign)!r}): give a new path"
        )
    if not create:
        raise FileNotFoundError(f"there is no heap at {directory} (create=False)")
    return True


def _foreign_names(directory: Path) -> set[str]:
    return set(os.listdir(directory)) - _OWN_NAMES


def _append(txn: lmdb.Transaction, db: Any, key: bytes, value: Any) -> None:
    # put(append=True) answers False, without an exception, when the key is not beyond the last.
    if not txn.put(key, value, db=db, append=True):
        raise HeapCorruptError("the store already holds a later commit than the one being written")
