"""The store: a directory with an LMDB index, base files beside it, and a writer's lock.

Databases (all integers big-endian in keys):
    meta     b"heap" -> what the heap is: format, uuid, page size, hash key
    commits  id u64 -> commit record
    deltas   id u64, chunk u32 -> one chunk of that commit's delta
    extents  number u32 -> version, size and checksum of the base file

One commit is one write transaction with the delta's few big values and one record. What a record
names is durable before it: chunks by the transaction's order, base files by fsync of file and
directory. The store knows nothing of pages; it keeps and returns bytes. It must never hold a read
transaction beyond one call: that would keep LMDB from reusing space.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeGuard

import lmdb
import msgpack

from ._ffi import ffi, lib
from .base_files import BASE_NAME, BaseFiles, Extent, is_file_name
from .errors import CommitError, HeapCorruptError, HeapError, HeapPoisonedError
from .syncing import is_sync_enabled, sync_directory
from .writer_lock import LOCK_NAME, WriterLock

FORMAT: Final = 1
PAGE_BYTES: Final = 4096
# Chosen once for the life of the file, never resized while open: sparse, address space only.
_MAP_BYTES: Final = (1 << 40, 1 << 37, 1 << 34, 1 << 31)
_DATA_NAME: Final = "data.mdb"
_OWN_NAMES: Final = {_DATA_NAME, "lock.mdb", LOCK_NAME, BASE_NAME}
_DATABASES: Final = (b"meta", b"commits", b"deltas", b"extents")
_HASH_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Record:
    """A commit record: what one commit is, and what its delta must look like."""

    id: int
    parent: int
    parent_hash: bytes
    nonce: bytes
    time: float
    note: str
    root: int
    hwm_pages: int
    serial_next: int
    chunks: int
    body_hash: bytes
    pages: int
    bytes_changed: int
    epoch: int = 0
    features_required: int = 0
    features_optional: int = 0

    def pack(self) -> bytes:
        """Encode for the store."""
        return _seal(msgpack.packb({name: getattr(self, name) for name in self.__slots__}))

    @classmethod
    def unpack(cls, data: bytes) -> Record:
        """Decode and check the types; HeapCorruptError for anything else."""
        fields = _unpack_map(data, "a commit record")
        types = {  # of the fields that are not unsigned integers of 64 bits
            "parent_hash": bytes,
            "nonce": bytes,
            "body_hash": bytes,
            "note": str,
            "time": float,
        }
        for name in cls.__slots__:
            value = fields.get(name)
            expected = types.get(name)
            if not (_is_u64(value) if expected is None else type(value) is expected):
                raise HeapCorruptError(f"a commit record has no valid {name!r}")
        if fields["features_required"]:
            raise HeapError(
                "the heap uses features that this version does not know: upgrade dirtyheap"
            )
        return cls(**{name: fields[name] for name in cls.__slots__})


def record_hash(packed: bytes) -> bytes:
    """What the next record names its parent by."""
    return hashlib.blake2b(packed, digest_size=_HASH_BYTES).digest()


def _seal(packed: bytes) -> bytes:
    """A row as it is stored: its hash behind it, for the engine's pages have no checksums."""
    return packed + hashlib.blake2b(packed, digest_size=_HASH_BYTES).digest()


