"""The job that may be killed at any moment: open the heap, go on where it ends, commit as it goes.

This is the part to copy. After a kill, even in the middle of a commit, `dirtyheap.open` shows the
last commit, whole; the index itself says how far the work had come.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from index import add_file, prepare, python_sources

import dirtyheap as dh

FILES_PER_COMMIT = 8


def run(heap_path: Path) -> None:
    """Index what is missing and write one JSON line per commit to standard output."""
    files = python_sources()
    with dh.open(heap_path) as heap:
        done = prepare(heap.root)
        print(json.dumps({"resumed_files": done}), flush=True)
        for number in range(done, len(files)):
            add_file(heap.root, number, files[number])
            if (number + 1) % FILES_PER_COMMIT == 0 or number + 1 == len(files):
                start_ns = time.perf_counter_ns()
                commit = heap.commit(note=f"{number + 1} files")
                call_ns = time.perf_counter_ns() - start_ns
                line = {
                    "files": number + 1,
                    "terms": len(heap.root["terms"]),
                    "commit_id": commit.id,
                    "call_ns": call_ns,
                    "stop_ns": commit.pause_ns,
                    "changed_bytes": commit.bytes_changed,
                    "written_bytes": commit.bytes_written,
                    "wchar_bytes": written_by_this_process(),
                }
                print(json.dumps(line), flush=True)


def written_by_this_process() -> int:
    """Bytes this process has handed to the operating system, by the kernel's own count."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"])
