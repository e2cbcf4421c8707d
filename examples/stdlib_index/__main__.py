"""Demo: index Python's standard library in a heap, in a process that is killed again and again.

    python examples/stdlib_index [--heap DIR] [--kills 3] [--seed N]

Without --heap the heap lives in a temporary directory and goes with it.
"""

from __future__ import annotations

import argparse
import json
import linecache
import random
import secrets
import sys
import tempfile
from pathlib import Path

import job
import report
from index import python_sources, search
from supervise import JobError, supervise

import dirtyheap as dh

QUERIES = [("socket", "timeout"), ("deque", "maxlen"), ("walrus",)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="stdlib_index")
    parser.add_argument("--heap", type=Path, help="directory of the heap; kept, and resumed")
    parser.add_argument("--kills", type=int, default=3, help="how often to kill the job")
    parser.add_argument("--seed", type=int, help="repeat the kill points of an earlier run")
    parser.add_argument("--role", help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    if arguments.role:
        return play(arguments.role, arguments.heap)
    seed = secrets.randbelow(1 << 32) if arguments.seed is None else arguments.seed
    if arguments.heap:
        return demo(arguments.heap, arguments.kills, seed)
    with tempfile.TemporaryDirectory(prefix="stdlib-index-") as directory:
        return demo(Path(directory) / "heap", arguments.kills, seed)


def play(role: str, heap_path: Path) -> int:
    """Be one of the processes the demo starts."""
    pickle_path = pickle_beside(heap_path)
    if role == "job":
        job.run(heap_path)
        return 0
    if role == "check":
        result = report.check_against_plain_dicts(heap_path, pickle_path)
    elif role == "measure-heap":
        result = report.measure_heap(heap_path)
    elif role == "measure-pickle":
        result = report.measure_pickle(pickle_path)
    elif role == "measure-nothing":
        result = report.measure_nothing()
    else:
        raise SystemExit(f"unknown role {role!r}")
    print(json.dumps(result))
    return 0


def demo(heap_path: Path, kills: int, seed: int) -> int:
    files = python_sources()
    print(
        f"indexing {len(files)} files of Python {sys.version.split()[0]}; seed {seed}", flush=True
    )
    try:
        run = supervise(heap_path, len(files), kills, random.Random(seed))
    except JobError as error:
        print(f"FAILED: {error} (seed {seed})", file=sys.stderr)
        return 1

    print("checking against an index built in plain dicts ...", flush=True)
    try:
        checked = report.in_fresh_process("check", heap_path)
        if not checked["is_equal"]:
            print(f"FAILED: the heap differs from plain dicts (seed {seed})", file=sys.stderr)
            return 1
        show_queries(heap_path)
        print(f"\n{report.table(run, heap_path, checked)}")
    finally:
        pickle_beside(heap_path).unlink(missing_ok=True)
    return 0


def pickle_beside(heap_path: Path) -> Path:
    return heap_path.with_name(heap_path.name + ".pickle")


def show_queries(heap_path: Path) -> None:
    with dh.open(heap_path) as heap:
        for words in QUERIES:
            print(f"\nwhere is {' and '.join(words)}?")
            for hits, path, lines in list(search(heap.root, *words))[:3]:
                text = linecache.getline(path, lines[0]).strip()
                print(f"  {hits:4} hits  {path}:{lines[0]}: {text[:60]}")


if __name__ == "__main__":
    raise SystemExit(main())
