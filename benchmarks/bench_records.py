"""Records: attributes, making, and memory against what else holds named fields in Python.

Attributes: one pass = read, then write the attribute of the same 1,000 objects, each contestant in
turn within a pass, the empty loop subtracted; nanoseconds per operation, median over passes,
quartiles, ratio of medians to a plain class. Neighbours: the same class plain, with __slots__, as
dataclass, as persistent.Persistent (the class behind ZODB), and complex.real: a C attribute that
makes its object at each read, as a record must.

Memory: a million records of six fields in a list, PSS of a fresh process, what the import costs
subtracted; for a heap after commit and collect.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import persistent
from common import (
    Row,
    arguments,
    hand_back,
    header,
    in_fresh_process,
    judge,
    print_table,
    pss_bytes,
    work_directory,
    write_csv,
)

import dirtyheap as dh

OBJECTS = 1_000


class Plain:
    def __init__(self, id: int, name: str, price: float, qty: int, code: str, ok: bool) -> None:
        self.id, self.name, self.price = id, name, price
        self.qty, self.code, self.ok = qty, code, ok


class Slots:
    __slots__ = ("code", "id", "name", "ok", "price", "qty")
    __init__ = Plain.__init__


@dataclasses.dataclass
class Data:
    id: int
    name: str
    price: float
    qty: int
    code: str
    ok: bool


class Stored(persistent.Persistent):
    __init__ = Plain.__init__


@dh.record
class Item:
    id: int
    name: str
    price: float
    qty: int
    code: str
    ok: bool


# What is read and written; texts of 10 and 7 characters: in a cell of its own, and inline.
VALUES: dict[str, Callable[[int], Any]] = {
    "qty": lambda i: i % 200,
    "id": lambda i: i + 100_000,
    "price": lambda i: i * 1.25,
    "ok": lambda i: i % 2 == 0,
    "code": lambda i: f"c{i % 1000:06}",
    "name": lambda i: f"name{i:06}",
}
Make = Callable[..., Any]


def fields_of(i: int) -> dict[str, Any]:
    return {name: VALUES[name](i) for name in ("id", "name", "price", "qty", "code", "ok")}


def timed_loop(body: str) -> Callable[..., int]:
    """A function of its own for each use, so that the interpreter's inline caches stay apart."""
    namespace: dict[str, Any] = {}
    exec(
        f"def run(objects, values, clock):\n    start = clock()\n"
        f"    for o, v in zip(objects, values):\n        {body}\n    return clock() - start\n",
        namespace,
    )
    run: Callable[..., int] = namespace["run"]
    return run


# --- attributes -----------------------------------------------------------------------------------


def measure(contestants: Sequence[tuple[str, list[Any]]], field: str, passes: int) -> list[Row]:
    """Reads and writes of one attribute by every contestant."""
    empty = timed_loop("pass")
    runs = {
        (name, op): timed_loop(f"o.{field}" if op == "read" else f"o.{field} = v")
        for name, _ in contestants
        for op in ("read", "write")
    }
    if field == "price":
        runs["complex.real", "read"] = timed_loop("o.real")
    numbers = [complex(i * 1.25) for i in range(OBJECTS)]
    everyone = [*contestants, ("complex.real", numbers)] if field == "price" else contestants
    samples: dict[tuple[str, str], list[float]] = {}
    for number in range(-3, passes):
        values = [VALUES[field](i + number) for i in range(OBJECTS)]
        loop_ns = empty(numbers, values, time.perf_counter_ns)
        first = number % len(everyone)
        for name, objects in [*everyone[first:], *everyone[:first]]:
            for op in ("read", "write"):
                if (name, op) not in runs:
                    continue
                took = runs[name, op](objects, values, time.perf_counter_ns)
                if number >= 0:
                    samples.setdefault((name, op), []).append((took - loop_ns) / OBJECTS)
    return [
        {
            "field": field,
            "what": name,
            "op": op,
            "ns": statistics.median(values),
            "q1": statistics.quantiles(values, n=4)[0],
            "q3": statistics.quantiles(values, n=4)[2],
            "ratio": statistics.median(values) / statistics.median(samples["class", op]),
        }
        for (name, op), values in samples.items()
    ]


def make_all(heap: dh.Heap) -> list[tuple[str, list[Any]]]:
    records = heap.root["records"] = [heap.new(Item, **fields_of(i)) for i in range(OBJECTS)]
    return [
        ("class", [Plain(**fields_of(i)) for i in range(OBJECTS)]),
        ("__slots__", [Slots(**fields_of(i)) for i in range(OBJECTS)]),
        ("dataclass", [Data(**fields_of(i)) for i in range(OBJECTS)]),
        ("Persistent", [Stored(**fields_of(i)) for i in range(OBJECTS)]),
        ("dirtyheap", records),
    ]


