"""The programs of gc_shapes.h over Python's own objects, and over records of a heap.

The same shapes, written as one writes Python: no roots to name, no points to stop at. Who makes
nodes is a function, so that both kinds take the same way.
"""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dirtyheap as dh

GAP_NS = 100_000
DEPTHS = range(4, 17, 2)
CHAIN_NODES = 8
EDGES = ("e0", "e1", "e2", "e3")


class Tree:
    __slots__ = ("left", "number", "right")

    def __init__(self, left: Any, right: Any, number: int) -> None:
        self.left, self.right, self.number = left, right, number


class Node:
    __slots__ = ("e0", "e1", "e2", "e3", "number")

    def __init__(self, e0: Any, e1: Any, e2: Any, e3: Any, number: int) -> None:
        self.e0, self.e1, self.e2, self.e3, self.number = e0, e1, e2, e3, number


@dh.record
class HeapTree:
    left: Any
    right: Any
    number: int


@dh.record
class HeapNode:
    e0: Any
    e1: Any
    e2: Any
    e3: Any
    number: int


class Program:
    """Counts its operations and, if it is told to, the gaps between them."""

    def __init__(self, is_timed: bool, heap: dh.Heap | None) -> None:
        self.heap = heap
        self.is_timed = is_timed
        self.ops = 0
        self.gaps: list[int] = []
        self.schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        self.restart()

    def tick(self) -> None:
        self.ops += 1
        if self.is_timed:
            gap_ns = time.perf_counter_ns() - self.last_ns
            if gap_ns > GAP_NS:
                self.note(gap_ns)
            self.last_ns = time.perf_counter_ns()

    def note(self, gap_ns: int) -> None:
        """A stop, unless another process had the processor."""
        robbed_ns = self.read_robbed_ns()
        gap_ns -= robbed_ns - self.robbed_ns
        self.robbed_ns = robbed_ns
        if gap_ns > GAP_NS:
            self.gaps.append(gap_ns)

    def read_robbed_ns(self) -> int:
        return int(os.pread(self.schedstat, 100, 0).split()[1])

    def restart(self) -> None:
        self.ops = 0
        self.gaps.clear()
        self.robbed_ns = self.read_robbed_ns()
        self.last_ns = time.perf_counter_ns()

    def keep(self, what: Any) -> Any:
        """What lives on; in a heap, as part of it."""
        if self.heap is None:
            return what
        self.heap.root["kept"] = what
        return self.heap.root["kept"]

    def maker(self, plain: type, stored: type) -> Callable[..., Any]:
        if self.heap is None:
            return plain
        new = self.heap.new
        return lambda *values: new(stored, *values)


class Trees(Program):
    def __init__(self, is_timed: bool, heap: dh.Heap | None) -> None:
        super().__init__(is_timed, heap)
        self.new = self.maker(Tree, HeapTree)

    def node(self, left: Any = None, right: Any = None) -> Any:
        made = self.new(left, right, self.ops)
        self.tick()
        return made

    def from_bottom(self, depth: int) -> Any:
        if depth == 0:
            return self.node()
        return self.node(self.from_bottom(depth - 1), self.from_bottom(depth - 1))

    def from_top(self, depth: int, top: Any) -> None:
        if depth == 0:
            return
        top.left, top.right = self.node(), self.node()
        self.from_top(depth - 1, top.left)
        self.from_top(depth - 1, top.right)

    def begin(self, size: int) -> None:
        self.top = self.keep(self.node())
        self.from_top(size, self.top)

    def run(self, size: int, work: int) -> None:
        for depth in DEPTHS:
            nodes = 2 * ((2 << depth) - 1)
            for _ in range(-(-work // nodes)):
                self.from_top(depth, self.node())
                self.from_bottom(depth)
        assert self.count(self.top) == (2 << size) - 1

    def count(self, top: Any) -> int:
        return 0 if top is None else 1 + self.count(top.left) + self.count(top.right)


class Graph(Program):
    def __init__(self, is_timed: bool, heap: dh.Heap | None) -> None:
        super().__init__(is_timed, heap)
        self.new = self.maker(Node, HeapNode)
        self.random = random.Random(1)

    def begin(self, size: int) -> None:
        none = (None,) * len(EDGES)
        self.table = self.keep([])
        for number in range(size):
            self.table.append(self.new(*none, number))
        for place in range(size):
            for edge in EDGES:
                setattr(self.table[place], edge, self.any_of(size))

    def any_of(self, size: int) -> Any:
        return self.table[int(self.random.random() * size)]

    def run(self, size: int, work: int) -> None:
        for _ in range(work):
            self.operate(size)
            self.tick()
        assert len(self.table) == size

    def place(self, size: int) -> int:
        """Where the next operation is."""
        return int(self.random.random() * size)

    def operate(self, size: int) -> None:
        what = int(self.random.random() * 4)
        if what < 2:
            node = self.table[self.place(size)]
            setattr(node, EDGES[int(self.random.random() * 4)], self.any_of(size))
        elif what == 2:
            self.replace(size)
        else:
            self.chain()

    def replace(self, size: int) -> None:
        place = self.place(size)
        before = self.table[place]
        self.table[place] = self.new(*(self.any_of(size) for _ in EDGES), self.ops)
        for edge in EDGES:
            setattr(before, edge, None)

    def chain(self) -> None:
        last = None
        for _ in range(CHAIN_NODES):
            last = self.new(last, None, None, None, self.ops)


class Window(Graph):
    def place(self, size: int) -> int:
        if self.random.random() * 512 < 1:
            return super().place(size)
        return (self.ops // 16 + int(self.random.random() * (size // 32))) % size


def collections_of(heap: dh.Heap | None) -> tuple[int, int]:
    """So far: (young, full), where Python's first two generations are young."""
    if heap is None:
        counts = [generation["collections"] for generation in gc.get_stats()]
        return sum(counts[:-1]), counts[-1]
    generations = [stats.generation for stats in heap.collector.history]
    return generations.count("young"), generations.count("full")


SHAPES: dict[str, type[Trees | Graph]] = {"trees": Trees, "graph": Graph, "window": Window}


def run(
    shape: str, size: int, work: int, is_timed: bool, path: Path | None, young_bytes: int
) -> dict[str, Any]:
    """One run; in a heap at `path`, whose collector is automatic, or without a heap."""
    heap = None if path is None else dh.open(path)
    if heap is not None:
        heap.collector.young_bytes = young_bytes
    program = SHAPES[shape](is_timed, heap)
    program.begin(size)
    program.restart()
    before = collections_of(heap)
    began_ns, robbed_before_ns = time.perf_counter_ns(), program.read_robbed_ns()
    program.run(size, work)
    total_ns = time.perf_counter_ns() - began_ns - (program.read_robbed_ns() - robbed_before_ns)
    result: dict[str, Any] = {"total_ns": total_ns, "ops": program.ops}
    result["gaps_ns"] = sorted(program.gaps)
    young, full = collections_of(heap)
    result |= {"young": young - before[0], "full": full - before[1]}
    if heap is not None:
        del program
        heap.close()
    return result