def _is_u64(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 64


def _unpack_map(row: bytes, what: str) -> dict[str, Any]:
    packed = row[:-_HASH_BYTES]
    if _seal(packed) != row:
        raise HeapCorruptError(f"{what} is damaged: its hash is wrong")
    try:
        fields = msgpack.unpackb(packed, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise HeapCorruptError(f"{what} is damaged: {error}") from error
    if not isinstance(fields, dict):
        raise HeapCorruptError(f"{what} is damaged")
    return fields


def _commit_key(commit_id: int) -> bytes:
    return struct.pack(">Q", commit_id)


def _delta_key(commit_id: int, chunk: int) -> bytes:
    return struct.pack(">QI", commit_id, chunk)


class Store:
    """One heap's directory, open for writing.

    All methods need the heap's lock. ``last`` is the newest durable record, or None.
    """

    def __init__(self, directory: Path, *, create: bool) -> None:
        self.directory = directory
        is_new = _prepare_directory(directory, create=create)
        self._lock = WriterLock(directory)
        try:
            self._open(is_new)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, is_new: bool) -> None:
        data = self.directory / _DATA_NAME
        for name in (_DATA_NAME, "lock.mdb"):
            _refuse_link(self.directory / name)
        if data.exists() and data.stat().st_size > 0:
            check_index(data)
            is_new = False
        elif (self.directory / BASE_NAME).exists():  # made after the index has its first bytes
            raise HeapCorruptError(f"{data} is missing or empty: what the heap held is not known")
        self._env = _open_environment(self.directory)
        try:
            self._base = BaseFiles(self.directory)
            self._open_databases(is_new)
            is_base_new = self._base.create()
            self.extents = self._read_extents()
            self.last, self._last_hash = self._read_last()
            self.delta_bytes, self.deltas_count = 0, 0
            if self.last is None or is_base_new:
                # The names of the heap and of what is in it. Not only where they were made: that
                # process may have been killed before it came to this.
                sync_directory(self.directory)
                sync_directory(self.directory.parent)
        except lmdb.Error as error:
            self._env.close()
            raise HeapError(f"cannot open {self.directory}: {error}") from error
        except BaseException:
            self._env.close()
            raise

    def _open_databases(self, is_new: bool) -> None:
        with self._env.begin() as txn:
            is_empty = txn.stat()["entries"] == 0 and self._base.is_empty()
        # A file without any database is one whose creation was cut short; beside files that are
        # not ours it is somebody else's.
        is_new = is_new or (is_empty and not _foreign_names(self.directory))
        if is_new:
            with self._env.begin(write=True) as txn:  # all of it or nothing
                for name in _DATABASES:
                    self._env.open_db(name, txn=txn)
                txn.put(b"heap", _new_meta(), db=self._env.open_db(b"meta", txn=txn))
        try:
            self._meta, self._commits, self._deltas, self._extents = (
                self._env.open_db(name, create=False) for name in _DATABASES
            )
        except lmdb.NotFoundError:
            raise HeapError(
                f"{self.directory} holds an LMDB database that is not a dirtyheap heap"
            ) from None
        with self._env.begin(db=self._meta) as txn:
            packed = txn.get(b"heap")
        if packed is None:
            raise HeapCorruptError(f"{self.directory} has lost its description")
        self.meta = _check_meta(packed)

    # --- reading -----------------------------------------------------------------------------

    def _read_extents(self) -> dict[int, Extent]:
        extents = {}
        with self._env.begin(db=self._extents) as txn:
            for key, value in txn.cursor():
                fields = _unpack_map(value, "an extent row")
                number = int.from_bytes(key, "big")
                version, file_bytes, checksum, name = (
                    fields.get(field)
                    for field in ("version", "file_bytes", "checksum", "file_name")
                )
                if (
                    len(key) != 4
                    or not (_is_u64(version) and _is_u64(file_bytes) and _is_u64(checksum))
                    or checksum >= 1 << 32
                    or not is_file_name(name)
                ):
                    raise HeapCorruptError(f"the row of extent {number} is damaged")
                extents[number] = Extent(number, version, file_bytes, checksum, name)
        return extents

    def _read_last(self) -> tuple[Record | None, bytes]:
        with self._env.begin(db=self._commits) as txn:
            cursor = txn.cursor()
            if not cursor.last():
                return None, bytes(_HASH_BYTES)
            key, packed = cursor.item()
        record = Record.unpack(packed)
        if key != _commit_key(record.id):
            raise HeapCorruptError(f"the record of commit {record.id} stands under another id")
        return record, record_hash(packed)

    def locate(self, extent: Extent) -> int:
        """A descriptor of an extent's base file; the caller closes it."""
        try:
            return self._base.locate(extent)
        except FileNotFoundError:
            raise HeapCorruptError(f"the base file {extent.file_name} is missing") from None

    def read_deltas(self) -> Iterator[bytes]:
        """Every stored chunk in commit order, held against the records and their hashes."""
        with self._env.begin() as txn:
            for record in self._read_chain(txn):
                body = hashlib.blake2b(digest_size=_HASH_BYTES)
                for index in range(record.chunks):
                    chunk = txn.get(_delta_key(record.id, index), db=self._deltas)
                    if chunk is None:
                        raise HeapCorruptError(f"commit {record.id}: chunk {index} is missing")
                    body.update(chunk)
                    self.delta_bytes += len(chunk)
                    yield chunk
                if record.chunks and body.digest() != record.body_hash:
                    raise HeapCorruptError(f"commit {record.id}: the body's hash is wrong")
                self.deltas_count += 1

    def _read_chain(self, txn: lmdb.Transaction) -> list[Record]:
        """All records, each the child of the one before; the first is the first commit of all, or
        was folded."""
        records: list[Record] = []
        parent_hash = bytes(_HASH_BYTES)
        for value in txn.cursor(db=self._commits).iternext(False, True):
            packed = bytes(value)
            record = Record.unpack(packed)
            is_child = (
                record.parent == records[-1].id and record.parent_hash == parent_hash
                if records
                else record.parent == 0 or record.chunks == 0
            )
            if not is_child or record.id != record.parent + 1:
                raise HeapCorruptError(f"the commit before commit {record.id} is missing")
            records.append(record)
            parent_hash = record_hash(packed)
        return records

    def drop_orphans(self) -> None:
        """Remove base files that the index does not name; once all of the heap has been read."""
        self._base.drop_orphans(self.extents.values())

    # --- writing -----------------------------------------------------------------------------

    def write_base(self, number: int, version: int, fill: Any) -> Extent:
        """A new base file, durable but for its name: see :meth:`sync_base`."""
        return self._base.write(number, version, fill)

    def sync_base(self) -> None:
        """Make the names of new base files durable."""
        self._base.sync()

    def drop_base(self, extents: list[Extent]) -> None:
        """Remove base files that the index does not name any more, or never did."""
        self._base.drop(extents)

    def append(self, record: Record, chunks: list[Any], rebased: list[Extent]) -> list[Extent]:
        """One transaction: the delta's chunks, rows of new base files, the record. Returns the
        extents whose base files were replaced.

        Raises:
            CommitError: nothing became durable; the same call may be made again.
            HeapPoisonedError: it cannot be known whether the record became durable.
        """
        packed = record.pack()
        try:
            self._write(record, packed, chunks, rebased)
        except (lmdb.Error, OSError, MemoryError) as error:
            if not self.is_durable(record):
                raise CommitError(
                    f"commit {record.id} was not written: {error}. Nothing is lost: the changes "
                    "are still in memory and in the next commit"
                ) from error
        return self._note(record, packed, chunks, rebased)

    def _write(
        self, record: Record, packed: bytes, chunks: list[Any], rebased: list[Extent]
    ) -> None:
        with self._env.begin(write=True) as txn:
            for index, chunk in enumerate(chunks):
                _append(txn, self._deltas, _delta_key(record.id, index), chunk)
            for extent in rebased:
                txn.put(extent.number.to_bytes(4, "big"), _pack_extent(extent), db=self._extents)
            _append(txn, self._commits, _commit_key(record.id), packed)

    def _note(
        self, record: Record, packed: bytes, chunks: list[Any], rebased: list[Extent]
    ) -> list[Extent]:
        replaced = self._replaced_by(rebased)
        self.extents.update({extent.number: extent for extent in rebased})
        self.delta_bytes += sum(len(chunk) for chunk in chunks)
        self.deltas_count += 1
        self.last, self._last_hash = record, record_hash(packed)  # at the end: see adopt
        return replaced

    def _replaced_by(self, extents: list[Extent]) -> list[Extent]:
        olds = [(self.extents.get(extent.number), extent) for extent in extents]
        return [old for old, new in olds if old is not None and old.file_name != new.file_name]

    def is_durable(self, record: Record) -> bool:
        """Whether exactly this record is the store's newest; asked after a commit or fold that
        failed."""
        try:
            last, _ = self._read_last()
        except lmdb.Error as error:
            before = "the empty heap" if self.last is None else f"commit {self.last.id}"
            now = f"commit {record.id}"
            which = f"at {now}" if now == before else f"either {before} or {now}"
            raise HeapPoisonedError(
                f"the engine failed while it wrote {now} ({error}): the heap on disk is {which}; "
                "close it and open it again"
            ) from error
        return last is not None and last.nonce == record.nonce

    def adopt(self, record: Record, chunks: list[Any], rebased: list[Extent]) -> list[Extent]:
        """Take note of a record that became durable although its writer was interrupted."""
        if self.last is not None and self.last.nonce == record.nonce:
            return []  # noted before the interrupt; what it replaced goes at the next open
        return self._note(record, record.pack(), chunks, rebased)

    def folded_record(self) -> Record:
        """The last commit's record as a fold writes it: without a delta, and with a nonce of its
        own, by which :meth:`is_durable` tells it from what it replaces."""
        assert self.last is not None
        return replace(self.last, chunks=0, nonce=secrets.token_bytes(8))

    def replace_base(self, folded: Record, extents: list[Extent]) -> list[Extent]:
        """Record new base files as of the last commit and drop the deltas they contain; returns
        the extents that were replaced.

        Raises:
            CommitError: nothing was recorded.
            HeapPoisonedError: it cannot be known whether it was.
        """
        try:
            self._write_fold(folded, extents)
        except (lmdb.Error, OSError, MemoryError) as error:
            if not self.is_durable(folded):
                raise CommitError(f"the fold was not recorded: {error}. Nothing is lost") from error
        return self.adopt_fold(folded, extents)

    def adopt_fold(self, folded: Record, extents: list[Extent]) -> list[Extent]:
        """Take note of a fold that became durable; see :meth:`replace_base`."""
        if self.last is not None and self.last.nonce == folded.nonce:
            return []  # noted before an interrupt; what it replaced goes at the next open
        replaced = self._replaced_by(extents)
        self.extents.update({extent.number: extent for extent in extents})
        self.delta_bytes, self.deltas_count = 0, 0
        self.last, self._last_hash = folded, record_hash(folded.pack())
        return replaced

    def _write_fold(self, folded: Record, extents: list[Extent]) -> None:
        key = _commit_key(folded.id)
        with self._env.begin(write=True) as txn:
            for extent in extents:
                txn.put(extent.number.to_bytes(4, "big"), _pack_extent(extent), db=self._extents)
            _delete_all(txn, self._deltas)
            _delete_all(txn, self._commits, keep=key)
            txn.put(key, folded.pack(), db=self._commits)

    def next_record(self, **fields: Any) -> Record:
        """The record of the commit after the last one."""
        parent = self.last.id if self.last else 0
        return Record(
            id=parent + 1,
            parent=parent,
            parent_hash=self._last_hash,
            nonce=secrets.token_bytes(8),
            **fields,
        )

    @property
    def lock_fd(self) -> int:
        """The writer lock's descriptor, for the fork guard."""
        return self._lock.fd

    def close(self) -> None:
        """Close the engine and let the next writer in."""
        self._env.close()
        self._lock.release()


def body_hash(chunks: list[Any]) -> bytes:
    """Hash over all chunks of one delta."""
    body = hashlib.blake2b(digest_size=_HASH_BYTES)
    for chunk in chunks:
        body.update(chunk)
    return body.digest()


def check_index(data: Path) -> None:
    """Vouch for the engine's B-trees before the engine sees them: it aborts on damaged ones."""
    fd = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = ffi.new("char[]", 256)
        rc = lib.dh_index_check(fd, os.fstat(fd).st_size, text, 256)
    finally:
        os.close(fd)
    why = ffi.string(text).decode("utf-8", "replace")
    if rc == lib.DH_E_FORMAT:
        raise HeapError(f"{data} is not a dirtyheap index: {why}")
    if rc != 0:
        raise HeapCorruptError(f"{data}: {why or os.strerror(rc)}")


def _prepare_directory(directory: Path, *, create: bool) -> bool:
    """Make or accept the directory; returns whether the heap has to be made."""
    if not directory.exists():
        if not create:
            raise FileNotFoundError(f"there is no heap at {directory} (create=False)")
        directory.mkdir()
        return True
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory} is a file: a heap is a directory")
    if (directory / _DATA_NAME).exists():
        return False
    if foreign := _foreign_names(directory):
        raise HeapError(
            f"{directory} is no heap and not empty (it holds {min(foreign)!r}): give a new path"
        )
    if not create:
        raise FileNotFoundError(f"there is no heap at {directory} (create=False)")
    return True


