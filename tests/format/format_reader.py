"""Reads a heap by docs/format.md alone: Python, lmdb, msgpack, and nothing of dirtyheap.

It is the proof that the document is right and complete; so it is written from it, section by
section, and must never import or copy from the library. ``Files(path)`` has rows and pages of one
commit, every checksum looked at; ``Graph(files).root()`` the contents as built-in types and the
few classes below. It trusts the golden heaps that it is for: do not use it on anybody's files.
"""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lmdb
import msgpack
from format_values import unpack_standard

PAGE: Final = 4096
TABLE: Final = 1 << 31  # bit of page numbers that are of the table
EXTENT_PAGES: Final = 1024
BODY_IN_RECORD: Final = 1  # a feature bit of records
CELL_BYTES: Final = (
    *(16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512),
    *(576, 672, 816, 1024, 1360, 2048),
)


class Damaged(Exception):
    """The bytes are not as the document says."""


def require(is_so: object, what: str) -> None:
    """Damaged unless it is so."""
    if not is_so:
        raise Damaged(what)


# --- checksums --------------------------------------------------------------------------------


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC: Final = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def page_checksum(page: bytes) -> int:
    """That of the checksums of its quarters."""
    quarters = (crc32c(page[at : at + 1024]) for at in range(0, PAGE, 1024))
    return crc32c(struct.pack("<4I", *quarters))


# --- rows and pages ---------------------------------------------------------------------------


def unseal(row: bytes) -> dict[str, Any]:
    """The msgpack map in a row, whose hash stands behind it."""
    packed, seal = row[:-16], row[-16:]
    require(hashlib.blake2b(packed, digest_size=16).digest() == seal, "the seal of a row")
    fields = msgpack.unpackb(packed)
    require(type(fields) is dict, "a row is a map")
    return dict(fields)


