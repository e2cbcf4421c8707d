"""Rows of the index may come from anybody: whatever they hold, they are read or refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dirtyheap as dh
from dirtyheap import rows
from dirtyheap.base_files import Extent

EXAMPLES = int(os.environ.get("DH_ROWS_EXAMPLES", 150))

_NUMBERS = ("root", "hwm_pages", "serial_next", "chunks", "pages", "bytes_changed", "fold")
RECORD = rows.Record(
    id=2,
    parent=1,
    parent_hash=bytes(16),
    nonce=b"n" * 8,
    time=1.5,
    note="a note",
    body_hash=bytes(16),
    **dict.fromkeys(_NUMBERS, 1),
)
EXTENT = Extent(3, 2, 8000, 77, f"{3:08x}.{2:016x}.0123abcd")

# A sound row, and what reads it.
READERS: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "record": (RECORD.pack(), lambda row: rows.Record.unpack(row, 2)),
    "extent": (
        rows.pack_extent(EXTENT),
        lambda row: rows.unpack_extent(rows.extent_key(3, 2), row),
    ),
    "tag": (rows.Tag("release", 2, 1.5).pack(), lambda row: rows.Tag.unpack(b"release", row)),
    "meta": (rows.new_meta(), lambda row: rows.check_meta(row, "here")),
    "history": (rows.pack_history(1), lambda row: rows.unpack_history(row, 5)),
}

numbers = st.integers(-(1 << 63), (1 << 64) - 1) | st.sampled_from(
    [0, 1, 2, 1 << 32, (1 << 64) - 1]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | numbers
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def is_read(read: Callable[[bytes], Any], row: bytes) -> bool:
    """Nothing but dirtyheap's own errors, and those with a sentence."""
    try:
        read(row)
    except dh.HeapError as error:
        assert str(error)
        return False
    return True


@pytest.mark.parametrize("name", READERS)
def test_sound_rows_are_read_and_no_bit_may_differ(name: str) -> None:
    row, read = READERS[name]
    assert is_read(read, row)
    for bit in range(len(row) * 8):
        damaged = bytearray(row)
        damaged[bit // 8] ^= 1 << bit % 8
        assert not is_read(read, bytes(damaged)), bit
    for size in range(len(row)):
        assert not is_read(read, row[:size])
    assert not is_read(read, row + b"\0")


@pytest.mark.parametrize("name", READERS)
def test_no_field_breaks_a_reader(name: str) -> None:
    """Fields of any type and size under a right hash, missing ones, and ones too many."""
    row, read = READERS[name]
    fields = msgpack.unpackb(row[:-16])
    names = st.sampled_from([*fields, "more"])
    refused = 0

    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(st.dictionaries(names, values, max_size=3), st.sets(names, max_size=1))
    def run(changed: dict[str, Any], missing: set[str]) -> None:
        nonlocal refused
        now = {**fields, **changed}
        refused += not is_read(read, rows.seal({k: v for k, v in now.items() if k not in missing}))

    run()
    assert refused > EXAMPLES // 4


@pytest.mark.parametrize("name", READERS)
def test_no_bytes_break_a_reader(name: str) -> None:
    """Anything at all under a right hash: what is no map, no msgpack, or nested without end."""
    _, read = READERS[name]

    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(values.map(msgpack.packb) | st.binary(max_size=300) | st.just(b"\x91" * 5000))
    def run(packed: bytes) -> None:
        assert not is_read(read, packed + rows.record_hash(packed))

    run()


@pytest.mark.soak
def test_rows_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.EXAMPLES", 20_000)
    for name in READERS:
        test_no_field_breaks_a_reader(name)
        test_no_bytes_break_a_reader(name)