def _refuse_link(path: Path) -> None:
    """The engine would follow it: into somebody's file, or into a heap with a lock of its own."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode):
        raise HeapError(f"{path} is no regular file (a link?): refused")
    if status.st_nlink > 1:
        raise HeapError(f"{path} has other names (hard links): open a copy of the heap instead")


def _foreign_names(directory: Path) -> set[str]:
    return set(os.listdir(directory)) - _OWN_NAMES


def _open_environment(directory: Path) -> lmdb.Environment:
    """Open LMDB with the largest map that the address space allows."""
    for map_bytes in _MAP_BYTES:
        try:
            return lmdb.open(
                str(directory),
                map_size=map_bytes,
                max_dbs=8,
                readahead=False,
                sync=is_sync_enabled(),
                mode=0o644,
            )
        except (lmdb.MemoryError, MemoryError):
            continue
        except lmdb.InvalidError as error:
            raise HeapError(f"{directory} is not a dirtyheap heap: {error}") from error
        except lmdb.Error as error:
            raise HeapError(f"cannot open {directory}: {error}") from error
    raise HeapError("no address space for the index: raise 'ulimit -v'")


def _new_meta() -> bytes:
    """The identity of a new heap."""
    return _seal(
        msgpack.packb(
            {
                "format": FORMAT,
                "uuid": uuid.uuid4().bytes,
                "page_bytes": PAGE_BYTES,
                "hash_key": secrets.token_bytes(16),
                "features_required": 0,
                "features_optional": 0,
            }
        )
    )


def _check_meta(packed: bytes) -> dict[str, Any]:
    meta = _unpack_map(packed, "the heap's description")
    key = meta.get("hash_key")
    if not _is_u64(meta.get("format")) or type(key) is not bytes or len(key) != 16:
        raise HeapCorruptError("the heap's description is damaged")
    if meta["format"] > FORMAT or meta.get("features_required"):
        raise HeapError(
            f"the heap was written by a newer version of dirtyheap (format {meta['format']}, "
            f"this one knows {FORMAT}): upgrade dirtyheap"
        )
    if meta.get("page_bytes") != PAGE_BYTES:
        raise HeapError(f"the heap's pages are not of {PAGE_BYTES} bytes")
    return meta


def _pack_extent(extent: Extent) -> bytes:
    return _seal(
        msgpack.packb(
            {
                "version": extent.version,
                "file_bytes": extent.file_bytes,
                "checksum": extent.checksum,
                "file_name": extent.file_name,
            }
        )
    )


def _append(txn: lmdb.Transaction, db: Any, key: bytes, value: Any) -> None:
    # put(append=True) answers False, without an exception, when the key is not beyond the last.
    if not txn.put(key, value, db=db, append=True):
        raise HeapCorruptError("the store already holds a later commit than the one being written")


def _delete_all(txn: lmdb.Transaction, db: Any, keep: bytes | None = None) -> None:
    cursor = txn.cursor(db=db)
    more = cursor.first()
    while more:
        more = cursor.next() if cursor.key() == keep else cursor.delete()
