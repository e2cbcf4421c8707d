"""A lookup that is the first thing a program does in a heap that was just opened: nothing of the
dict, set or sorted dict has been brought in yet, neither its entries nor its index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dirtyheap as dh

COUNTS = [3, 8, 9, 47, 600, 5000]


def keys(count: int) -> list[Any]:
    return [i if i % 2 else f"key number {i}" for i in range(count)]


@pytest.fixture(params=["deltas", "base files", "both"])
def filled(path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Containers of many sizes; what a lookup needs stands on several pages."""
    with dh.open(path) as heap:
        for count in COUNTS:
            heap.root[f"dict {count}"] = dict.fromkeys(keys(count), count)
            heap.root[f"set {count}"] = set(keys(count))
            heap.root[f"sorted {count}"] = heap.sorted_dict({f"{i:05}": i for i in range(count)})
        heap.commit()
        if request.param != "deltas":
            heap.fold()
        if request.param == "both":
            for count in COUNTS:
                heap.root[f"dict {count}"]["new"] = count
                heap.root[f"set {count}"].add("new")
            heap.commit()
    yield path


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("count", COUNTS)
def test_the_first_lookup(filled: Path, count: int, read_only: bool) -> None:
    wanted = keys(count)
    for key in (wanted[0], wanted[count // 2], wanted[-1]):
        with dh.open(filled, read_only=read_only) as heap:
            assert heap.root[f"dict {count}"][key] == count
        with dh.open(filled, read_only=read_only) as heap:
            assert key in heap.root[f"set {count}"]
        with dh.open(filled, read_only=read_only) as heap:
            assert heap.root[f"sorted {count}"][f"{count - 1:05}"] == count - 1
        with dh.open(filled, read_only=read_only) as heap:
            assert "absent" not in heap.root[f"dict {count}"]


@pytest.mark.parametrize("count", COUNTS)
def test_the_first_store_after_a_first_lookup(filled: Path, count: int) -> None:
    with dh.open(filled) as heap:
        found = heap.root[f"dict {count}"]
        before = len(found)
        found[keys(count)[-1]] = "replaced"
        found["another"] = 1
        assert len(found) == before + 1 and list(found)[-1] == "another"
        assert heap.verify().ok
