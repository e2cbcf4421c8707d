"""Rows of the index: what they say, how they are sealed, and that they are believed only if whole.

    meta     b"heap"    -> what the heap is: format, uuid, page size, hash key
             b"history" -> the oldest commit that is kept, tags aside
    commits  id u64                    -> commit record
    deltas   id u64, chunk u32         -> one chunk of that commit's delta, as the core made it
    extents  number u32, version u64   -> size, checksum, codec and name of a base file
    tags     name in UTF-8             -> commit, time

Integers in keys are big-endian. Every row but the chunks is a msgpack map with its BLAKE2b hash
behind it (S5). Pure functions: nothing here opens, reads or writes a file. A row may come from
anybody: what is not exactly of the expected types and ranges is HeapCorruptError, never another
exception and never a guess.
"""

from __future__ import annotations

import dataclasses
import hashlib
import operator
import re
import secrets
import struct
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

import msgpack

from .base_files import Extent, is_file_name
from .errors import HeapCorruptError, HeapError

FORMAT: Final = 2
PAGE_BYTES: Final = 4096
HASH_BYTES: Final = 16
META_KEY: Final = b"heap"
HISTORY_KEY: Final = b"history"
NO_HASH: Final = bytes(HASH_BYTES)  # the parent's of the first commit
CODEC_PLAIN: Final = 0
CHUNKS_MAX: Final = (1 << 32) - 1  # of one delta
# Bits of a record's features_required.
BODY_IN_RECORD: Final = 1  # its chunks stand in the record, none in `deltas`
_FEATURES_KNOWN: Final = BODY_IN_RECORD
# A record with a body no larger than this takes two pages of the engine, and saves those of a
# second database: the leaf and the branch that every commit would write anew.
_BODY_IN_RECORD_MAX: Final = 7000
TAG_CHARACTERS_MAX: Final = 200
TAG_BYTES_MAX: Final = 500  # the engine's keys have at most 511 bytes
TIME_SECONDS_MAX: Final = 253_402_300_800  # the year 10000: beyond it no calendar of ours goes


@dataclass(frozen=True, slots=True)
class Record:
    """A commit record: what one commit is, what its delta must look like, what it rests on.

    ``fold`` is the commit whose base files its state rests on: the newest fold point not after it,
    0 when nothing was folded before. A fold point has ``fold == id`` and no chunks. ``body``: the
    chunks of a small delta; those of a larger one are rows of their own, and it is empty.
    """

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
    fold: int
    epoch: int = 0
    features_required: int = 0
    features_optional: int = 0
    body: tuple[bytes, ...] = ()

    @property
    def is_fold_point(self) -> bool:
        """Whether base files alone hold its state."""
        return self.fold == self.id

    def pack(self) -> bytes:
        """Encode for the store."""
        fields = {name: getattr(self, name) for name in _RECORD_FIELDS}
        if self.body:
            fields["body"] = self.body
        return seal(fields)

    def with_chunks(self, chunks: Sequence[Any]) -> Record:
        """The record as it is stored with these chunks: a small delta goes into it."""
        if not 0 < sum(map(len, chunks)) <= _BODY_IN_RECORD_MAX:
            return self
        required = self.features_required | BODY_IN_RECORD
        return dataclasses.replace(self, body=tuple(map(bytes, chunks)), features_required=required)

    def folded(self, nonce: bytes) -> Record:
        """The record of a fold point: without a delta, told from this one by its nonce."""
        required = self.features_required & ~BODY_IN_RECORD
        return dataclasses.replace(
            self, fold=self.id, chunks=0, nonce=nonce, body=(), features_required=required
        )

    @classmethod
    def unpack(cls, row: bytes, commit_id: int) -> Record:
        """Decode and check the record that stands under an id; HeapCorruptError for anything
        else, HeapError when it needs a newer version."""
        return cls.unpack_hashed(row, commit_id)[0]

    @classmethod
    def unpack_hashed(cls, row: bytes, commit_id: int) -> tuple[Record, bytes]:
        """The record, and the hash that the next one names it by."""
        fields, row_hash = _unseal_hashed(row, f"the record of commit {commit_id}")
        # One comparison for all fields: opening reads a record for each commit since the last fold.
        values: tuple[Any, ...] = tuple(map(fields.get, _RECORD_FIELDS))
        if not _are_valid(values):
            name = next(name for name in _RECORD_FIELDS if not _is_valid(name, fields.get(name)))
            raise HeapCorruptError(f"the record of commit {commit_id} has no valid {name!r}")
        if fields["features_required"] & ~_FEATURES_KNOWN:
            raise HeapError(
                "the heap uses features that this version does not know: upgrade dirtyheap"
            )
        values += (_body_of(fields, commit_id),)  # the last field
        record = cls(*values)
        record._check(commit_id)
        return record, row_hash

    def _check(self, commit_id: int) -> None:
        if self.id != commit_id:
            raise HeapCorruptError(f"the record of commit {self.id} stands under {commit_id}")
        if self.id != self.parent + 1 or self.fold > self.id:
            raise HeapCorruptError(f"the record of commit {self.id} contradicts itself")
        if self.is_fold_point and self.chunks:
            raise HeapCorruptError(f"commit {self.id} was folded, and has a delta all the same")
        if self.chunks > CHUNKS_MAX:
            raise HeapCorruptError(f"commit {self.id} has too many chunks")


