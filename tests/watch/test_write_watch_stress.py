"""No write is lost: threads without the GIL write at full speed, a scanner copies what is told.

Two cursors, each with a copy of the memory. Between rounds the writers stand still, the rest is
taken, and both copies must equal the memory, byte for byte. The scanner draws everything: parts of
the range, max_pages, the length of the kernel's vector, whether it looks before it takes, scans
that fail, and pages that the kernel takes away. A last round leaves out the merge of one scan: then
the comparison must fail.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract import PAGE, TECHNIQUES, libc
from helpers import compile_library, fault, require_tracker, seeded
from test_write_watch import (
    MADV_PAGEOUT,
    anonymous,
    base_pages,
    huge_pages,
    private_file,
    require_technique,
    shared_disk_file,
    shared_memory,
)

import dirtyheap as dh

pytestmark = pytest.mark.timeout(120)

PAGES = 4096
GOAL_PAGES = {"uffd": 220_000, "uffd-dev": 30_000, "compare": 30_000}  # copied, for each kind
SOAK_S = 3600


class Writer(ctypes.Structure):
    _fields_ = (
        ("memory", ctypes.c_void_p),
        ("pages_count", ctypes.c_uint64),
        ("seed", ctypes.c_uint64),
        ("fd", ctypes.c_int),
        ("is_over", ctypes.c_int),
        ("writes_count", ctypes.c_uint64),
        ("error", ctypes.c_int),
        ("thread", ctypes.c_ulong),
    )


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    output = tmp_path_factory.mktemp("writers") / "writers.so"
    return ctypes.CDLL(str(compile_library(output, Path(__file__).with_name("writers.c"))))


@pytest.fixture(scope="session")
def source_fd() -> Iterator[int]:
    """What the kernel's writer reads."""
    fd = os.memfd_create("source")
    os.write(fd, os.urandom(4096))
    yield fd
    os.close(fd)


def mixed(pages: int, tmp_path: Path) -> Any:
    """Anonymous, with a private and a shared piece of a file, and huge pages where they fit."""
    memory = anonymous(pages)
    with contextlib.suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    with (tmp_path / "pieces").open("w+b") as file:
        file.write(os.urandom(PAGE) * 600)
        file.flush()
        for at, kind, first in ((100, mmap.MAP_PRIVATE, 0), (2000, mmap.MAP_SHARED, 300)):
            where = address + at * PAGE
            access = mmap.PROT_READ | mmap.PROT_WRITE
            mapped = libc.mmap(where, 300 * PAGE, access, kind | 0x10, file.fileno(), first * PAGE)
            assert mapped == where
    return memory


KINDS = (base_pages, huge_pages, shared_memory, private_file, shared_disk_file, mixed)


@dataclass
class Course:
    """What happened, for the test's own judgement."""

    copied_pages: int = 0
    writes: int = 0
    gets: int = 0
    failures: int = 0
    rounds: int = 0
    lost_pages: int = 0
    rng: random.Random = field(default_factory=random.Random, repr=False)


class Scanner:
    """Two cursors and what each copied."""

    def __init__(self, watch: dh.WriteWatch, course: Course) -> None:
        self.course = course
        self.memory = np.frombuffer(watch.buffer, "u8").reshape(PAGES, -1)
        self.cursors = (watch, watch.cursor())
        self.copies = (self.memory.copy(), self.memory.copy())

    def take(self, who: int, *arguments: Any, **options: Any) -> dh.Pages:
        pages = self.cursors[who].get(*arguments, reset=True, **options)
        numbers = np.asarray(pages.numbers())
        self.copies[who][numbers] = self.memory[numbers]
        self.course.copied_pages += pages.count
        self.course.gets += 1
        return pages

    def step(self) -> None:
        """One drawn way to ask."""
        rng = self.course.rng
        who = rng.randrange(2)
        start, stop = sorted(rng.randrange(PAGES + 1) for _ in range(2))
        kind = rng.randrange(7)
        if kind == 0:
            self.take(who)
        elif kind == 1:
            self.take(who, start, stop)
        elif kind == 2:
            at, most = start, rng.choice((1, 7, 64, 700))
            for _ in range(20):
                if (at := self.take(who, at, max_pages=most).next) is None:
                    break
        elif kind == 3:
            self.cursors[who].get(start, stop, max_pages=rng.randrange(1, 500))
        elif kind == 4:
            edges = sorted({0, PAGES, *(rng.randrange(PAGES) for _ in range(9))})
            for low, high in pairwise(edges):
                self.take(who, low, high)
        elif kind == 5:
            self.send_away(start, stop)
        else:
            self.fail(who, start, stop)

    def send_away(self, start: int, stop: int) -> None:
        """The kernel takes pages away under the writers: of files and of shared memory."""
        where = self.memory.ctypes.data + start * PAGE
        assert libc.madvise(where, (stop - start) * PAGE, MADV_PAGEOUT) == 0

    def fail(self, who: int, start: int, stop: int) -> None:
        """A scan that has armed pages and tells nobody."""
        code = self.course.rng.choice((errno.EPERM, errno.EFAULT, errno.ENOMEM))
        with (
            fault("watch.scan", self.course.rng.randrange(2), code),
            contextlib.suppress(OSError, MemoryError, dh.TrackerError),
        ):
            self.take(who, start, stop)
            return
        self.course.failures += 1

    def settle(self) -> int:
        """Nobody writes now: take the rest; how many pages are not as they should be?"""
        for who in range(2):
            self.take(who)
        return max(int((copy != self.memory).any(axis=1).sum()) for copy in self.copies)


