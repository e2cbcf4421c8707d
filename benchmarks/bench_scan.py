"""The watch's scan against the bare PAGEMAP_SCAN ioctl: what the layers above the kernel cost.

A C program (scan_compare.c), built here from the core's own sources, keeps two arenas of the same
size with the same pages written and scans them in turns: once as a commit does (scan, merge into
every cursor, take), once by the shortest loop around the ioctl. Median of the rounds.
"""

from __future__ import annotations

import subprocess
import sys
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


if __name__ == "__main__":
    sys.exit(main())