_RECORD_FIELDS: Final = tuple(
    field.name for field in dataclasses.fields(Record) if field.name != "body"
)
# What is no int is one of these; every int is unsigned, of 64 bits.
_TYPES_OF_OTHERS: Final = {
    "parent_hash": bytes,
    "nonce": bytes,
    "body_hash": bytes,
    "note": str,
    "time": float,
}
_RECORD_TYPES: Final = tuple(_TYPES_OF_OTHERS.get(name, int) for name in _RECORD_FIELDS)
_TIME: Final = _RECORD_FIELDS.index("time")
_record_numbers: Final = operator.itemgetter(
    *(index for index, kind in enumerate(_RECORD_TYPES) if kind is int)
)


def _are_valid(values: tuple[Any, ...]) -> bool:
    numbers = _record_numbers(values)
    return (
        tuple(map(type, values)) == _RECORD_TYPES
        and min(numbers) >= 0
        and max(numbers) < 1 << 64
        and _is_time(values[_TIME])
    )


def _body_of(fields: dict[str, Any], commit_id: int) -> tuple[bytes, ...]:
    if not fields["features_required"] & BODY_IN_RECORD:
        return ()
    body = fields.get("body")
    if (
        type(body) is not list
        or not 0 < len(body) == fields["chunks"]
        or any(type(chunk) is not bytes for chunk in body)
    ):
        raise HeapCorruptError(f"the record of commit {commit_id} has no valid 'body'")
    return tuple(body)


def _is_valid(name: str, value: object) -> bool:
    """The same for one field."""
    kind = _TYPES_OF_OTHERS.get(name)
    if kind is None:
        return _is_u64(value)
    return _is_time(value) if kind is float else type(value) is kind


@dataclass(frozen=True, slots=True)
class Tag:
    """A name for a commit, which is kept as long as the tag is."""

    name: str
    commit: int
    time: float

    def pack(self) -> bytes:
        """Encode for the store."""
        return seal({"name": self.name, "commit": self.commit, "time": self.time})

    @classmethod
    def unpack(cls, key: bytes, row: bytes) -> Tag:
        """Decode and check the tag that stands under a key."""
        fields = unseal(row, "a tag")
        name, commit, time = (fields.get(field) for field in ("name", "commit", "time"))
        if type(name) is not str or why_no_tag_name(name) or tag_key(name) != key:
            raise HeapCorruptError("a tag has no valid name, or stands under another")
        if not _is_u64(commit) or commit == 0 or not _is_time(time):
            raise HeapCorruptError(f"the tag {name!r} is damaged")
        return cls(name, commit, time)


# --- extents ---------------------------------------------------------------------------------


def pack_extent(extent: Extent) -> bytes:
    """Encode for the store; number and version are in the key."""
    return seal(
        {
            "file_bytes": extent.file_bytes,
            "checksum": extent.checksum,
            "file_name": extent.file_name,
            "codec": CODEC_PLAIN,
        }
    )


def unpack_extent(key: bytes, row: bytes) -> Extent:
    """Decode and check one row; HeapError when its file is packed in a way not known here."""
    if len(key) != 12:
        raise HeapCorruptError("an extent row stands under a damaged key")
    number, version = struct.unpack(">IQ", key)
    fields = unseal(row, f"the row of extent {number}")
    file_bytes, checksum, name, codec = (
        fields.get(field) for field in ("file_bytes", "checksum", "file_name", "codec")
    )
    if (
        not (_is_u64(file_bytes) and _is_u64(checksum) and _is_u64(codec))
        or checksum >= 1 << 32
        or not is_file_name(name)
        or not name.startswith(f"{number:08x}.{version:016x}.")
    ):
        raise HeapCorruptError(f"the row of extent {number}, version {version}, is damaged")
    if codec != CODEC_PLAIN:
        raise HeapError(
            f"base files of the heap are packed with codec {codec}, which this version does not "
            "know: upgrade dirtyheap"
        )
    return Extent(number, version, file_bytes, checksum, name)


# --- meta ------------------------------------------------------------------------------------


def new_meta() -> bytes:
    """The identity of a new heap."""
    return seal(
        {
            "format": FORMAT,
            "uuid": uuid.uuid4().bytes,
            "page_bytes": PAGE_BYTES,
            "hash_key": secrets.token_bytes(16),
            "features_required": 0,
            "features_optional": 0,
        }
    )


