"""What a heap's memory is made of, whatever the system's settings are."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import TRACKERS, require_tracker

import dirtyheap as dh

SIZE = 16 << 20  # several extents, each of two huge pages' size


def mappings_of(buffer: dh.Buffer) -> Iterator[dict[str, str]]:
    """What /proc/self/smaps says of the mappings that the buffer lies in."""
    view = memoryview(buffer)
    start = ctypes.addressof(ctypes.c_char.from_buffer(view))
    entries = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
    for entry in filter(None, entries):
        low, high = (int(end, 16) for end in entry.split(maxsplit=1)[0].split("-"))
        if low < start + len(view) and high > start:
            yield dict(re.findall(r"(?m)^(\w+): +(.*?)(?: kB)?$", entry))


def expect_base_pages(buffer: dh.Buffer) -> None:
    found = list(mappings_of(buffer))
    assert found
    for mapping in found:
        assert "nh" in mapping["VmFlags"].split(), mapping  # MADV_NOHUGEPAGE
        assert mapping["AnonHugePages"] == "0"


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_heap_has_no_huge_pages(path: Path, tracker: str) -> None:
    """New memory, pages of files, and pages that were stored to after a fold put files there."""
    require_tracker(tracker)
    with dh.open(path, tracker=tracker) as heap:
        heap.root["data"] = heap.buffer(SIZE)
        heap.root["data"][:] = b"\1" * SIZE
        expect_base_pages(heap.root["data"])
        heap.commit()
    with dh.open(path, tracker=tracker) as heap:
        data = heap.root["data"]
        for value in (b"\2", b"\3"):
            data[:] = value * SIZE
            expect_base_pages(data)
            heap.commit()
            heap.fold()
        expect_base_pages(data)
        assert data[-1] == 3
