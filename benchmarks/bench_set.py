"""Sets: element by element and whole, against the built-in set and BTrees' OOTreeSet.

One pass = add every element to an empty set, then in, not in, iterate, discard, each timed as a
whole, as in bench_access.py; then the sets as wholes: made from a list, united with and intersected
with another of the same size that shares half its elements, in place with one of their own kind.
Figures are nanoseconds per element: median over passes, quartiles, ratio of medians to `set`.

  hot             2,000 elements: everything is in the processor's caches
  cache-missing   1,000,000 elements: nearly every access misses them
"""

from __future__ import annotations

import gc
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bench_access import KEYS, KeyMaker, Samples, report, timed_loop
from BTrees.OOBTree import OOTreeSet
from common import Row, arguments, header, judge, work_directory, write_csv

import dirtyheap as dh

ELEMENT_OPS = ["add", "in", "not in", "iterate", "discard"]
WHOLE_OPS = ["make", "unite", "intersect", "update", "keep"]


class Contestant:
    """How to make a set of a list, and the text of each operation's loop body."""

    def __init__(self, name: str, make: Callable[[Iterable[Any]], Any], **bodies: str) -> None:
        self.name = name
        self.make = make
        self.passes = {
            "add": timed_loop(bodies.get("add", "add(k)"), "add = c.add"),
            "in": timed_loop("k in c"),
            "not in": timed_loop("k in c"),
            "discard": timed_loop(bodies.get("discard", "discard(k)"), bodies.get("bind", BIND)),
            "iterate": timed_loop("pass", over="c"),
        }
        self.update = bodies.get("update", "a.update(b)")
        self.keep = bodies.get("keep", "a.intersection_update(b)")


BIND = "discard = c.discard"


def contestants(heap: dh.Heap) -> list[Contestant]:
    def heap_set(items: Iterable[Any]) -> dh.Set:
        made = heap.set(items)
        heap.root["sets"].append(made)
        return made

    heap.root["sets"] = []
    return [
        Contestant("set", set),
        Contestant("dirtyheap", heap_set),
        Contestant(
            "OOTreeSet",
            OOTreeSet,
            discard="discard(k)",
            bind="discard = c.remove",
            keep="a &= b",
        ),
    ]


def measure_elements(
    heap: dh.Heap, taking_part: Sequence[Contestant], key: KeyMaker, count: int, passes: int
) -> Samples:
    rng = random.Random(1)
    empty_loop = timed_loop("pass")
    samples = Samples()
    for number in range(-1 if count < 10_000 else 0, passes):
        order = rng.sample(range(count), count)
        loop_ns = empty_loop(None, [key(i) for i in order], 1, time.perf_counter_ns)
        first = number % len(taking_part)  # whoever comes first finds the caches coldest
        for contestant in [*taking_part[first:], *taking_part[:first]]:
            container = contestant.make([])
            for op in ELEMENT_OPS:
                chosen = (i + count for i in order) if op == "not in" else order
                keys = [key(i) for i in chosen]
                took = contestant.passes[op](container, keys, 1, time.perf_counter_ns)
                if number >= 0:
                    loop = 0 if op == "iterate" else loop_ns
                    samples.add(op, contestant.name, (took - loop) / count)
        heap.root["sets"].clear()
        if number % 20 == 0 or count > 100_000:
            heap.collect()
    return samples


def timed(work: str, a: Any, b: Any) -> int:
    """Nanoseconds of one statement over both sets."""
    code = compile(work, "<benchmark>", "exec")
    names = {"a": a, "b": b}
    start = time.perf_counter_ns()
    exec(code, names)
    return time.perf_counter_ns() - start


def measure_wholes(
    heap: dh.Heap, taking_part: Sequence[Contestant], key: KeyMaker, count: int, passes: int
) -> Samples:
    samples = Samples()
    for number in range(-1, passes):
        left = [key(i) for i in range(count)]
        right = [key(i + count // 2) for i in range(count)]
        first = number % len(taking_part)
        for contestant in [*taking_part[first:], *taking_part[:first]]:
            start = time.perf_counter_ns()
            a = contestant.make(left)
            took = {"make": time.perf_counter_ns() - start}
            b = contestant.make(right)
            took["unite"] = timed("a | b", a, b)
            took["intersect"] = timed("a & b", a, b)
            took["update"] = timed(contestant.update, a, b)
            a = contestant.make(left)
            took["keep"] = timed(contestant.keep, a, b)
            for op in WHOLE_OPS:
                if number >= 0:
                    samples.add(op, contestant.name, took[op] / count)
        heap.root["sets"].clear()
        heap.collect()
    return samples


def bytes_of_element(heap: dh.Heap, key: KeyMaker, count: int) -> dict[str, float]:
    """Memory of one element beside its own cell, in a Set and in a Dict with None as value."""
    found = {}
    for name, make in (("Set", heap.set), ("Dict", lambda items: heap.dict(dict.fromkeys(items)))):
        heap.collect()
        before = heap.stats().allocated_bytes
        heap.root["measured"] = make([key(i) for i in range(count)])
        found[name] = (heap.stats().allocated_bytes - before) / count
        del heap.root["measured"]
    return found


def main() -> int:
    options = arguments(__doc__ or "")
    facts = header("sets", ["BTrees"])
    sizes = [("hot", 2_000, 30 if options.quick else 200)]
    sizes.append(
        ("cache-missing", 50_000 if options.quick else 1_000_000, 2 if options.quick else 3)
    )
    rows: list[Row] = []
    gc.disable()
    with work_directory(options.dir) as directory, dh.open(directory / "heap") as heap:
        taking_part = contestants(heap)
        for set_name, count, passes in sizes:
            for key_name in ("int", "str"):
                key = KEYS[key_name]
                title = f"{set_name}, {key_name} elements"
                samples = measure_elements(heap, taking_part, key, count, passes)
                report(rows, samples, title, "set")
                for op, aim in {"in": 1.6, "add": 3.0}.items():
                    ratio = samples.median(op, "dirtyheap") / samples.median(op, "set")
                    judge(f"{title}: {op} / set's", ratio, aim)
                wholes = measure_wholes(heap, taking_part, key, count, max(passes // 10, 2))
                report(rows, wholes, f"{title}, whole", "set")
                memory = bytes_of_element(heap, key, count)
                print(f"{title}: " + ", ".join(f"{memory[n]:.1f} B in a {n}" for n in memory))
    write_csv("sets", facts, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
