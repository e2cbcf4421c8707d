"""The capacity is reached, or an allocation fails, in mid-operation: nothing changes."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import (
    contents,
    fault,
    hits,
    know_shapes,
    plain,
)

import dirtyheap as dh

pytestmark = pytest.mark.timeout(180)


Operation = Callable[[Any, Any, int], Any]

OPERATIONS: dict[str, Operation] = {
    "dict set": lambda heap, root, n: root["dict"].__setitem__(f"key number {n}", n),
    "dict set ints": lambda heap, root, n: root["dict"].__setitem__(n * 7919, f"value {n} " * 9),
    "dict overwrite": lambda heap, root, n: root["dict"].__setitem__(0, "x" * 40 * n),
    "dict set nested": lambda heap, root, n: root["dict"].__setitem__(
        n, {"a": [n, {"b": "x" * 99}]}
    ),
    "dict update": lambda heap, root, n: root["dict"].update({(n, i): "y" * i for i in range(60)}),
    "dict or": lambda heap, root, n: root["dict"].__ior__({-n - i - 9: [i] for i in range(9)}),
    "dict setdefault": lambda heap, root, n: root["dict"].setdefault(f"{n}" * 20, [n]),
    "list append": lambda heap, root, n: root["list"].append("z" * 64),
    "list append nested": lambda heap, root, n: root["list"].append([{"n": n}, "text" * 20]),
    "list insert": lambda heap, root, n: root["list"].insert(3, "inserted " * 20),
    "list set": lambda heap, root, n: root["list"].__setitem__(1, "w" * 50 * n),
    "list extend": lambda heap, root, n: root["list"].extend([n] * 700),
    "list slice": lambda heap, root, n: root["list"].__setitem__(slice(1, 3), ["s" * 30] * 200),
    "list repeat": lambda heap, root, n: root["list"].__imul__(2),
    "big int": lambda heap, root, n: root.__setitem__("int", 1 << 20_000 * (n + 1)),
    "long text": lambda heap, root, n: root.__setitem__("text", "é" * 5_000 * (n + 1)),
    "bytes": lambda heap, root, n: root["list"].append(bytes(10_000)),
    "tuple": lambda heap, root, n: root["list"].append(tuple(range(n, n + 900))),
    "buffer": lambda heap, root, n: root["list"].append(heap.buffer(50_000)),
}


class PlainHeap:
    """Makes plain objects where a heap makes its own."""

    buffer = staticmethod(bytearray)


def prepare(heap: dh.Heap) -> dict[Any, Any]:
    """The same contents in the heap and in plain containers."""
    model: dict[Any, Any] = {
        "dict": {i: i for i in range(10)},
        "list": [1, "two", 3.0, None],
        "text": "",
        "int": 0,
    }
    heap.root.update(model)
    return model


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_that_finds_the_heap_full_changes_nothing(path: Path, name: str) -> None:
    """At the limit, and after room was made."""
    operation = OPERATIONS[name]
    with dh.open(path, capacity=1 << 20) as heap:
        heap.collector.automatic = False  # it would make room
        model = prepare(heap)
        full = False
        for n in range(20_000):
            try:
                operation(heap, heap.root, n)
            except dh.HeapFullError as error:
                assert "capacity" in str(error)
                full = True
                break
            operation(PlainHeap, model, n)
        assert full, "the limit was not reached"
        assert plain(heap) == model
        report = heap.verify()
        assert report.ok, report.first_problem
        heap.commit()
        with pytest.raises(dh.HeapFullError):
            operation(heap, heap.root, n)
        assert plain(heap) == model
        for container in (heap.root["dict"], heap.root["list"]):
            container.clear()
        heap.root.update(text="", int=0)
        heap.collect()
        heap.commit()  # buffers take only pages that were free at a commit
        model = prepare(heap)
        operation(heap, heap.root, 1)
        operation(PlainHeap, model, 1)
        assert plain(heap) == model
        heap.commit()
    assert contents(path) == model


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(("rc", "error"), [(-1, dh.HeapFullError), (errno.ENOMEM, MemoryError)])
def test_an_operation_whose_nth_allocation_fails_changes_nothing(
    path: Path, name: str, rc: int, error: type[Exception]
) -> None:
    """Every n, until the operation passes."""
    operation = OPERATIONS[name]
    with dh.open(path) as heap:
        model = prepare(heap)
        for n in range(120):  # some history, so that tables are about to grow
            if name not in ("list repeat", "dict overwrite", "list set", "big int", "long text"):
                operation(heap, heap.root, n)
                operation(PlainHeap, model, n)
        heap.commit()
        heap.collect()
        for failing in itertools.count():
            with fault("alloc.cell", after=failing, rc=rc):
                try:
                    operation(heap, heap.root, 121)
                    passed = True
                except error:
                    passed = False
                was_hit = hits("alloc.cell") > failing
            assert passed != was_hit, f"allocation {failing}"
            if passed:
                break
            assert plain(heap) == model, f"allocation {failing}"
            report = heap.verify()
            assert report.ok, f"allocation {failing}: {report.first_problem}"
        operation(PlainHeap, model, 121)
        assert plain(heap) == model
        heap.collect()
        assert heap.collect().freed_cells == 0
        heap.commit()
    assert contents(path) == model


def test_a_large_update_whose_nth_allocation_fails_changes_nothing(path: Path) -> None:
    """Too large to reserve for: what was inserted before the failure is taken out again."""
    new = {i: i for i in range(200, 40_000)}
    with dh.open(path) as heap:
        old = {i: i for i in range(300)}
        for failing in itertools.chain(range(12), itertools.count(12, 17)):
            numbers = heap.root["numbers"] = heap.dict(old)
            with fault("alloc.cell", after=failing, rc=-1):
                try:
                    numbers.update(new)
                    break
                except dh.HeapFullError:
                    pass
            assert numbers == old, f"allocation {failing}"
            assert list(numbers) == list(old)
            assert heap.verify().ok
        assert numbers == {**old, **new}
        assert failing > 100


def test_making_containers_whose_nth_allocation_fails_leaves_nothing_behind(path: Path) -> None:
    value = {"a": [1, "text" * 10, {"b": (1 << 90, [2.5e-310, "more text"])}], "c": list(range(99))}
    with dh.open(path) as heap:
        know_shapes(heap, ["a", "c"], ["b"])
        allocated = heap.stats().allocated_bytes
        for make in (
            heap.dict,
            lambda v: heap.list([v]),
            lambda v: heap.deque([v]),
            lambda v: heap.buffer(100_000),
        ):
            for failing in itertools.count():
                with fault("alloc.cell", after=failing, rc=-1):
                    try:
                        made = make(value)
                        break
                    except dh.HeapFullError:
                        pass
                assert heap.stats().allocated_bytes == allocated, f"allocation {failing}"
            assert failing > 0
            del made
            heap.collect()
            assert heap.stats().allocated_bytes == allocated
