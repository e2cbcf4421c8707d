"""Collectors over the same programs, in one run: trees as in GCBench, and a churning graph.

The shapes are written once in C (gc_shapes.h), for our core with each source of written pages and
for the Boehm collector (libgc) with increments and without; and once in Python, for Python's own
objects and for records of a heap. Throughput and memory are of runs without a clock, stops of runs
of their own: a stop is a gap of more than 0.1 ms between two operations, by the clock of the
program that waits. Time in which another process had its processor is taken off everywhere. All
contestants in C must end with the same sum. libgc is taken if it is installed (Debian: libgc-dev)
or unpacked below --libgc; without it its rows say so.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gc_shapes
from common import (
    HERE,
    Row,
    arguments,
    compile_c,
    hand_back,
    has_header,
    header,
    in_fresh_process,
    peak_rss_bytes,
    print_table,
    spread,
    work_directory,
    write_csv,
)

# Depth of the tree that lives on and nodes made per depth; nodes of the table and operations.
SIZES = {
    "trees": (20, 8_000_000),
    "graph": (500_000, 3_000_000),
    "window": (500_000, 3_000_000),
}
QUICK_SIZES = {"trees": (14, 200_000), "graph": (20_000, 400_000), "window": (20_000, 400_000)}
YOUNG_BYTES = 32 << 20  # taken between two young collections of ours
QUICK_YOUNG_BYTES = 2 << 20
PYTHON_SHARE = 8  # Python makes that part of the work: it takes longer for it
ROUNDS = 3
SOURCES = {
    "watch": "dirtyheap: kernel watch",
    "concurrent": "dirtyheap: kernel watch, full cycles beside",
    "marks": "dirtyheap: marks by the program",
    "compare": "dirtyheap: compare",
    "everything": "dirtyheap: every page",
    "full": "dirtyheap: full collections only",
}
BOEHM = {
    "Boehm: whole": ("whole", {}),
    "Boehm: whole, one marker": ("whole", {"GC_MARKERS": "1"}),
    "Boehm: incremental": ("incremental", {}),
}
PYTHON = {"Python's objects, gc on": "on", "Python's objects, gc off": "off"}
PYTHON_HEAP = "dirtyheap from Python: records"
COLUMNS = [
    "shape",
    "collector",
    "ns/op",
    "least",
    "most",
    "stops",
    "median ms",
    "longest ms",
    "% stopped",
    "young",
    "full",
    "peak MB",
    "heap MB",
]

LEGEND = f"""\
op: a node of a tree, an operation on the graph; Python does 1/{PYTHON_SHARE} of the work
graph: stores anywhere, so that soon every page is written; window: most of them near each other
% stopped: of the time of the runs with a clock
young, full: collections after what lives on was made; of libgc, its own count, under full
heap: pages that were ever used; compare keeps a copy, which a store has in its files
"""

Found = dict[str, Any]  # figures of one run: COMMON and some more
Runner = Callable[[str, int, int, str], Found]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--libgc", type=Path, help="where libgc-dev was unpacked (holds usr/include)"
    )
    parser.add_argument(
        "--only", default="", help="words, one of which a contestant's name must hold"
    )
    options = arguments(__doc__ or "", parser)
    if options.part:
        hand_back(python_run(**json.loads(options.part)))
        return 0
    facts = header("collectors, shape by shape")
    sizes = QUICK_SIZES if options.quick else SIZES
    rows: list[Row] = []
    with work_directory(options.dir) as directory:
        young_bytes = QUICK_YOUNG_BYTES if options.quick else YOUNG_BYTES
        runners, absent = contestants(directory, options.libgc, young_bytes)
        wanted = [w for w in options.only.split(",") if w]
        runners = {n: r for n, r in runners.items() if not wanted or any(w in n for w in wanted)}
        for shape, (size, work) in sizes.items():
            found = take_turns(runners, shape, size, work, 1 if options.quick else ROUNDS)
            check_sums(shape, found)
            rows += [row_of(shape, name, runs) for name, runs in found.items()]
            rows += [
                {"shape": shape, "collector": f"{name}: {why}"} for name, why in absent.items()
            ]
    print_table(rows, COLUMNS)
    print(LEGEND)
    for shape in sizes:
        print_ratios(shape, rows)
    if not options.quick and not options.only:
        write_csv("gc_shapes", facts, rows)
    return 0


# --- contestants ----------------------------------------------------------------------------------


def contestants(
    directory: Path, libgc: Path | None, young_bytes: int
) -> tuple[dict[str, Runner], dict[str, str]]:
    sources = sorted((HERE.parent / "native" / "src").glob("*.c"))
    core = compile_c(
        directory / "gc_shapes_core",
        [HERE / "gc_shapes_core.c", *sources],
        "-D_GNU_SOURCE",
        "-pthread",
    )
    runners = {text: core_runner(core, name, young_bytes) for name, text in SOURCES.items()}
    absent = {}
    if not has_header("gc.h", *include_flags(libgc)):
        absent["Boehm"] = "not measured: no libgc here (Debian: apt install libgc-dev)"
    else:
        boehm = build_boehm(directory / "gc_shapes_boehm", libgc)
        runners |= {name: boehm_runner(boehm, *how, libgc) for name, how in BOEHM.items()}
    runners |= {name: python_runner(gc_mode, None, 0) for name, gc_mode in PYTHON.items()}
    runners[PYTHON_HEAP] = python_runner("on", directory, young_bytes)
    return runners, absent


def library_folder(libgc: Path) -> Path:
    """Where the package has its libraries: a folder per architecture."""
    return next(path.parent for path in sorted(libgc.rglob("libgc.so")))


def build_boehm(program: Path, libgc: Path | None) -> Path:
    flags = ["-D_GNU_SOURCE", *include_flags(libgc)]
    if libgc is not None:
        flags.append(f"-L{library_folder(libgc)}")
    return compile_c(program, [HERE / "gc_shapes_boehm.c"], *flags, "-lgc")


def include_flags(libgc: Path | None) -> list[str]:
    return [] if libgc is None else [f"-I{libgc / 'usr' / 'include'}"]


def numbers_of(command: list[Any], environment: dict[str, str] | None = None) -> list[int]:
    words = [str(word) for word in command]
    env = None if environment is None else {**os.environ, **environment}
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=env)
    return [int(word) for word in done.stdout.split()]


COMMON = ("total_ns", "ops", "sum", "peak_bytes", "stops", "median_ns", "longest_ns", "stopped_ns")


def core_runner(program: Path, source: str, young_bytes: int) -> Runner:
    def run(shape: str, size: int, work: int, mode: str) -> Found:
        numbers = numbers_of([program, source, shape, size, work, mode, young_bytes])
        names = (*COMMON, "young", "full", "heap_bytes")
        return dict(zip(names, numbers, strict=True))

    return run


def boehm_runner(
    program: Path, how: str, environment: dict[str, str], libgc: Path | None
) -> Runner:
    if libgc is not None:
        environment = environment | {"LD_LIBRARY_PATH": str(library_folder(libgc))}

    def run(shape: str, size: int, work: int, mode: str) -> Found:
        numbers = numbers_of([program, how, shape, size, work, mode], environment)
        return dict(zip((*COMMON, "full", "heap_bytes"), numbers, strict=True))

    return run


def python_runner(gc_mode: str, directory: Path | None, young_bytes: int) -> Runner:
    def run(shape: str, size: int, work: int, mode: str) -> Found:
        part = {"shape": shape, "size": size, "work": work // PYTHON_SHARE, "gc_mode": gc_mode}
        part |= {"is_timed": mode == "gaps", "directory": directory and str(directory)}
        part["young_bytes"] = young_bytes
        found: Found = in_fresh_process(__file__, part)
        return found

    return run


def python_run(
    shape: str,
    size: int,
    work: int,
    gc_mode: str,
    is_timed: bool,
    directory: str | None,
    young_bytes: int,
) -> Found:
    if gc_mode == "off":
        gc.disable()
    path = Path(directory) / f"{shape}-{os.getpid()}.heap" if directory else None
    run = gc_shapes.run(shape, size, work, is_timed, path, young_bytes)
    gaps = run["gaps_ns"]
    found = {"total_ns": run["total_ns"], "ops": run["ops"], "peak_bytes": peak_rss_bytes()}
    found |= {"stops": len(gaps), "stopped_ns": sum(gaps)}
    if gaps:
        found |= {"median_ns": gaps[len(gaps) // 2], "longest_ns": gaps[-1]}
    found |= {"young": run["young"], "full": run["full"]}
    return found


# --- turns and tables -----------------------------------------------------------------------------


def take_turns(
    runners: dict[str, Runner], shape: str, size: int, work: int, rounds: int
) -> dict[str, dict[str, list[Found]]]:
    found: dict[str, dict[str, list[Found]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(rounds):
        for name, run in runners.items():
            for mode in ("throughput", "gaps"):
                found[name][mode].append(run(shape, size, work, mode))
    return found


def check_sums(shape: str, found: dict[str, dict[str, list[Found]]]) -> None:
    """The same work was done, and no live node was lost, or the figures mean nothing."""
    sums = {
        run["sum"]
        for runs in found.values()
        for run in (*runs["throughput"], *runs["gaps"])
        if "sum" in run
    }
    if len(sums) > 1:
        raise SystemExit(f"{shape}: contestants end with different sums: {sorted(sums)}")


def row_of(shape: str, name: str, runs: dict[str, list[Found]]) -> Row:
    plain, timed = runs["throughput"], runs["gaps"]
    median, least, most = spread([run["total_ns"] / run["ops"] for run in plain])
    row: Row = {"shape": shape, "collector": name, "ns/op": median, "least": least, "most": most}
    row["stops"] = int(spread([run["stops"] for run in timed])[0])
    stopped = [run for run in timed if run["stops"]]
    if stopped:
        row["median ms"] = spread([run["median_ns"] for run in stopped])[0] / 1e6
        row["longest ms"] = max(run["longest_ns"] for run in stopped) / 1e6
    row["% stopped"] = spread([100 * r["stopped_ns"] / r["total_ns"] for r in timed])[0]
    row["young"] = plain[0].get("young")
    row["full"] = plain[0]["full"]
    row["peak MB"] = spread([run["peak_bytes"] for run in plain])[0] / 1e6
    if "heap_bytes" in plain[0]:
        row["heap MB"] = plain[0]["heap_bytes"] / 1e6
    return row


def print_ratios(shape: str, rows: list[Row]) -> None:
    """Ours with the kernel watch against each other, in one line each."""
    ours = next(
        (r for r in rows if (r["shape"], r["collector"]) == (shape, SOURCES["watch"])), None
    )
    for row in rows:
        if ours is None or row is ours or row["shape"] != shape or "ns/op" not in row:
            continue
        text = (
            f"{shape}: kernel watch / {row['collector']}: time {ours['ns/op'] / row['ns/op']:.2f}"
        )
        if row.get("median ms") and ours.get("median ms"):
            text += f", median stop {ours['median ms'] / row['median ms']:.3f}"
            text += f", longest {ours['longest ms'] / row['longest ms']:.3f}"
        print(text)


if __name__ == "__main__":
    sys.exit(main())
