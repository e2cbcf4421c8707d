"""Opening a heap: how long it takes, what memory it takes, what the first uses of it cost.

    python benchmarks/bench_open.py [--quick] [--dir DIR]

For heaps of several sizes, warm and cold, after no and after 200 scattered commits: the open itself
beside pickle.load of equal data, reading everything, the first store, a fold; private memory after
each; and a rollback of k pages in the largest heap. The data are records as dicts of six fields.
Each figure is taken in a fresh process, the best of five opens (cold: one).
"""

from __future__ import annotations

import json
import os
import pickle
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common import arguments, hand_back, header, in_fresh_process, print_table, work_directory

CHUNK_ROWS = 50_000
ROW_BYTES = 150  # about what one takes in a heap
COMMITS = 200
CHANGES = 100  # records a commit
Row = dict[str, Any]


def rows(first: int, count: int) -> list[Row]:
    rng = random.Random(first)
    return [
        {
            "id": i,
            "name": f"name of {i}",
            "score": rng.random(),
            "count": rng.randrange(1 << 40),
            "tag": "even" if i % 2 == 0 else "odd",
            "live": i % 3 == 0,
        }
        for i in range(first, first + count)
    ]


# --- memory and page cache ------------------------------------------------------------------------


def memory_mib() -> Row:
    """Of this process: what is its own and what it shares, proportionally."""
    found = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) / 1024
    return {"private": found["Private_Dirty"], "pss": found["Pss"]}


