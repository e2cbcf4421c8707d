"""Element access: dict, list and deque against built-ins and what people use for persistence.

One pass = insert every key into an empty container, then get, set, in, not in, iterate, delete,
each timed as a whole; keys are new objects in each operation (no cached hash, no identity shortcut)
in shuffled order, except that plain ints are inserted in rising order. All contestants take turns
within a pass, so that a disturbance hits all; the empty loop is timed in the same pass and
subtracted. Figures are nanoseconds per operation: median over passes, quartiles, ratio of medians.

  hot             2,000 keys: everything is in the processor's caches
  cache-missing   1,000,000 keys: nearly every access misses them
"""

from __future__ import annotations

import array
import gc
import random
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import lmdb
import persistent.list
import persistent.mapping
from BTrees.OOBTree import OOBTree
from common import Row, arguments, header, judge, print_table, work_directory, write_csv

import dirtyheap as dh

Pass = Callable[..., int]
KeyMaker = Callable[[int], Any]

KEYS: dict[str, KeyMaker] = {
    "int": lambda i: i + 1000,  # small ints below 257 would be shared objects
    "sparse int": lambda i: i * 2_654_435_761 % (1 << 40) + 1000,
    "str": lambda i: f"key{i:07}",
}
MAPPING_OPS = ["insert", "get", "set", "in", "not in", "iterate", "delete"]


class DictSubclass(dict[Any, Any]):
    """What an application pays already when it subclasses dict to hook anything."""


# --- contestants ----------------------------------------------------------------------------------


class Mapping:
    """A contestant: how to make an empty one, and the text of each operation's loop body."""

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self.name = name
        self.make = make
        self.passes = {
            "insert": timed_loop("c[k] = v"),
            "get": timed_loop("c[k]"),
            "set": timed_loop("c[k] = v"),
            "in": timed_loop("k in c"),
            "not in": timed_loop("k in c"),
            "delete": timed_loop("del c[k]"),
            "iterate": timed_loop("pass", over="c"),
        }


class Lmdb(Mapping):
    """py-lmdb in one open write transaction; keys and values are converted as a user must."""

    def __init__(self, path: Path, *, int_keys: bool) -> None:
        self._env = lmdb.open(str(path), map_size=8 << 30, sync=False, max_dbs=1)
        self._db = self._env.open_db(b"bench")
        self._txn = self._env.begin(write=True, db=self._db)
        key = "k.to_bytes(8, 'big')" if int_keys else "k.encode()"
        put = f"put({key}, v.to_bytes(8, 'big'))"
        binding = "get = c.get; put = c.put; delete = c.delete; convert = int.from_bytes"
        self.name = "py-lmdb"
        self.make = self._empty
        self.passes = {
            "insert": timed_loop(put, binding),
            "get": timed_loop(f"convert(get({key}), 'big')", binding),
            "set": timed_loop(put, binding),
            "in": timed_loop(f"get({key}) is not None", binding),
            "not in": timed_loop(f"get({key}) is not None", binding),
            "delete": timed_loop(f"delete({key})", binding),
            "iterate": timed_loop("pass", over="c.cursor().iternext(values=False)"),
        }

    def _empty(self) -> lmdb.Transaction:
        self._txn.drop(self._db, delete=False)
        return self._txn

    def close(self) -> None:
        self._txn.abort()
        self._env.close()


def timed_loop(body: str, binding: str = "pass", over: str = "keys") -> Pass:
    """A function of its own for each use, so that the interpreter's inline caches stay apart."""
    source = f"""
def run(c, keys, v, clock):
    {binding}
    start = clock()
    for k in {over}:
        {body}
    return clock() - start
"""
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    run: Pass = namespace["run"]
    return run


# --- mappings -------------------------------------------------------------------------------------