def run_round(library: ctypes.CDLL, scanner: Scanner, steps: int, source_fd: int) -> None:
    course = scanner.course
    address = scanner.memory.ctypes.data
    writers = [
        Writer(memory=address, pages_count=PAGES, seed=course.rng.getrandbits(60), fd=fd)
        for fd in (-1, -1, source_fd)
    ]
    for writer in writers:
        assert library.writer_start(ctypes.byref(writer)) == 0
    try:
        for _ in range(steps):
            few = course.rng.choice((0, 0, 1, 3, 50))
            with fault("watch.vec_len", 0, few):
                scanner.step()
    finally:
        for writer in writers:
            assert library.writer_stop(ctypes.byref(writer)) == 0
    course.writes += sum(writer.writes_count for writer in writers)
    course.rounds += 1


def stress(
    library: ctypes.CDLL, memory: Any, technique: str, source_fd: int, goal: int, seconds: float
) -> Course:
    course = Course(rng=seeded())
    deadline = time.monotonic() + seconds
    with dh.WriteWatch(memory, technique=technique) as watch:
        scanner = Scanner(watch, course)
        while course.copied_pages < goal or course.rounds < 2 or time.monotonic() < deadline:
            run_round(library, scanner, 12, source_fd)
            course.lost_pages += scanner.settle()
            assert course.lost_pages == 0, course
        del scanner
    return course


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_no_write_is_lost(
    library: ctypes.CDLL, source_fd: int, technique: str, kind: Any, tmp_path: Path
) -> None:
    """With uffd 1.3 million pages in all, for each of two cursors half."""
    require_technique(technique)
    goal = GOAL_PAGES.get(technique, 30_000)
    course = stress(library, kind(PAGES, tmp_path), technique, source_fd, goal, 0)
    print(course)
    assert course.lost_pages == 0
    assert course.copied_pages >= goal
    assert course.writes > goal / 10


@pytest.mark.soak
@pytest.mark.timeout(2 * SOAK_S)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_no_write_is_lost_in_an_hour(
    library: ctypes.CDLL, source_fd: int, technique: str, kind: Any, tmp_path: Path
) -> None:
    """An hour over all kinds and techniques."""
    require_technique(technique)
    seconds = SOAK_S / len(KINDS) / len(TECHNIQUES)
    course = stress(library, kind(PAGES, tmp_path), technique, source_fd, 0, seconds)
    print(course)
    assert course.lost_pages == 0


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_lost_write_is_noticed(library: ctypes.CDLL, source_fd: int, technique: str) -> None:
    """The negative control: a scan whose pages reach no cursor."""
    require_technique(technique)
    course = Course(rng=seeded())
    with dh.WriteWatch(PAGES * PAGE, technique=technique) as watch:
        scanner = Scanner(watch, course)
        run_round(library, scanner, 5, source_fd)
        assert scanner.settle() == 0
        run_round(library, scanner, 0, source_fd)
        while not course.writes:
            run_round(library, scanner, 1, source_fd)
        scanner.memory[7] += 1
        with fault("watch.merge", 0, 1):
            scanner.take(0)
        assert scanner.settle() >= 1


def test_a_heap_and_a_watch_share_the_work(
    library: ctypes.CDLL, source_fd: int, path: Path
) -> None:
    """Writers in a heap's Buffer; commits and a watch scan in turns; a next process finds all."""
    require_tracker("uffd")
    course = Course(rng=seeded())
    with dh.open(path, tracker="uffd") as heap:
        heap.root["data"] = heap.buffer(PAGES * PAGE)
        heap.commit()
        with dh.WriteWatch(heap.root["data"]) as watch:
            scanner = Scanner(watch, course)
            for _ in range(4):
                run_round(library, scanner, 6, source_fd)
                heap.commit()
                assert scanner.settle() == 0
            run_round(library, scanner, 6, source_fd)
            expected = scanner.memory.copy()
            assert scanner.settle() == 0
            heap.commit()
            del scanner
    with dh.open(path, read_only=True) as snapshot:
        found = np.frombuffer(snapshot.root["data"], "u8").reshape(PAGES, -1)
        assert np.array_equal(found, expected)
        del found
