"""Checks the finished heap against plain dicts and measures it; everything in fresh processes."""

from __future__ import annotations

import gc
import json
import os
import pickle
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from index import add_file, prepare, python_sources
from supervise import Run

import dirtyheap as dh

# --- roles: each runs in a process of its own and prints one JSON line ----------------------------


def check_against_plain_dicts(heap_path: Path, pickle_path: Path) -> dict[str, Any]:
    """Build the index in plain dicts, compare it with the heap, pickle it once."""
    plain: dict[str, Any] = {}
    start = time.perf_counter()
    prepare(plain)
    for number, path in enumerate(python_sources()):
        add_file(plain, number, path)
    build_s = time.perf_counter() - start

    with dh.open(heap_path) as heap:
        copy = dh.to_python(heap.root)
    is_equal = copy == plain and list(copy["terms"]) == list(plain["terms"])

    start = time.perf_counter()
    with pickle_path.open("wb") as file:
        pickle.dump(plain, file, protocol=5)
        file.flush()
        os.fsync(file.fileno())
    pickle_s = time.perf_counter() - start
    return {
        "is_equal": is_equal,
        "build_s": build_s,
        "pickle_s": pickle_s,
        "pickle_bytes": pickle_path.stat().st_size,
        "files": len(plain["files"]),
        "terms": len(plain["terms"]),
        "postings": sum(map(len, plain["terms"].values())),
    }


def measure_heap(heap_path: Path) -> dict[str, Any]:
    """Time to open the heap and read one entry, then memory with all of it read."""
    start = time.perf_counter()
    heap = dh.open(heap_path)
    first_lines = len(heap.root["terms"]["import"])
    open_s = time.perf_counter() - start
    lines = sum(len(found) for term in heap.root["terms"].values() for found in term.values())
    result = {"open_s": open_s, "first": first_lines, "lines": lines, **memory()}
    heap.close()
    return result


def measure_pickle(pickle_path: Path) -> dict[str, Any]:
    """The same with pickle.load: what a program does that keeps its state in one pickle."""
    start = time.perf_counter()
    with pickle_path.open("rb") as file:
        index = pickle.load(file)
    first_lines = len(index["terms"]["import"])
    open_s = time.perf_counter() - start
    lines = sum(len(found) for term in index["terms"].values() for found in term.values())
    return {"open_s": open_s, "first": first_lines, "lines": lines, **memory()}


def measure_nothing() -> dict[str, Any]:
    """Memory of the same interpreter and modules without any index."""
    return dict(memory())


def memory() -> dict[str, int]:
    """This process's share of physical memory, and how much of it is its own.

    The rest are pages of files: the kernel can drop and read them again, and shares them.
    """
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    fields = {
        name: int(value.split()[0]) * 1024 for name, value in (line.split(":") for line in lines)
    }
    return {"pss_bytes": fields["Pss"], "own_bytes": fields["Pss_Anon"]}


# --- the table ------------------------------------------------------------------------------------


def in_fresh_process(role: str, heap_path: Path) -> dict[str, Any]:
    """Run one of the roles above in a new interpreter and return what it printed."""
    command = [sys.executable, str(Path(__file__).parent), "--role", role, "--heap", str(heap_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def median_of(measure: Callable[[], dict[str, Any]], times: int = 3) -> dict[str, Any]:
    """Field by field the median of several fresh processes."""
    results = [measure() for _ in range(times)]
    return {name: statistics.median(result[name] for result in results) for name in results[0]}


def table(run: Run, heap_path: Path, checked: dict[str, Any]) -> str:
    """Everything the demo found out, as one table."""
    heap = median_of(lambda: in_fresh_process("measure-heap", heap_path))
    objects = median_of(lambda: in_fresh_process("measure-pickle", heap_path))
    bare = median_of(lambda: in_fresh_process("measure-nothing", heap_path))
    if heap["lines"] != objects["lines"]:
        raise RuntimeError("the heap and the pickle hold different indexes")
    heap_memory = heap["pss_bytes"] - bare["pss_bytes"]
    heap_own = heap["own_bytes"] - bare["own_bytes"]
    object_memory = objects["pss_bytes"] - bare["pss_bytes"]
    calls = [commit["call_ns"] / 1e6 for commit in run.commits]
    stops = [commit["stop_ns"] / 1e6 for commit in run.commits]
    changed = sum(commit["changed_bytes"] for commit in run.commits)
    written = sum(commit["written_bytes"] for commit in run.commits)
    on_disk = sum(path.stat().st_blocks * 512 for path in heap_path.rglob("*") if path.is_file())
    commits = len(run.commits)

    rows = [
        ("files, terms", f"{checked['files']:,}, {checked['terms']:,}"),
        ("postings, line numbers", f"{checked['postings']:,}, {int(heap['lines']):,}"),
        ("equal to plain dicts", "yes"),
        ("kills survived", f"{run.kills}"),
        ("time in all; plain dicts alone", f"{run.seconds:.1f} s; {checked['build_s']:.1f} s"),
        ("memory: heap", f"{mb(heap_memory)}, without pages of files {mb(heap_own)}"),
        ("memory: Python objects", f"{mb(object_memory)} ({object_memory / heap_memory:.1f}x)"),
        ("commits", f"{commits}"),
        ("commit() took, median / worst", median_worst(calls)),
        ("all threads stopped, median / worst", median_worst(stops)),
        ("bytes changed", f"{mb(changed)}, {mb(changed / commits)} a commit"),
        ("bytes written", f"{mb(written)}, {mb(written / commits)} a commit"),
        ("bytes written, kernel's count", f"{mb(run.wchar_bytes)}"),
        ("heap on disk", f"{mb(on_disk)}"),
        (
            "one whole pickle, synced",
            f"{checked['pickle_s'] * 1e3:.0f} ms, {mb(checked['pickle_bytes'])}",
        ),
        (
            f"a pickle at each of {commits} commits",
            f"would write {mb(sum_of_growing_pickles(run, checked['pickle_bytes']))}",
        ),
        ("open and read one entry: heap", f"{heap['open_s'] * 1e3:.1f} ms"),
        (
            "open and read one entry: pickle.load",
            f"{objects['open_s'] * 1e3:.0f} ms ({objects['open_s'] / heap['open_s']:.0f}x)",
        ),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def sum_of_growing_pickles(run: Run, last_bytes: int) -> float:
    """A pickle grows with the index: about in proportion to the files entered."""
    files: list[int] = [commit["files"] for commit in run.commits]
    return last_bytes * sum(files) / files[-1]


def median_worst(milliseconds: list[float]) -> str:
    return f"{statistics.median(milliseconds):.1f} / {max(milliseconds):.1f} ms"


def mb(count: float) -> str:
    return f"{count / 1e6:.2f} MB" if count < 1e7 else f"{count / 1e6:.0f} MB"