class Samples:
    """Nanoseconds per operation by (operation, contestant), one figure per pass."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], list[float]] = {}

    def add(self, op: str, name: str, value: float) -> None:
        self._values.setdefault((op, name), []).append(value)

    def median(self, op: str, name: str) -> float:
        return statistics.median(self._values[op, name])

    def rows(self, set_name: str, reference: str) -> list[Row]:
        rows = []
        for (op, name), values in self._values.items():
            quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
            rows.append(
                {
                    "set": set_name,
                    "op": op,
                    "what": name,
                    "ns": statistics.median(values),
                    "q1": quartiles[0],
                    "q3": quartiles[2],
                    "ratio": self.median(op, name) / self.median(op, reference),
                }
            )
        return rows


def measure_mappings(
    heap: dh.Heap, contestants: Sequence[Mapping], key: KeyMaker, count: int, passes: int
) -> Samples:
    """`passes` passes over `count` keys; see the head of this file."""
    rng = random.Random(1)
    empty_loop = timed_loop("pass")
    samples = Samples()
    in_order = list(range(count))
    is_consecutive = key(1) - key(0) == 1 if isinstance(key(0), int) else False
    # Pass -1 warms up and is not counted; where caches are missed there is nothing to warm.
    for number in range(-1 if count < 10_000 else 0, passes):
        order = rng.sample(in_order, count)
        loop_ns = empty_loop(None, [key(i) for i in order], 1, time.perf_counter_ns)
        first = number % len(contestants)  # whoever comes first finds the caches coldest
        for contestant in [*contestants[first:], *contestants[:first]]:
            container = contestant.make()
            for op in MAPPING_OPS:
                chosen: Iterable[int] = order
                if op == "insert" and is_consecutive:
                    chosen = in_order
                elif op == "not in":
                    chosen = (i + count for i in order)
                keys = [key(i) for i in chosen]
                took = contestant.passes[op](container, keys, number + 2, time.perf_counter_ns)
                if number >= 0:
                    loop = 0 if op == "iterate" else loop_ns
                    samples.add(op, contestant.name, (took - loop) / count)
        if number % 20 == 0 or count > 100_000:
            heap.collect()
    return samples


def measure_first_stores(heap: dh.Heap, key: KeyMaker, count: int, passes: int) -> float:
    """The honest extra of tracking: sets right after a commit, when each page faults once."""
    heap.root["first stores"] = {key(i): 0 for i in range(count)}
    container = heap.root["first stores"]
    run = timed_loop("c[k] = v")
    empty_loop = timed_loop("pass")
    values = []
    for number in range(passes):
        heap.commit()
        keys = [key(i) for i in random.Random(number).sample(range(count), count)]
        loop_ns = empty_loop(None, keys, 1, time.perf_counter_ns)
        took = run(container, keys, number + 1, time.perf_counter_ns)
        values.append((took - loop_ns) / count)
    del heap.root["first stores"]
    return statistics.median(values)


def measure_value_kinds(heap: dh.Heap, count: int, passes: int) -> Samples:
    """get() by kind of value: what is stored inline costs less than what must be made."""
    kinds: dict[str, Callable[[int], Any]] = {
        "small int": lambda i: i % 200,
        "int": lambda i: i + 100_000,
        "bool": lambda i: i % 2 == 0,
        "None": lambda i: None,
        "float": lambda i: i * 1.1,
        "int of 80 bits": lambda i: (1 << 80) + i,
        "str of 6": lambda i: f"v{i % 100_000:05}",
        "str of 30": lambda i: f"{i:030}",
    }
    samples = Samples()
    empty_loop = timed_loop("pass")
    for kind, value in kinds.items():
        items = {i + 1000: value(i) for i in range(count)}
        heap.root["kinds"] = items
        containers = [("dict", items), ("dict subclass", DictSubclass(items))]
        containers.append(("dirtyheap", heap.root["kinds"]))
        runs = {name: timed_loop("c[k]") for name, _ in containers}
        for number in range(-1, passes):
            order = random.Random(number).sample(range(count), count)
            loop_ns = empty_loop(None, [i + 1000 for i in order], 1, time.perf_counter_ns)
            for name, container in containers:
                keys = [i + 1000 for i in order]
                took = runs[name](container, keys, 1, time.perf_counter_ns)
                if number >= 0:
                    samples.add(f"get {kind}", name, (took - loop_ns) / count)
    del heap.root["kinds"]
    return samples


# --- lists ----------------------------------------------------------------------------------------


IN_ORDER = {"append", "appendleft", "pop", "popleft"}


def empty_loop_ns(order: list[int]) -> dict[bool, float]:
    """What the loop itself costs, over new int objects, as a computed index is: True: in the order
    of their making, False: in this order, in which they miss the caches when there are many."""
    run = timed_loop("pass")
    orders = {True: range(len(order)), False: order}
    return {
        is_in_order: run(None, [i + 1000 - 1000 for i in some], 1, time.perf_counter_ns)
        for is_in_order, some in orders.items()
    }


def measure_lists(heap: dh.Heap, count: int, passes: int) -> Samples:
    """Ints that are objects of their own in the built-in list. `in` scans; insert and delete are at
    random places, where the built-in moves half of the list."""

    def heap_list() -> Any:
        heap.root["list"] = []
        return heap.root["list"]

    contestants: list[tuple[str, Callable[[], Any]]] = [
        ("list", list),
        ("array.array", lambda: array.array("q")),
        ("PersistentList", persistent.list.PersistentList),
        ("dirtyheap", heap_list),
    ]
    passes_of = {
        name: {
            "append": timed_loop("append(k)", "append = c.append"),
            "in": timed_loop("k in c"),
            "index": timed_loop("c[k]"),
            "set": timed_loop("c[k] = v"),
            "iterate": timed_loop("pass", over="c"),
            "insert": timed_loop("insert(k, v)", "insert = c.insert"),
            "delete": timed_loop("del c[k]"),
            "pop": timed_loop("pop()", "pop = c.pop"),
        }
        for name, _ in contestants
    }
    few = {"in": min(count, 20), "insert": min(count, 1000), "delete": min(count, 1000)}
    samples = Samples()
    rng = random.Random(2)
    for number in range(-1, passes):
        order = rng.sample(range(count), count)
        loop_ns = empty_loop_ns(order)
        first = number % len(contestants)
        for name, make in [*contestants[first:], *contestants[:first]]:
            container = make()
            for op, run in passes_of[name].items():
                steps = few.get(op, count)
                keys = [
                    i + 1000 - 1000 for i in (range(count) if op == "append" else order[:steps])
                ]
                took = run(container, keys, 100_000 + number, time.perf_counter_ns)
                if number >= 0:
                    loop = 0 if op == "iterate" else loop_ns[op in IN_ORDER] * steps / count
                    samples.add(op, name, (took - loop) / steps)
        heap.collect()
    del heap.root["list"]
    return samples


def measure_deques(heap: dh.Heap, count: int, passes: int) -> Samples:
    """Both ends, index, iterate, against the built-in."""
    contestants: list[tuple[str, Callable[[], Any]]] = [("deque", deque), ("dirtyheap", heap.deque)]
    passes_of = {
        name: {
            "append": timed_loop("append(k)", "append = c.append"),
            "appendleft": timed_loop("append(k)", "append = c.appendleft"),
            "index": timed_loop("c[k]"),
            "iterate": timed_loop("pass", over="c"),
            "pop": timed_loop("pop()", "pop = c.pop"),
            "popleft": timed_loop("pop()", "pop = c.popleft"),
        }
        for name, _ in contestants
    }
    samples = Samples()
    rng = random.Random(3)
    for number in range(-1, passes):
        order = rng.sample(range(count), count)
        loop_ns = empty_loop_ns(order)
        for name, make in contestants[:: 1 if number % 2 else -1]:
            container = make()
            if name == "dirtyheap":
                heap.root["deque"] = container
            for op, run in passes_of[name].items():
                steps = len(container) if op == "iterate" else count
                keys = [i + 1000 - 1000 for i in (range(count) if op in IN_ORDER else order)]
                took = run(container, keys, 0, time.perf_counter_ns)
                if number >= 0:
                    loop = 0 if op == "iterate" else loop_ns[op in IN_ORDER]
                    samples.add(op, name, (took - loop) / steps)
        heap.collect()
    del heap.root["deque"]
    return samples


# --- all ------------------------------------------------------------------------------------------


def mappings(heap: dh.Heap, directory: Path, *, int_keys: bool) -> tuple[list[Mapping], Lmdb]:
    def heap_dict() -> Any:
        heap.root["dict"] = {}
        return heap.root["dict"]

    engine = Lmdb(directory / f"lmdb-{int_keys}", int_keys=int_keys)
    return [
        Mapping("dict", dict),
        Mapping("dict subclass", DictSubclass),
        Mapping("dirtyheap", heap_dict),
        Mapping("PersistentMapping", persistent.mapping.PersistentMapping),
        Mapping("OOBTree", OOBTree),
        engine,
    ], engine


def main() -> int:
    options = arguments(__doc__ or "")
    facts = header("element access", ["persistent", "BTrees", "lmdb"])
    sizes = [("hot", 2_000, 30 if options.quick else 200)]
    sizes.append(
        ("cache-missing", 50_000 if options.quick else 1_000_000, 2 if options.quick else 3)
    )
    rows: list[Row] = []
    gc.disable()
    with work_directory(options.dir) as directory, dh.open(directory / "heap") as heap:
        for set_name, count, passes in sizes:
            for key_name, key in KEYS.items():
                if set_name != "hot" and key_name == "sparse int":
                    continue  # in shuffled order as scattered as consecutive ones
                contestants, engine = mappings(heap, directory, int_keys=key_name != "str")
                samples = measure_mappings(heap, contestants, key, count, passes)
                engine.close()
                title = f"{set_name}, {key_name} keys"
                samples.add(
                    "set", "dirtyheap after commit", measure_first_stores(heap, key, count, 3)
                )
                report(rows, samples, title, "dict")
                print_aims(samples, set_name, key_name)
        report(rows, measure_value_kinds(heap, 2_000, sizes[0][2]), "hot, value kinds", "dict")
        for set_name, count, passes in sizes:
            samples = measure_lists(heap, count, passes)
            report(rows, samples, f"{set_name}, list", "list")
            ratio = samples.median("index", "dirtyheap") / samples.median("index", "array.array")
            judge(f"{set_name}, list: index / array.array's index", ratio, 1.2)
        for set_name, count, passes in sizes:
            report(rows, measure_deques(heap, count, passes), f"{set_name}, deque", "deque")
    write_csv("access", facts, rows)
    return 0


def report(rows: list[Row], samples: Samples, title: str, reference: str) -> None:
    """Keep all figures; print a line per contestant: ns per operation (ratio to the reference)."""
    new = samples.rows(title, reference)
    rows.extend(new)
    lines: dict[str, Row] = {}
    for row in new:
        line = lines.setdefault(row["what"], {title: row["what"]})
        line[row["op"]] = f"{row['ns']:.0f} ({row['ratio']:.2g}x)"
    print_table(list(lines.values()), [title, *dict.fromkeys(row["op"] for row in new)])


def print_aims(samples: Samples, set_name: str, key_name: str) -> None:
    """The aims of docs/design.md for these operations."""
    insert_aim = 3.0 if key_name == "int" else 2.0
    aims = {"get": 1.5, "set": 1.5, "in": 1.6, "insert": insert_aim, "iterate": 4.0}
    if set_name != "hot":
        aims = {"get": 2.1, "set": 2.1, "in": 2.1}
    for op, aim in aims.items():
        ratio = samples.median(op, "dirtyheap") / samples.median(op, "dict")
        judge(f"{set_name}, {key_name} keys: {op} / dict's", ratio, aim)
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
