"""Bulk paths: whole plain containers into the heap and back, beside what else takes them whole.

Each contestant gets the same plain objects, made anew before each round. Nanoseconds per element
(per record for the list of records), median and extremes over rounds, ratio to the built-in copy.
"in" is construction from the plain container, "update" an update or extend of an empty one, "out"
the plain copy of all of it.
"""

from __future__ import annotations

import copy
import gc
import pickle
import time
from collections.abc import Callable
from typing import Any

from BTrees.LOBTree import LOBTree
from BTrees.OOBTree import OOBTree
from common import Row, arguments, header, print_table, spread, work_directory, write_csv
from persistent.list import PersistentList
from persistent.mapping import PersistentMapping

import dirtyheap as dh

Way = Callable[[Any], Any]  # what is timed; of the plain container


def record(i: int) -> dict[str, Any]:
    """The small record of the other benchmarks."""
    name, code = f"user{i:06}", f"c{i % 1_000_000:06}"
    return {"id": i, "name": name, "price": i * 0.25, "qty": i % 100, "code": code, "ok": i % 2 > 0}


def numbers(count: int) -> list[int]:
    return [i * 2_654_435_761 % (1 << 40) for i in range(count)]


DATA: dict[str, Callable[[int], Any]] = {
    "dict of int: int": lambda count: {k: k + 1 for k in numbers(count)},
    "dict of str: float": lambda count: {f"key{k:012}": k * 0.5 for k in numbers(count)},
    "list of int": numbers,
    "list of str of 15": lambda count: [f"key{k:012}" for k in numbers(count)],
    "list of records": lambda count: [record(i) for i in range(count)],
}


def ways(name: str, heap: dh.Heap) -> dict[str, dict[str, Way]]:
    """operation -> contestant -> what to time."""
    if name == "list of records":
        made = {"dirtyheap": heap.list, "pickle": lambda data: pickle.dumps(data, 5)}
        return {"in": {"copy.deepcopy": copy.deepcopy, **made}}
    if name.startswith("dict"):
        tree = LOBTree if name == "dict of int: int" else OOBTree
        return {
            "in": {
                "dict": dict,
                "dirtyheap": heap.dict,
                "PersistentMapping": PersistentMapping,
                tree.__name__: tree,
                "pickle": lambda data: pickle.dumps(data, 5),
            },
            "update": {
                "dict": lambda data: {}.update(data),
                "dirtyheap": lambda data: heap.dict().update(data),
            },
        }
    return {
        "in": {
            "list": list,
            "dirtyheap": heap.list,
            "PersistentList": PersistentList,
            "pickle": lambda data: pickle.dumps(data, 5),
        },
        "update": {
            "list": lambda data: [].extend(data),
            "dirtyheap": lambda data: heap.list().extend(data),
        },
    }


def ways_out(name: str, heap: dh.Heap, data: Any) -> dict[str, Way]:
    ours = heap.dict(data) if name.startswith("dict") else heap.list(data)
    dumped = pickle.dumps(data, 5)
    plain = copy.deepcopy if name == "list of records" else type(data)
    label = "copy.deepcopy" if name == "list of records" else type(data).__name__
    return {
        label: lambda _: plain(data),
        "dirtyheap": lambda _: dh.to_python(ours),
        "pickle": lambda _: pickle.loads(dumped),
    }


def time_rounds(ways: dict[str, Way], make: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Nanoseconds of each round by contestant; they take turns."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        first = number % len(ways)
        for name, way in [*ways.items()][first:] + [*ways.items()][:first]:
            data = make()
            start = time.perf_counter_ns()
            result = way(data)
            took[name].append(time.perf_counter_ns() - start)
            del result, data
    return took


def rows_of(what: str, op: str, took: dict[str, list[float]], count: int) -> list[Row]:
    reference = spread(next(iter(took.values())))[0]
    rows = []
    for name, values in took.items():
        median, low, high = (value / count for value in spread(values))
        ratio = median * count / reference
        row = {"data": what, "op": op, "what": name, "ns": median, "min": low, "max": high}
        rows.append({**row, "ratio": ratio})
    return rows


def main() -> None:
    options = arguments(__doc__ or "")
    facts = header("bulk paths", ["BTrees", "persistent"])
    count, rounds = (20_000, 3) if options.quick else (1_000_000, 5)
    rows: list[Row] = []
    gc.disable()
    with work_directory(options.dir) as directory, dh.open(directory / "heap") as heap:
        for what, make in DATA.items():
            size = count // 5 if what == "list of records" else count
            for op, contestants in ways(what, heap).items():
                took = time_rounds(contestants, lambda make=make, size=size: make(size), rounds)
                rows += rows_of(what, op, took, size)
                heap.collect()
            took = time_rounds(ways_out(what, heap, make(size)), lambda: None, rounds)
            rows += rows_of(what, "out", took, size)
            heap.collect()
    print_table(rows, list(rows[0]))
    if not options.quick:
        write_csv("bulk", facts, rows)


if __name__ == "__main__":
    main()