def drop_from_cache(path: Path) -> None:
    for file in [p for p in path.rglob("*") if p.is_file()]:
        fd = os.open(file, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return (time.perf_counter() - began) * 1000, result


# --- parts, each in a process of its own ----------------------------------------------------------


def make(part: Row) -> Row:
    import dirtyheap as dh

    path, size = Path(part["path"]), part["mib"] << 20
    number = 0
    with dh.open(path / "heap") as heap, (path / "pickle").open("wb") as pickled:
        table = heap.root["rows"] = heap.list()
        while heap.stats().arena_bytes < size:
            chunk = rows(number, CHUNK_ROWS)
            table.extend(chunk)
            pickle.dump(chunk, pickled, protocol=5)
            number += CHUNK_ROWS
        heap.commit()
        heap.fold()
    return {"rows": number}


def scatter(part: Row) -> Row:
    import dirtyheap as dh

    rng = random.Random(1)
    with dh.open(Path(part["path"]) / "heap") as heap:
        table = heap.root["rows"]
        for _ in range(COMMITS):
            for _ in range(CHANGES):
                table[rng.randrange(len(table))]["score"] = rng.random()
            heap.commit()
        stats = heap.stats()
        return {"unfolded": stats.overlay_pages}


def opened(part: Row) -> Row:
    import dirtyheap as dh

    path = Path(part["path"]) / "heap"
    result: Row = {}
    if part.get("cold"):
        drop_from_cache(path)
        result["open"], heap = timed(lambda: dh.open(path))
    else:
        dh.open(path).close()
        times = []
        for _ in range(5):
            took, heap = timed(lambda: dh.open(path))
            times.append(took)
            heap.close()
        result["open"] = min(times)
        heap = dh.open(path)
    before = memory_mib()
    result["read one"], _ = timed(lambda: heap.root["rows"][12345]["score"])
    result["private"] = memory_mib()["private"] - before["private"]
    if part["then"] == "read":
        result["read all"], _ = timed(lambda: read_all(heap))
        result["pss"] = memory_mib()["pss"] - before["pss"]
    else:
        result["first store"], _ = timed(lambda: store(heap, 0))
        result["second store"], _ = timed(lambda: store(heap, 1))
    heap.close()
    return result


def read_all(heap: Any) -> float:
    return float(sum(row["score"] for row in heap.root["rows"]))


def store(heap: Any, index: int) -> None:
    heap.root["rows"][index]["score"] = 0.5


def preloaded(part: Row) -> Row:
    import dirtyheap as dh

    took, heap = timed(lambda: dh.open(Path(part["path"]) / "heap", preload=True))
    read, _ = timed(lambda: read_all(heap))
    heap.close()
    return {"open preloaded": took, "read all then": read}


def unpickled(part: Row) -> Row:
    def load() -> Iterator[list[Row]]:
        with (Path(part["path"]) / "pickle").open("rb") as file:
            for _ in range(part["rows"] // CHUNK_ROWS):
                yield pickle.load(file)

    took, _ = timed(lambda: list(load()))
    return {"pickle.load": took}


def write_pages(heap: Any, pages: int, rng: random.Random) -> None:
    """Change records at random until so many pages are written, or almost all that hold one."""
    table, reached = heap.root["rows"], 0
    while (missing := pages - reached) > 0:
        for _ in range(max(1, missing // 2)):
            table[rng.randrange(len(table))]["score"] = rng.random()
        before, reached = reached, heap.pending().pages
        if reached - before < max(1, missing // 20):
            return


def memory(part: Row) -> Row:
    import dirtyheap as dh

    rng = random.Random(2)
    heap = dh.open(Path(part["path"]) / "heap")
    read_all(heap)
    start = memory_mib()["private"]
    result = {}
    for pages in part["pages"]:
        write_pages(heap, pages, rng)
        heap.commit()
        result[f"{pages:,} pages written"] = memory_mib()["private"] - start
        heap.fold()
        result[f"{pages:,} and folded"] = memory_mib()["private"] - start
    heap.close()
    return result


def rollback(part: Row) -> Row:
    import dirtyheap as dh

    rng = random.Random(3)
    result = {}
    with dh.open(Path(part["path"]) / "heap") as heap:
        store(heap, 0)
        heap.rollback()
        for pages in part["pages"]:
            write_pages(heap, pages, rng)
            dirty = heap.pending().pages
            took, _ = timed(heap.rollback)
            result[str(pages)] = {"pages": dirty, "ms": took, "us a page": took * 1000 / dirty}
    return result


PARTS = {
    work.__name__: work for work in (make, scatter, opened, preloaded, unpickled, memory, rollback)
}


def run(work: Callable[[Row], Row], **part: Any) -> Row:
    result: Row = in_fresh_process(__file__, {"work": work.__name__, **part})
    return result


def measure(path: Path, mib: int, table: list[Row]) -> None:
    made = run(make, path=str(path), mib=mib)
    pickle_ms = run(unpickled, path=str(path), rows=made["rows"])["pickle.load"]
    for commits in (0, COMMITS):
        unfolded = run(scatter, path=str(path))["unfolded"] if commits else 0
        read = run(opened, path=str(path), then="read")
        stored = run(opened, path=str(path), then="store")
        cold = run(opened, path=str(path), then="read", cold=True)
        table.append(
            {
                "MiB": mib,
                "commits": commits,
                "unfolded pages": unfolded,
                "open ms": read["open"],
                "pickle / open": pickle_ms / read["open"],
                "read one ms": read["read one"],
                "private MiB": read["private"],
                "first store ms": stored["first store"],
                "read all ms": read["read all"],
                "cold open ms": cold["open"],
                "cold read all ms": cold["read all"],
                "pickle.load ms": pickle_ms,
                **run(preloaded, path=str(path)),
            }
        )


def main() -> None:
    args = arguments(__doc__ or "")
    if args.part:
        part = json.loads(args.part)
        hand_back(PARTS[part["work"]](part))
        return
    header("open")
    sizes = [16, 64] if args.quick else [64, 256, 1024, 2048]
    pages = [10, 100, 1000] if args.quick else [10, 100, 1000, 10_000, 100_000]
    table: list[Row] = []
    for mib in sizes:
        with work_directory(args.dir) as path:
            measure(path, mib, table)
            if mib == sizes[-2]:
                kept = run(memory, path=str(path), pages=pages[1:-1])
                undone = run(rollback, path=str(path), pages=pages)
    print_table(table, list(table[0]))
    print(f"private memory of a heap of {sizes[-2]} MiB, MiB more than after reading all of it")
    print_table([kept], list(kept))
    print(f"rollback in a heap of {sizes[-2]} MiB")
    print_table(list(undone.values()), ["pages", "ms", "us a page"])


if __name__ == "__main__":
    main()
