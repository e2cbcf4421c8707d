"""Keys, hashes and indexes by docs/format.md alone: every key of every dict and set is looked for
in the index as section 8 says, under the hash that section 9 says; see format_reader.py."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Final

from format_reader import (
    BIG,
    BIGINT,
    BUCKET,
    BYTES,
    DICT,
    DIR,
    EXT,
    FLOAT,
    FROZENSET,
    RECORD,
    SET,
    SHAPE,
    STR,
    TUPLE,
    Graph,
    flags,
    require,
    to_float,
    to_int,
    type_of,
)

_MASK: Final = (1 << 64) - 1


def _rotate(x: int, bits: int) -> int:
    return (x << bits | x >> (64 - bits)) & _MASK


def siphash13(key: bytes, data: bytes) -> int:
    """SipHash with one round for each 8 bytes and three at the end."""
    k0, k1 = struct.unpack("<QQ", key)
    v0, v1 = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D
    v2, v3 = k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573
    tail = data[len(data) // 8 * 8 :]
    last = len(data) << 56 & _MASK | int.from_bytes(tail, "little")
    blocks = [*struct.unpack(f"<{len(data) // 8}Q", data[: len(data) // 8 * 8]), last]
    for rounds, block in [*((1, block) for block in blocks), (3, None)]:
        v3, v2 = (v3 ^ block, v2) if block is not None else (v3, v2 ^ 0xFF)
        for _ in range(rounds):
            v0, v2 = (v0 + v1) & _MASK, (v2 + v3) & _MASK
            v1, v3 = _rotate(v1, 13) ^ v0, _rotate(v3, 16) ^ v2
            v0 = _rotate(v0, 32)
            v2, v0 = (v2 + v1) & _MASK, (v0 + v3) & _MASK
            v1, v3 = _rotate(v1, 17) ^ v2, _rotate(v3, 21) ^ v0
            v2 = _rotate(v2, 32)
        v0 ^= block if block is not None else 0
    return v0 ^ v1 ^ v2 ^ v3


def _form_of_int(number: int) -> bytes:
    if -(1 << 63) <= number < 1 << 63:
        return b"i" + struct.pack("<q", number)
    size = (abs(number).bit_length() + 7) // 8
    return b"I" + bytes([number < 0]) + abs(number).to_bytes(size, "little")


def _form_of_float(number: float) -> bytes:
    if math.isnan(number):
        return b"f" + struct.pack("<Q", 0x7FF8000000000000)
    if number.is_integer():
        return _form_of_int(int(number))
    return b"f" + struct.pack("<d", number)


def _element(form: bytes) -> bytes:
    return form[:1] + struct.pack("<I", len(form) - 1) + form[1:]


class Keys:
    """The keys of a graph that was read."""

    def __init__(self, graph: Graph, hash_key: bytes) -> None:
        self._graph = graph
        self._hash_key = hash_key

    def check(self) -> int:
        """Look for every key in its index; returns how many there were."""
        count = 0
        for word in list(self._graph.made):
            if type_of(word) in (DICT, SET):
                count += self._check_container(word)
        return count

    # --- forms and hashes

    def form(self, word: int) -> bytes:
        """The canonical form of a key: its tag and bytes."""
        graph, kind = self._graph, type_of(word)
        if word & 1:
            return _form_of_int(to_int(word))
        if word & 7 == 2:
            text = word.to_bytes(8, "little")[1 : 1 + (word >> 3 & 7)]
            return (b"b" if word >> 6 & 1 else b"s") + text
        if word & 7 == 4:
            return _form_of_float(to_float(word))
        if kind in (BIGINT, FLOAT):
            value = graph.value(word)
            return _form_of_int(value) if kind == BIGINT else _form_of_float(value)
        if kind in (STR, BYTES):
            value = graph.value(word)
            return b"s" + value.encode("utf-8", "surrogatepass") if kind == STR else b"b" + value
        if kind in (TUPLE, FROZENSET):
            parts = [_element(self.form(part)) for part in graph.part_words(word)]
            return b"t" + b"".join(parts) if kind == TUPLE else b"z" + b"".join(sorted(parts))
        if kind == RECORD:
            return b"r" + struct.pack("<Q", graph.words(word, RECORD, 1)[0] >> 19)
        if kind == EXT:
            form, key, payload = graph.ext(word)
            require(form in (1, 2), "a packed value that can be a key")
            return key if form == 2 else b"x" + payload
        return {0x06: b"n", 0x16: _form_of_int(0), 0x26: _form_of_int(1), 0x36: _form_of_int(0)}[
            word
        ]

    def hash(self, word: int) -> int:
        """64 bits."""
        form = self.form(word)
        data = form[1:]
        if form[:1] == b"r":
            data = bytes(byte ^ 0xFF for byte in data)
        if form[:1] == b"n":
            data = struct.pack("<Q", 0x06)
        return siphash13(self._hash_key, data)

    # --- containers

    def _check_container(self, word: int) -> int:
        meta, counts, entries, index = self._graph.words(word, type_of(word), 4)
        form, used = flags(meta) & 3, to_int(counts) >> 31
        if form == 3:
            self._check_shape(index)
            return used
        width = 1 if type_of(word) == SET else 2
        numbered = list(self._numbered(entries, form, used, width))
        for number, key in numbered:
            hashed = self.hash(key)
            if form == 0:
                self._check_print(index, number, hashed)
            else:
                require(self._find(index, hashed >> 32, number), "an entry in the index")
        return len(numbered)

    def _numbered(
        self, entries: int, form: int, used: int, width: int
    ) -> Iterator[tuple[int, int]]:
        """Numbers and keys of the entries that are there."""
        if form < 2:
            yield from self._graph.numbered_keys(entries, used, width)
            return
        rows = self._graph.big_rows(self._graph.words(entries, BIG, 10))
        for row, (chunk, chunk_used) in rows.items():
            for place, key in self._graph.numbered_keys(chunk, chunk_used, width):
                yield (row - 1) * 4096 + place, key

    def _check_print(self, prints: int, place: int, hashed: int) -> None:
        found = prints >> 8 * place & 0xFF
        require(found == hashed & 0xFF | (place == 0), "a fingerprint")

    def _check_shape(self, word: int) -> None:
        count = flags(self._graph.words(word, SHAPE, 1)[0])
        _, sequence, *words = self._graph.words(word, SHAPE, 6 + count)
        number = 0x2B992DDFA23249D6
        for place, key in enumerate(words[4:]):
            hashed = self.hash(key)
            self._check_print(words[place // 8], place % 8, hashed)
            number = (number ^ hashed) * 0x9E3779B97F4A7C15 & _MASK
            number = (number ^ number >> 32) & (1 << 62) - 1
        require(number == to_int(sequence), "the number of a key sequence")

    def _find(self, index: int, hashed: int, number: int) -> bool:
        taken = 0
        while type_of(index) == DIR:
            bits = (self._graph.object_bytes(index) // 8).bit_length() - 1
            slot = (hashed << taken & 0xFFFFFFFF) >> (32 - bits)
            index = self._graph.words(index, DIR, slot + 1)[slot]
            taken += bits
        groups = self._graph.object_bytes(index) // 64
        data = struct.pack(f"<{groups * 8}Q", *self._graph.words(index, BUCKET, groups * 8))
        home = hashed & (groups - 1)
        for step in range(min(8, groups)):
            group = struct.unpack_from("<16I", data, (home ^ step) * 64)
            if (hashed, number + 1) in zip(group[:8], group[8:], strict=True):
                return True
            if 0 in group[8:]:
                return False
        return False