class Files:
    """One commit of a heap, 0: the newest; ``commits`` has the records of all."""

    def __init__(self, path: Path, commit_id: int = 0) -> None:
        self._path = path
        self._rows = _read_databases(path)
        self.meta = unseal(self._rows["meta"][b"heap"])
        require(self.meta["format"] in (1, 2), "a format that the document describes")
        require(self.meta["features_required"] == 0, "no features beyond")
        self.commits = {
            int.from_bytes(key, "big"): unseal(row) for key, row in self._rows["commits"].items()
        }
        self.tags = {key.decode(): unseal(row) for key, row in self._rows.get("tags", {}).items()}
        self.record = self.commits[commit_id or max(self.commits)]
        self._check_chain()
        self.pages: dict[int, bytearray] = {}
        self._versions: dict[int, int] = {}
        self._read_bases()
        self._apply_deltas()

    def _fold_of(self, record: dict[str, Any]) -> int:
        if self.meta["format"] > 1:
            return int(record["fold"])
        first = self.commits[min(self.commits)]
        return int(first["id"]) if first["chunks"] == 0 else 0

    def _check_chain(self) -> None:
        """From the fold point to the commit: each record the child of the one before."""
        fold = self._fold_of(self.record)
        parent_hash = bytes(16)
        for number in range(max(fold, 1), self.record["id"] + 1):
            record = self.commits[number]
            require(record["id"] == number == record["parent"] + 1, "a record's id")
            require(record["features_required"] in (0, BODY_IN_RECORD), "no features beyond")
            require(self._fold_of(record) == fold, "what a record rests on")
            if number == fold:
                require(record["chunks"] == 0, "a fold point has no delta")
            else:
                require(record["parent_hash"] == parent_hash, "the parent's hash")
            row = self._rows["commits"][struct.pack(">Q", number)]
            parent_hash = hashlib.blake2b(row, digest_size=16).digest()

    def _read_bases(self) -> None:
        chosen: dict[int, dict[str, Any]] = {}
        for key, row in sorted(self._rows["extents"].items()):  # older versions come first
            fields = unseal(row)
            if self.meta["format"] == 1:
                (number,) = struct.unpack(">I", key)
            else:
                number, fields["version"] = struct.unpack(">IQ", key)
                require(fields["codec"] == 0, "pages as they are")
            if fields["version"] <= self.record["id"]:
                chosen[number] = fields
        for number, fields in chosen.items():
            self._read_base(number, fields)

    def _read_base(self, number: int, fields: dict[str, Any]) -> None:
        data = (self._path / "base" / fields["file_name"]).read_bytes()
        require(len(data) == fields["file_bytes"], "the size of a base file")
        count = (len(data) - 28) // (PAGE + 4)
        trailer = data[count * PAGE :]
        head = struct.unpack_from("<8sQII", trailer)
        require(head == (b"DHRYEXT1"[::1], fields["version"], number, count), "a trailer's head")
        (checksum,) = struct.unpack("<I", trailer[-4:])
        is_right = checksum == fields["checksum"] == crc32c(trailer[:-4])
        require(is_right, "a trailer's checksum")
        sums = struct.unpack_from(f"<{count}I", trailer, 24)
        self._versions[number] = fields["version"]
        for index in range(count):
            page = data[index * PAGE : (index + 1) * PAGE]
            require(page_checksum(page) == sums[index], "the checksum of a page of a base file")
            self.pages[number * EXTENT_PAGES + index] = bytearray(page)

    def _apply_deltas(self) -> None:
        for number in range(self._fold_of(self.record) + 1, self.record["id"] + 1):
            record, body = self.commits[number], hashlib.blake2b(digest_size=16)
            for index in range(record["chunks"]):
                if record["features_required"] & BODY_IN_RECORD:
                    require(len(record["body"]) == record["chunks"], "all chunks in the record")
                    chunk = record["body"][index]
                else:
                    chunk = self._rows["deltas"][struct.pack(">QI", number, index)]
                body.update(chunk)
                self._apply_chunk(chunk, (record["parent"], number, index))
            if record["chunks"]:
                require(body.digest() == record["body_hash"], "the hash of a delta")

    def _apply_chunk(self, chunk: bytes, expected: tuple[int, int, int]) -> None:
        magic, *names, entries, size, zero, head_sum, body_sum = struct.unpack_from(
            "<8sQQ6I", chunk
        )
        require((magic, tuple(names), zero) == (b"DHYCHNK1", expected, 0), "a chunk's header")
        require(head_sum == crc32c(chunk[:40]), "the checksum of a chunk's header")
        require(body_sum == crc32c(chunk[48:]), "the checksum of a chunk's body")
        require(len(chunk) == 48 + 12 * entries + size, "the size of a chunk")
        at = 48 + 12 * entries
        for entry in range(entries):
            fields = struct.unpack_from("<IIHBB", chunk, 48 + 12 * entry)
            if self._versions.get(fields[0] // EXTENT_PAGES, 0) < expected[1]:
                self._apply_entry(*fields, chunk[at : at + fields[2]])
            at += fields[2]

    def _apply_entry(
        self, number: int, checksum: int, size: int, form: int, zero: int, payload: bytes
    ) -> None:
        require(form in (1, 2, 3, 4) and zero == 0 and len(payload) == size, "an entry")
        page = self.pages.setdefault(number, bytearray(PAGE))
        if form in (2, 4):
            page[:] = bytes(PAGE)
        if form == 3:
            page[:] = payload
        if form in (1, 2):
            _apply_diff(page, payload)
        if form != 4:
            require(len(page) == PAGE and page_checksum(page) == checksum, "a resulting page")

    def at(self, offset: int, size: int) -> bytes:
        """Bytes of the arena."""
        first, last = offset // PAGE, (offset + size - 1) // PAGE
        zeros = bytearray(PAGE)
        data = b"".join(self.pages.get(number, zeros) for number in range(first, last + 1))
        return data[offset - first * PAGE :][:size]

    def kind(self, page_number: int) -> int:
        """What the allocation table says of a page."""
        page = self.pages[TABLE + page_number // 113]
        return page[page_number % 113 * 36]

    def cell_bytes(self, offset: int) -> int:
        """The size of the cell there, of a run its first page."""
        kind = self.kind(offset // PAGE)
        require(kind in (4, 5) or 8 <= kind < 8 + 2 * len(CELL_BYTES), "a page with objects")
        return PAGE if kind < 8 else CELL_BYTES[(kind - 8) // 2]


def _read_databases(path: Path) -> dict[str, dict[bytes, bytes]]:
    rows: dict[str, dict[bytes, bytes]] = {}
    with lmdb.open(str(path), readonly=True, lock=False, max_dbs=8) as environment:
        for name in ("meta", "commits", "deltas", "extents", "tags"):
            try:
                database = environment.open_db(name.encode(), create=False)
            except lmdb.NotFoundError:
                continue
            with environment.begin(db=database) as transaction:
                rows[name] = {bytes(key): bytes(row) for key, row in transaction.cursor()}
    return rows


def _apply_diff(page: bytearray, diff: bytes) -> None:
    at = 0
    while at < len(diff):
        (head,) = struct.unpack_from("<H", diff, at)
        first, count = head & 511, (head >> 9) + 1
        page[first * 8 : (first + count) * 8] = diff[at + 2 : at + 2 + count * 8]
        at += 2 + count * 8


# --- words ------------------------------------------------------------------------------------

EMPTY: Final = 0
DELETED: Final = 4 << 4 | 6
_CONSTANTS: Final = {0x06: None, 0x16: False, 0x26: True, 0x36: 0.0}
STR, BYTES, FLOAT, BIGINT, TUPLE, DICT, LIST, BUFFER, SET, DEQUE, SORTED, ARRAY = range(1, 13)
RECORD, FROZENSET, EXT, ENTRIES, BUCKET, DIR, BIG, LEAF, NODE, DATA, RNODE = range(13, 24)
SORTED_LEAF, SORTED_NODE, SHAPE, VALUES, CLASS, SHAPES, FIELDS, CLASSES = range(24, 32)


def type_of(word: int) -> int:
    """The type of a ref; 0 for any other word."""
    return word >> 3 & 31 if word & 7 == 0 and word != EMPTY else 0


def to_int(word: int) -> int:
    """The value of an int word."""
    require(word & 1, "an int word")
    return (word >> 1) - (1 << 63 if word >> 63 else 0)


def to_float(word: int) -> float:
    """The value of a float word."""
    bits = word >> 5 | (word >> 4 & 1) << 63 | (8 if word >> 3 & 1 else 7) << 59
    return float(struct.unpack("<d", struct.pack("<Q", bits))[0])


def flags(meta: int) -> int:
    """Those in the first word of a head."""
    require(meta & 15 == 14, "the first word of a head")
    return meta >> 4 & 0x7FFF


# --- the graph --------------------------------------------------------------------------------


class SortedDict(dict[Any, Any]):
    """A dict whose entries are in the order of their keys."""


@dataclass(eq=False)
class Record:
    """A record as it was stored."""

    name: str
    fields: dict[str, Any]


@dataclass(eq=False)
class Array:
    """An array: items in the order of C."""

    dtype: Any
    shape: tuple[int, ...]
    items: bytes


@dataclass(frozen=True)
class Packed:
    """A packed value with a code from 64 on."""

    code: int
    data: bytes


class Graph:
    """What the root of a commit leads to."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self.made: dict[int, Any] = {}  # containers, by the word that leads to them

    def root(self) -> dict[Any, Any]:
        """The dict at the top."""
        contents = self.value(self._files.record["root"])
        require(type(contents) is dict, "the root is a dict")
        return dict(contents)

    def words(self, word: int, kind: int, count: int) -> tuple[int, ...]:
        """The first words of the cell behind a ref."""
        require(type_of(word) == kind, f"a ref to type {kind}, not {type_of(word)}")
        return struct.unpack(f"<{count}Q", self._files.at((word >> 8) * 8, count * 8))

    def object_bytes(self, word: int) -> int:
        """The size of the object behind a ref; of a run, of its first page."""
        return self._files.cell_bytes((word >> 8) * 8)

    def value(self, word: int) -> Any:
        """What a word stands for."""
        if word & 1:
            return to_int(word)
        if word & 7 == 2:
            data = word.to_bytes(8, "little")[1 : 1 + (word >> 3 & 7)]
            return data if word >> 6 & 1 else data.decode("utf-8", "surrogatepass")
        if word & 7 == 4:
            return to_float(word)
        if word in _CONSTANTS:
            return _CONSTANTS[word]
        kind = type_of(word)
        if kind in self._scalars:
            return self._scalars[kind](self, word)
        if word not in self.made:
            require(kind in self._containers, f"a word {word:#x} that is a value")
            self._containers[kind](self, word)
        return self.made[word]

    # --- values

    def _sized(self, word: int, shift: int) -> tuple[int, bytes]:
        offset = (word >> 8) * 8
        (head,) = struct.unpack("<I", self._files.at(offset, 4))
        return head, self._files.at(offset + 4, head >> shift)

    def _str(self, word: int) -> str:
        return self._sized(word, 0)[1].decode("utf-8", "surrogatepass")

    def _bytes(self, word: int) -> bytes:
        return self._sized(word, 0)[1]

    def _float(self, word: int) -> float:
        return float(struct.unpack("<d", self._files.at((word >> 8) * 8, 8))[0])

    def _bigint(self, word: int) -> int:
        head, magnitude = self._sized(word, 1)
        number = int.from_bytes(magnitude, "little")
        return -number if head & 1 else number

    def part_words(self, word: int) -> tuple[int, ...]:
        """Those of a tuple or frozenset."""
        count = to_int(self.words(word, type_of(word), 1)[0]) & 0xFFFFFFFF
        return self.words(word, type_of(word), 1 + count)[1:]

    def _parts(self, word: int) -> Iterator[Any]:
        return map(self.value, self.part_words(word))

    def ext(self, word: int) -> tuple[int, bytes, bytes]:
        """Form, key (of form 2) and payload of a packed value."""
        offset = (word >> 8) * 8
        (head,) = struct.unpack("<I", self._files.at(offset, 4))
        offset += 4
        key = b""
        require(head & 3 < 3, "a packed value's form")
        if head & 3 == 2:
            (key_size,) = struct.unpack("<I", self._files.at(offset, 4))
            key = self._files.at(offset + 4, key_size)
            offset += 4 + key_size
        return head & 3, key, self._files.at(offset, head >> 2)

    def _ext(self, word: int) -> Any:
        payload = self.ext(word)[2]
        if payload[0] >= 64:
            return Packed(payload[0], payload[1:])
        return unpack_standard(payload[0], payload[1:])

    # --- dicts and sets

    def _dict(self, word: int) -> None:
        made = self.made[word] = {}
        for key, value in self._entries(word, DICT, 2):
            made[self.value(key)] = self.value(value)

    def _set(self, word: int) -> None:
        # A dict without values: a set would lose the order.
        made = self.made[word] = SetInOrder()
        for (key,) in self._entries(word, SET, 1):
            made[self.value(key)] = None

    def _entries(self, word: int, kind: int, width: int) -> Iterator[tuple[int, ...]]:
        meta, counts, entries, index = self.words(word, kind, 4)
        require(flags(meta) >> 2 & 1 == (width == 1), "a set has no values")
        used, live = to_int(counts) >> 31, to_int(counts) & 0x7FFFFFFF
        form = flags(meta) & 3
        if form == 3:
            found = list(self._shaped_entries(entries, index, used))
        elif form == 2:
            found = list(self._big_entries(entries, width))
        else:
            found = list(self._cell_entries(entries, used, width))
        require(len(found) == live, "the number of entries")
        return iter(found)

    def _shaped_entries(self, values: int, shape: int, used: int) -> Iterator[tuple[int, ...]]:
        keys = self.words(shape, SHAPE, 6 + used)[6:]
        for key, value in zip(keys, self.words(values, VALUES, used), strict=True):
            if value != DELETED:
                yield key, value

    def _cell_entries(self, cell: int, used: int, width: int) -> Iterator[tuple[int, ...]]:
        words = self.words(cell, ENTRIES, used * width) if used else ()
        for at in range(0, used * width, width):
            if words[at] & 0xFF != DELETED:
                yield words[at : at + width]

    def numbered_keys(self, cell: int, used: int, width: int) -> Iterator[tuple[int, int]]:
        """Places and keys of the entries that are there."""
        words = self.words(cell, ENTRIES, used * width) if used else ()
        for place, key in enumerate(words[::width]):
            if key & 0xFF != DELETED:
                yield place, key

    def _big_entries(self, big: int, width: int) -> Iterator[tuple[int, ...]]:
        for chunk, used in self.big_rows(self.words(big, BIG, 10)).values():
            yield from self._cell_entries(chunk, used, width)

    def big_rows(self, big: tuple[int, ...]) -> dict[int, tuple[int, int]]:
        """Chunk and used entries of the rows of a big dict, in their order."""
        rows = list(self._vector(big[:3]))
        row = to_int(big[3])
        found = {}
        while row != 0:
            chunk, counts, links, _ = rows[4 * (row - 1) : 4 * row]
            found[row] = chunk, to_int(counts) & 0xFFFF
            row = to_int(links) & 0x7FFFFFFF
        return found

    # --- lists and deques

    def _list(self, word: int) -> None:
        meta, *vector = self.words(word, LIST, 4)
        made = self.made[word] = []
        made.extend(map(self.value, list(self._vector(vector))[flags(meta) :]))

    def _deque(self, word: int) -> None:
        meta, *vector, maxlen, _ = self.words(word, DEQUE, 6)
        limit = None if maxlen == 0x06 else maxlen >> 1
        made: deque[Any] = deque(maxlen=limit)
        self.made[word] = made
        made.extend(map(self.value, list(self._vector(vector))[flags(meta) :]))

    def _vector(self, vector: Any) -> Iterator[int]:
        length, root, depth = to_int(vector[0]), vector[1], to_int(vector[2])
        return self._subtree(root, depth, length) if length else iter(())

    def _subtree(self, word: int, depth: int, slots: int) -> Iterator[int]:
        """The words of so many slots below a node."""
        if depth == 0:
            yield from self.words(word, LEAF, slots)
        elif type_of(word) == RNODE:
            page = self.words(word, RNODE, 512)
            count = to_int(page[0])
            starts = [*map(to_int, page[256 : 256 + count]), slots]
            for child in range(count):
                size = starts[child + 1] - starts[child]
                yield from self._subtree(page[1 + child], depth - 1, size)
        else:
            full = 512**depth
            for child in self.words(word, NODE, -(-slots // full)):
                yield from self._subtree(child, depth - 1, min(full, slots))
                slots -= full

    # --- the rest

    def _sorted(self, word: int) -> None:
        meta, length, root, _ = self.words(word, SORTED, 4)
        made = self.made[word] = SortedDict()
        if root != EMPTY:
            self._sorted_below(root, flags(meta), made)
        require(len(made) == to_int(length), "the number of entries of a sorted dict")

    def _sorted_below(self, word: int, depth: int, made: dict[Any, Any]) -> None:
        if depth > 0:
            page = self.words(word, SORTED_NODE, 512)
            for child in range(to_int(page[0])):
                before = len(made)
                self._sorted_below(page[2 + child], depth - 1, made)
                require(len(made) - before == to_int(page[172 + child]), "entries below a child")
            return
        room = self.object_bytes(word) // 16 - 1
        words = self.words(word, SORTED_LEAF, 2 + 2 * room)
        count = to_int(words[0])
        for key, value in zip(words[2 : 2 + count], words[2 + room :], strict=False):
            made[self.value(key)] = self.value(value)

    def _buffer_bytes(self, word: int) -> bytes:
        _, size, data, _ = self.words(word, BUFFER, 4)
        if to_int(size) == 0:
            return b""
        require(type_of(data) == DATA, "a buffer's bytes")
        return self._files.at((data >> 8) * 8, to_int(size))

    def _buffer(self, word: int) -> None:
        self.made[word] = bytearray(self._buffer_bytes(word))

    def _array(self, word: int) -> None:
        _, buffer, description, _ = self.words(word, ARRAY, 4)
        dtype, shape, strides, offset = self.value(description)
        data = self._buffer_bytes(buffer)
        places = [offset]
        for extent, stride in zip(shape, strides, strict=True):
            places = [place + i * stride for place in places for i in range(extent)]
        size = item_bytes(dtype)
        items = b"".join(data[place : place + size] for place in places)
        self.made[word] = Array(dtype, shape, items)

    def _record(self, word: int) -> None:
        head = self.words(word, RECORD, 4)
        number = flags(head[0]) >> 1 & 255
        name, fields = self._class(self._class_numbered(number) if number else head[1])
        made = self.made[word] = Record(name, {})
        if number == 0 and flags(head[0]) & 1:
            cell, kind, before = head[2], FIELDS, 0
        else:
            cell, kind, before = word, RECORD, 0 if number else 2
        for index, (field, place) in enumerate(fields):
            at = place if number else before + index
            if at >= 0x4000:
                stored = 0x26 if flags(head[0]) >> (9 + at - 0x4000) & 1 else 0x16
            else:
                stored = self.words(cell, kind, at + 1)[at]
            if stored != EMPTY:
                made.fields[field] = self.value(stored)

    def _class_numbered(self, number: int) -> int:
        classes = self.words(self._files.record["root"], DICT, 6)[5]
        return self.words(classes, CLASSES, 256)[number]

    def _class(self, word: int) -> tuple[str, list[tuple[str, int]]]:
        count = to_int(self.words(word, CLASS, 2)[1])
        _, _, name, *rest = self.words(word, CLASS, 3 + 3 * count)
        fields = zip(rest[::3], rest[1::3], strict=True)
        return self.value(name), [(self.value(f), to_int(kinds) >> 20) for f, kinds in fields]

    _scalars: Final = {
        STR: _str,
        BYTES: _bytes,
        FLOAT: _float,
        BIGINT: _bigint,
        TUPLE: lambda self, word: tuple(self._parts(word)),
        FROZENSET: lambda self, word: frozenset(self._parts(word)),
        EXT: _ext,
    }
    _containers: Final = {
        DICT: _dict,
        SET: _set,
        LIST: _list,
        DEQUE: _deque,
        SORTED: _sorted,
        BUFFER: _buffer,
        ARRAY: _array,
        RECORD: _record,
    }


class SetInOrder(dict[Any, None]):
    """A set whose elements are in the order of insertion."""


def item_bytes(dtype: Any) -> int:
    """Bytes of one item of an array."""
    if isinstance(dtype, str):
        size = int("".join(c for c in dtype.partition("[")[0] if c.isdigit()) or 1)
        return size * (4 if dtype[1] == "U" else 1)
    if len(dtype) == 2:
        size = item_bytes(dtype[0])
        for extent in dtype[1]:
            size *= extent
        return size
    return int(dtype[0])