def check_meta(row: bytes, where: object) -> dict[str, Any]:
    """What the heap is, if this version may work on it; ``where`` for the advice.

    Raises:
        HeapCorruptError: the row is damaged.
        HeapError: another version of dirtyheap wrote it, or another page size.
    """
    meta = unseal(row, "the heap's description")
    key = meta.get("hash_key")
    if not _is_u64(meta.get("format")) or type(key) is not bytes or len(key) != 16:
        raise HeapCorruptError("the heap's description is damaged")
    if meta["format"] > FORMAT or meta.get("features_required"):
        raise HeapError(
            f"the heap was written by a newer version of dirtyheap (format {meta['format']}, "
            f"this one knows {FORMAT}): upgrade dirtyheap"
        )
    if meta["format"] < FORMAT:
        raise HeapError(
            f"the heap was written by an older version of dirtyheap (format {meta['format']}): "
            f"run `python -m dirtyheap upgrade {where}`"
        )
    if meta.get("page_bytes") != PAGE_BYTES:
        raise HeapError(f"the heap's pages are not of {PAGE_BYTES} bytes")
    return meta


def pack_history(oldest: int) -> bytes:
    """The row that says from which commit on all can be opened."""
    return seal({"oldest": oldest})


def unpack_history(row: bytes | None, last: int) -> int:
    """The oldest commit that is kept, tags aside. Without the row it is the last one."""
    if row is None:
        return last
    oldest = unseal(row, "the row of the history").get("oldest")
    if not _is_u64(oldest) or not 1 <= oldest <= max(last, 1):
        raise HeapCorruptError("the row of the history is damaged")
    return oldest


# --- keys and names --------------------------------------------------------------------------


def commit_key(commit_id: int) -> bytes:
    """Of a record."""
    return struct.pack(">Q", commit_id)


def commit_of_key(key: bytes) -> int:
    """The id that a record stands under."""
    if len(key) != 8:
        raise HeapCorruptError("a commit record stands under a damaged key")
    return int.from_bytes(key, "big")


def delta_key(commit_id: int, chunk: int) -> bytes:
    """Of one chunk."""
    return struct.pack(">QI", commit_id, chunk)


def commit_of_delta_key(key: bytes) -> int:
    """The id of the commit that a chunk belongs to."""
    if len(key) != 12:
        raise HeapCorruptError("a delta chunk stands under a damaged key")
    return int.from_bytes(key[:8], "big")


def extent_key(number: int, version: int) -> bytes:
    """Of one version of an extent."""
    return struct.pack(">IQ", number, version)


def tag_key(name: str) -> bytes:
    """Of a tag whose name was checked."""
    return name.encode("utf-8", "surrogatepass")


def why_no_tag_name(name: str) -> str:
    """Why this cannot be a tag's name, or ""."""
    if not name:
        return "it is empty"
    if len(name) > TAG_CHARACTERS_MAX or len(tag_key(name)) > TAG_BYTES_MAX:
        return (
            f"it is too long: at most {TAG_CHARACTERS_MAX} characters and {TAG_BYTES_MAX} bytes "
            "in UTF-8"
        )
    if not name.isprintable() or name != name.strip():
        return "it has characters that do not print, or begins or ends with a space"
    if _looks_like_a_number(name):
        return "it looks like a number, and ids of commits are numbers"
    return ""


def _looks_like_a_number(name: str) -> bool:
    # What int() takes, other scripts' digits and underscores included.
    return re.fullmatch(r"[+-]?[\d_]+", name) is not None


# --- hashes ----------------------------------------------------------------------------------


def seal(fields: dict[str, Any]) -> bytes:
    """A row as it is stored: its hash behind it, for the engine's pages have no checksums."""
    packed: bytes = msgpack.packb(fields)
    return packed + _hash(packed)


def record_hash(row: bytes) -> bytes:
    """What the next record names its parent by."""
    return _hash(row)


def body_hasher() -> hashlib.blake2b:
    """For the hash over all chunks of one delta."""
    return hashlib.blake2b(digest_size=HASH_BYTES)


def body_hash(chunks: Iterable[Any]) -> bytes:
    """Hash over all chunks of one delta."""
    body = body_hasher()
    for chunk in chunks:
        body.update(chunk)
    return body.digest()


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=HASH_BYTES).digest()


def unseal(row: bytes, what: str) -> dict[str, Any]:
    """What a sealed row says; HeapCorruptError, naming ``what``, when it is not whole."""
    return _unseal_hashed(row, what)[0]


def _unseal_hashed(row: bytes, what: str) -> tuple[dict[str, Any], bytes]:
    """The same, and the hash of the whole row."""
    packed = row[:-HASH_BYTES]
    hasher = hashlib.blake2b(packed, digest_size=HASH_BYTES)
    seal = hasher.digest()
    if seal != row[-HASH_BYTES:]:
        raise HeapCorruptError(f"{what} is damaged: its hash is wrong")
    try:
        fields = msgpack.unpackb(packed, strict_map_key=True)
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise HeapCorruptError(f"{what} is damaged: {error}") from error
    if type(fields) is not dict:
        raise HeapCorruptError(f"{what} is damaged: it is no map")
    hasher.update(seal)
    return fields, hasher.digest()


def _is_u64(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 64


def _is_time(value: object) -> TypeGuard[float]:
    return type(value) is float and abs(value) < TIME_SECONDS_MAX  # false for a NaN