def measure_making(heap: dh.Heap, passes: int) -> list[Row]:
    """New objects of six fields by keyword."""
    makers: dict[str, Make] = {
        "class": Plain,
        "__slots__": Slots,
        "dataclass": Data,
        "Persistent": Stored,
        "dirtyheap": functools.partial(heap.new, Item),
    }
    samples: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(passes):
        rows = [fields_of(i) for i in range(OBJECTS)]
        for name, make in makers.items():
            start = time.perf_counter_ns()
            for row in rows:
                make(**row)
            samples[name].append((time.perf_counter_ns() - start) / OBJECTS)
        heap.collect()
    reference = statistics.median(samples["class"])
    return [
        {
            "field": "all",
            "what": name,
            "op": "make",
            "ns": statistics.median(values),
            "q1": statistics.quantiles(values, n=4)[0],
            "q3": statistics.quantiles(values, n=4)[2],
            "ratio": statistics.median(values) / reference,
        }
        for name, values in samples.items()
    ]


# --- memory ---------------------------------------------------------------------------------------


def memory_part(part: Row) -> None:
    """In a fresh process: PSS of `count` objects of one kind."""
    makers: dict[str, Make] = {"class": Plain, "__slots__": Slots, "dataclass": Data, "dict": dict}
    before = pss_bytes()
    if part["what"] == "dirtyheap":
        with dh.open(part["path"]) as heap:
            items = heap.root["items"] = []
            items = heap.root["items"]
            for i in range(part["count"]):
                items.append(heap.new(Item, **fields_of(i)))
            heap.commit()
            heap.collect()
            allocated = heap.stats().allocated_bytes
            hand_back({"bytes": pss_bytes() - before, "allocated": allocated})
        return
    kept = [makers[part["what"]](**fields_of(i)) for i in range(part["count"])]
    hand_back({"bytes": pss_bytes() - before, "allocated": len(kept)})


def measure_memory(directory: Path, count: int) -> list[Row]:
    rows: list[Row] = []
    for what in ("class", "__slots__", "dataclass", "dict", "dirtyheap"):
        part = {"what": what, "count": count, "path": str(directory / "memory")}
        result = in_fresh_process(__file__, part)
        each = result["bytes"] / count
        # In a heap's process the images and buffers of its commit count too: the cells alone.
        if what == "dirtyheap":
            each = result["allocated"] / count
            rows.append({"what": "dirtyheap, PSS", "bytes": result["bytes"] / count})
        rows.append({"what": what, "bytes": each})
    for row in rows:
        row["ratio"] = row["bytes"] / rows[0]["bytes"]
    return rows


# --- all ------------------------------------------------------------------------------------------


def main() -> int:
    options = arguments(__doc__ or "")
    if options.part:
        memory_part(json.loads(options.part))
        return 0
    facts = header("records", ["persistent"])
    passes = 100 if options.quick else 1_000
    rows: list[Row] = []
    gc.disable()
    with work_directory(options.dir) as directory:
        with dh.open(directory / "heap") as heap:
            contestants = make_all(heap)
            for field in VALUES:
                rows += measure(contestants, field, passes)
            rows += measure_making(heap, passes // 10)
        print_rows(rows)
        memory = measure_memory(directory, 100_000 if options.quick else 1_000_000)
        print_table(
            [
                {"memory": row["what"], "bytes": f"{row['bytes']:.0f} ({row['ratio']:.2g}x)"}
                for row in memory
            ],
            ["memory", "bytes"],
        )
    at = {(row["field"], row["what"], row["op"]): row["ns"] for row in rows}
    price = at["price", "dirtyheap", "read"]
    judge("float attribute / complex.real", price / at["price", "complex.real", "read"], 1.5)
    for field in VALUES:
        ratio = at[field, "dirtyheap", "read"] / at[field, "Persistent", "read"]
        judge(f"{field} / Persistent's", ratio, 1.0)
    ours = next(row for row in memory if row["what"] == "dirtyheap")
    as_dict = next(row for row in memory if row["what"] == "dict")
    judge("memory of a record / of a dict", ours["bytes"] / as_dict["bytes"], 1 / 6)
    write_csv("records", facts, rows)
    return 0


def print_rows(rows: list[Row]) -> None:
    lines: dict[tuple[str, str], Row] = {}
    for row in rows:
        line = lines.setdefault(
            (row["field"], row["what"]), {"field": row["field"], "what": row["what"]}
        )
        line[row["op"]] = f"{row['ns']:.0f} ({row['ratio']:.2g}x)"
    print_table(list(lines.values()), ["field", "what", "read", "write", "make"])


if __name__ == "__main__":
    sys.exit(main())
