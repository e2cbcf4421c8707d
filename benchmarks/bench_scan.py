"""The watch's scan against the bare PAGEMAP_SCAN ioctl: what the layers above the kernel cost.

A C program (scan_compare.c), built here from the core's own sources, keeps two arenas of the same
size with the same pages written and scans them in turns: once as a commit does (scan, merge into
every cursor, take), once by the shortest loop around the ioctl. Median of the rounds.

Then the same from Python: `WriteWatch.get(reset=True)`, one call, against that loop, which times
itself in C (bare_scan.c); the least of the rounds. Runs come back in memory of C, so there is
nothing per page in Python.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from common import (
    HERE,
    Row,
    arguments,
    compile_c,
    header,
    judge,
    print_table,
    work_directory,
    write_csv,
)

import dirtyheap as dh

WATCH_COLUMNS = ["MB", "written pages", "pattern", "get us", "bare us", "extra us", "ratio"]
COLUMNS = ["arena MB", "written pages", "pattern", "ours us", "bare us", "ratio"]
NO_KERNEL_TRACKER = 2
AIM = 1.1


def main() -> int:
    options = arguments(__doc__ or "")
    facts = header("scan", [])
    pages_counts = [1 << 14] if options.quick else [1 << 14, 1 << 18]
    rounds = 21 if options.quick else 101
    rows: list[Row] = []
    with work_directory(options.dir) as directory:
        program = build(directory / "scan_compare")
        for pages_count in pages_counts:
            for dirty_count in (0, 10, 1000, pages_count // 10):
                for pattern in ("random", "run"):
                    row = run(program, pages_count, dirty_count, pattern, rounds)
                    if row is None:
                        print("no kernel tracker here: nothing to compare")
                        return 0
                    rows.append(row)
    print_table(rows, COLUMNS)
    for row in rows:
        what = f"{row['arena MB']} MB, {row['written pages']} pages {row['pattern']}"
        judge(f"{what}: ours / bare", row["ratio"], AIM)
    write_csv("scan", facts, rows)
    rows = write_watch_rows(rounds, options.dir)
    print_table(rows, WATCH_COLUMNS)
    for row in rows:
        if row["MB"] == 1024:  # in the smaller ones the price of a call shows: "extra us"
            what = f"WriteWatch, {row['MB']} MB, {row['written pages']} pages {row['pattern']}"
            judge(f"{what}: ours / bare", row["ratio"], AIM)
    write_csv("scan_write_watch", facts, rows)
    return 0


def build(program: Path) -> Path:
    sources: Sequence[Path] = sorted((HERE.parent / "native" / "src").glob("*.c"))
    return compile_c(program, [HERE / "scan_compare.c", *sources], "-D_GNU_SOURCE", "-pthread")


def run(program: Path, pages_count: int, dirty_count: int, pattern: str, rounds: int) -> Row | None:
    words = [pages_count, dirty_count, pattern, rounds]
    done = subprocess.run([program, *map(str, words)], stdout=subprocess.PIPE, text=True)
    if done.returncode == NO_KERNEL_TRACKER:
        return None
    if done.returncode != 0:
        raise RuntimeError(f"scan_compare {words} ended with code {done.returncode}")
    ours_ns, bare_ns, found_ours, found_bare = map(int, done.stdout.split())
    if not found_ours == found_bare == dirty_count:
        raise RuntimeError(f"{dirty_count} pages written, found {found_ours} and {found_bare}")
    return {
        "arena MB": pages_count * 4096 >> 20,
        "written pages": dirty_count,
        "pattern": pattern,
        "ours us": ours_ns / 1e3,
        "bare us": bare_ns / 1e3,
        "ratio": ours_ns / bare_ns,
    }


# --- dh.WriteWatch --------------------------------------------------------------------------------


def write_watch_rows(rounds: int, directory: Path | None) -> list[Row]:
    """From 64 KiB, where the price is that of a call from Python, to 1 GiB."""
    with work_directory(directory) as place:
        source = HERE / "bare_scan.c"
        library = ctypes.CDLL(
            str(compile_c(place / "bare_scan.so", [source], "-D_GNU_SOURCE", "-shared", "-fPIC"))
        )
    library.bare_new.restype = library.bare_memory.restype = ctypes.c_void_p
    library.bare_time.restype = ctypes.c_uint64
    rows = []
    for pages_count in (16, 1 << 14, 1 << 18):
        library.bare_new.argtypes = [ctypes.c_uint64]
        bare = ctypes.c_void_p(library.bare_new(pages_count))
        with dh.WriteWatch(pages_count * 4096) as watch:
            for dirty_count in (0, 10, 1000, pages_count // 10):
                for pattern in ("random", "run") if 1 < dirty_count <= pages_count else ():
                    row = write_watch_row(library, bare, watch, dirty_count, pattern, rounds)
                    rows.append(row)
                if dirty_count == 0:
                    rows.append(write_watch_row(library, bare, watch, 0, "-", rounds))
    return rows


def write_watch_row(
    library: ctypes.CDLL,
    bare: ctypes.c_void_p,
    watch: dh.WriteWatch,
    dirty_count: int,
    pattern: str,
    rounds: int,
) -> Row:
    """The two in turns, the same pages written in both."""
    pages_count = watch.pages_count
    ours = ctypes.addressof(ctypes.c_char.from_buffer(watch.buffer))
    theirs = library.bare_memory(bare)
    found = ctypes.c_uint64()
    ours_ns, bare_ns = [], []

    def write(base: int, count: int, is_random: bool, value: int) -> None:
        words = (ctypes.c_void_p(base), ctypes.c_uint64(pages_count), ctypes.c_uint64(count))
        library.write_pages(*words, int(is_random), ctypes.c_uint8(value))

    for base in (ours, theirs):
        write(base, pages_count, False, 1)  # no page is missing from now on
    watch.reset()
    library.bare_time(bare, ctypes.byref(found))
    pages = watch.get()
    for number in range(rounds):
        write(ours, dirty_count, pattern == "random", number % 256)
        start = time.perf_counter_ns()
        pages = watch.get(reset=True)
        ours_ns.append(time.perf_counter_ns() - start)
        write(theirs, dirty_count, pattern == "random", number % 256)
        bare_ns.append(library.bare_time(bare, ctypes.byref(found)))
        if not pages.count == found.value == dirty_count:
            raise RuntimeError(f"{dirty_count} written, found {pages.count} and {found.value}")
    ours_least, bare_least = min(ours_ns), min(bare_ns)  # other work only ever adds
    return {
        "MB": pages_count * 4096 / (1 << 20),
        "written pages": dirty_count,
        "pattern": pattern,
        "get us": ours_least / 1e3,
        "bare us": bare_least / 1e3,
        "extra us": (ours_least - bare_least) / 1e3,
        "ratio": ours_least / bare_least,
    }


if __name__ == "__main__":
    sys.exit(main())
