"""A heap twice as large as the memory that its process may have: walked, changed, committed.

The limit is the kernel's: a process that does not fit is killed. Needs a memory cgroup that this
user can make (as root in a container or machine that hands the controller on).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import require_tracker

import dirtyheap as dh

MIB = 1 << 20
HEAP_MIB = 256
LIMIT_MIB = HEAP_MIB // 2
ROUNDS = 4
ROW_BYTES = 1000

# Version 2 and 1 of the interface: directory, file of the limit.
CONTROLLERS = (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"))

WALK = """
import random
import dirtyheap as dh
rows_count, changed, rounds, row_bytes = {numbers}
rng = random.Random(5)
with dh.open({path!r}, memory_limit={memory_limit}) as heap:
    rows = heap.root["rows"]
    assert sum(len(row) for row in rows) == rows_count * row_bytes
    for number in range(1, rounds + 1):
        first = rng.randrange(rows_count - changed)
        for index in range(first, first + changed):
            rows[index] = number.to_bytes(2, "little") * (row_bytes // 2)
        heap.commit()
    assert sum(len(row) for row in rows) == rows_count * row_bytes
    assert heap.verify().ok
print("walked")
"""


def drop_from_cache(directory: Path) -> None:
    """What is in the page cache is on somebody else's account."""
    for file in [p for p in directory.rglob("*") if p.is_file()]:
        fd = os.open(file, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup with the limit, and its file of processes."""
    for root, name in CONTROLLERS:
        directory = Path(root) / f"dirtyheap-test-{os.getpid()}"
        try:
            directory.mkdir()
        except OSError:
            continue
        try:
            if (directory / name).exists():
                (directory / name).write_text(str(LIMIT_MIB * MIB))
                yield directory / "cgroup.procs"
                return
        finally:
            directory.rmdir()
    pytest.skip("no memory cgroup can be made here: it takes root and the memory controller")


@pytest.mark.timeout(300)
def test_a_heap_of_twice_the_memory_is_walked_and_changed(path: Path, cgroup: Path) -> None:
    require_tracker("auto")  # who compares holds a copy of what was touched
    rows_count = HEAP_MIB * MIB // ROW_BYTES
    with dh.open(path) as heap:
        heap.root["rows"] = [bytes([n % 256]) * ROW_BYTES for n in range(rows_count)]
        heap.commit()
        heap.fold()
    drop_from_cache(path)
    program = WALK.format(
        numbers=(rows_count, LIMIT_MIB // 4 * MIB // ROW_BYTES, ROUNDS, ROW_BYTES),
        path=str(path),
        memory_limit=LIMIT_MIB // 4 * MIB,
    )
    joined = f'echo $$ > {cgroup} && exec "$0" -P -c "$1"'
    run = subprocess.run(
        ["sh", "-c", joined, sys.executable, program], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, f"{run.returncode} (-9: it did not fit): {run.stderr[-2000:]}"
    assert run.stdout.startswith("walked")
