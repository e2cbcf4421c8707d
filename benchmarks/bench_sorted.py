"""SortedDict beside sortedcontainers.SortedDict and the trees of BTrees.

One pass = every operation on each contestant, in turns, so that a disturbance hits all; keys are
new objects in each operation, in shuffled order; the empty loop is timed in the same pass and
subtracted. Figures are nanoseconds per operation: median over passes, quartiles, ratio to OOBTree's
median where it has the operation. A range is 100 keys; its figure is for one of them.

  small   2,000 keys: everything is in the processor's caches
  large   500,000 keys: nearly every access misses them
"""

from __future__ import annotations

import gc
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from bench_access import Pass, Samples, timed_loop
from BTrees.LOBTree import LOBTree
from BTrees.OOBTree import OOBTree
from common import Row, arguments, header, judge, print_table, work_directory, write_csv
from sortedcontainers import SortedDict

import dirtyheap as dh

KeyMaker = Callable[[int], Any]

KEYS: dict[str, KeyMaker] = {
    "int": lambda i: i + 1000,  # small ints below 257 would be shared objects
    "str": lambda i: f"key{i:07}",
}
RANGE_KEYS = 100

# operation -> loop body; what is only a loop over something is in LOOPS
COMMON = {
    "insert": "c[k] = v",
    "get": "c[k]",
    "set": "c[k] = v",
    "in": "k in c",
    "not in": "k in c",
    "delete": "del c[k]",
    "append": "c[k] = v",
}
POSITIONS = {"bisect": "c.bisect(k)", "index": "c.index(k)", "peekitem": "c.peekitem(k)"}
LOOPS = {"iterate": "c", "items": "c.items()"}
RANGES = {
    SortedDict: "for _ in c.irange(*k): pass",
    OOBTree: "for _ in c.iterkeys(*k): pass",
}
ORDER = [
    *("insert", "get", "set", "in", "not in", "bisect", "index", "peekitem", "range"),
    *("iterate", "items", "delete", "append"),
]


class Contestant:
    """How to make an empty one, and its loops by operation."""

    def __init__(self, name: str, make: Callable[[], Any], *, has_positions: bool) -> None:
        self.name = name
        self.make = make
        bodies = {**COMMON, **(POSITIONS if has_positions else {})}
        bodies["range"] = RANGES[SortedDict if has_positions else OOBTree]
        self.passes: dict[str, Pass] = {op: timed_loop(body) for op, body in bodies.items()}
        self.passes |= {op: timed_loop("pass", over=over) for op, over in LOOPS.items()}


def arguments_of(op: str, key: KeyMaker, order: list[int]) -> list[Any]:
    """What the loop of an operation goes through: new objects."""
    count = len(order)
    if op == "not in":
        return [key(i + count) for i in order]
    if op == "append":
        return [key(i) for i in range(count)]
    if op == "peekitem":
        return [i + 1000 - 1000 for i in order]
    if op == "range":
        last = count - RANGE_KEYS
        return [(key(i), key(i + RANGE_KEYS - 1)) for i in order if i <= last][: count // 50]
    return [key(i) for i in order]


def measure(
    heap: dh.Heap, contestants: list[Contestant], key: KeyMaker, count: int, passes: int
) -> tuple[Samples, Samples]:
    """Operations by key, and those by position, which trees do not have."""
    rng = random.Random(1)
    empty_loop = timed_loop("pass")
    by_key, by_position = Samples(), Samples()
    # Pass -1 warms up and is not counted; where caches are missed there is nothing to warm.
    for number in range(-1 if count < 10_000 else 0, passes):
        order = rng.sample(range(count), count)
        loop_ns = empty_loop(None, [key(i) for i in order], 1, time.perf_counter_ns) / count
        first = number % len(contestants)  # whoever comes first finds the caches coldest
        for contestant in [*contestants[first:], *contestants[:first]]:
            container = contestant.make()
            for op in ORDER:
                if op not in contestant.passes:
                    continue
                if op == "append":
                    container = contestant.make()
                through = arguments_of(op, key, order)
                took = contestant.passes[op](container, through, number + 2, time.perf_counter_ns)
                per_op = took / len(through)
                if op == "range":
                    per_op /= RANGE_KEYS
                elif op not in LOOPS:
                    per_op -= loop_ns
                samples = by_position if op in POSITIONS else by_key
                if number >= 0:
                    samples.add(op, contestant.name, per_op)
            del container
        heap.collect()
    return by_key, by_position


def contestants_for(heap: dh.Heap, key_name: str) -> list[Contestant]:
    def heap_dict() -> Any:
        heap.root["it"] = heap.sorted_dict()
        return heap.root["it"]

    found = [
        Contestant("dirtyheap", heap_dict, has_positions=True),
        Contestant("sortedcontainers", SortedDict, has_positions=True),
        Contestant("OOBTree", OOBTree, has_positions=False),
    ]
    if key_name == "int":  # which holds nothing but ints of 64 bits
        found.append(Contestant("LOBTree", LOBTree, has_positions=False))
    return found


def main() -> int:
    options = arguments(__doc__ or "")
    facts = header("SortedDict", ["BTrees", "sortedcontainers"])
    sizes = [("small", 2_000, 20 if options.quick else 100)]
    sizes.append(("large", 50_000 if options.quick else 500_000, 2 if options.quick else 3))
    rows: list[Row] = []
    gc.disable()
    with work_directory(options.dir) as directory, dh.open(directory / "heap") as heap:
        for size_name, count, passes in sizes:
            for key_name, key in KEYS.items():
                contestants = contestants_for(heap, key_name)
                by_key, by_position = measure(heap, contestants, key, count, passes)
                title = f"{size_name}, {key_name} keys"
                new = by_key.rows(title, "OOBTree") + by_position.rows(title, "sortedcontainers")
                rows += new
                report(new, title)
                worst = max(
                    (row for row in by_key.rows(title, "OOBTree") if row["what"] == "dirtyheap"),
                    key=lambda row: row["ratio"],
                )
                judge(f"{title}: worst row, {worst['op']} / OOBTree's", worst["ratio"], 1.0)
    if not options.quick:
        write_csv("sorted", facts, rows)
    return 0


def report(new: list[Row], title: str) -> None:
    """A line per operation: ns (ratio), a column per contestant."""
    names = list(dict.fromkeys(row["what"] for row in new))
    lines = []
    for op in ORDER:
        line: Row = {title: op}
        for row in new:
            if row["op"] == op:
                line[row["what"]] = f"{row['ns']:.0f} ({row['ratio']:.2g}x)"
        lines.append(line)
    print_table(lines, [title, *names])


if __name__ == "__main__":
    sys.exit(main())
