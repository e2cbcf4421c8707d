"""Verify: what a heap has in memory, held against the rules of its structure.

What is damaged is named by where it is reached: ``root['users'][17]['name']``. Nothing here repairs
anything, and nothing is changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ._ffi import check, ffi, lib
from .results import Problem, VerifyReport

_PROBLEMS_MAX: Final = 200
_CELLS_ALL: Final = (1 << 64) - 1

Progress = Callable[[str, int, int], object]
"""Called as ``progress(step, done, total)``; what it raises ends the run."""


def _silent(step: str, done: int, total: int) -> None:
    pass


@dataclass
class _Findings:
    """What one run has found so far."""

    began_ns: int = field(default_factory=time.perf_counter_ns)
    problems: list[Problem] = field(default_factory=list)
    problems_count: int = 0
    commits: int = 0
    bytes: int = 0
    stats: Any = None

    def add(self, path: str, what: object, where: str = "", count: int = 1) -> None:
        """Note a problem; beyond the first so many they are only counted."""
        if len(self.problems) < _PROBLEMS_MAX:
            self.problems.append(Problem(path, str(what), where))
        self.problems_count += count

    def report(self) -> VerifyReport:
        """The end."""
        stats = self.stats or ffi.new("dh_verify_stats *")
        return VerifyReport(
            problems=tuple(self.problems),
            problems_count=self.problems_count,
            containers=stats.containers_count,
            cells=stats.cells_count,
            unreachable_cells=stats.unreachable_cells_count,
            unreachable_bytes=stats.unreachable_bytes,
            pages=stats.pages_count,
            commits=self.commits,
            bytes=self.bytes,
            duration_ns=time.perf_counter_ns() - self.began_ns,
        )


def verify_open(heap_ptr: Any, directory: Path, progress: Progress | None = None) -> VerifyReport:
    """Check an open heap; see :meth:`Heap.verify`. Needs the heap's lock."""
    run = _Run(directory, progress)
    run.check_structure(heap_ptr, step_cells=None)
    return run.findings.report()


class _Run:
    """One run over one heap."""

    def __init__(self, directory: Path, progress: Progress | None) -> None:
        self.directory = directory
        self.findings = _Findings()
        self._tell = progress or _silent

    def check_structure(self, ptr: Any, *, step_cells: int | None) -> None:
        """Walk the allocator and everything reachable. ``step_cells`` None: in one stop."""
        out, is_done = ffi.new("dh_verify **"), ffi.new("int *")
        check(lib.dh_verify_new(ptr, out), ptr)
        stats = ffi.new("dh_verify_stats *")
        try:
            while not is_done[0]:
                check(lib.dh_verify_run(out[0], step_cells or _CELLS_ALL, is_done), ptr)
                lib.dh_verify_stats_read(out[0], stats)
                self._tell("contents", stats.cells_count, stats.allocated_cells_count)
            self.findings.stats = stats
            self._take_problems(out[0], int(stats.problems_count))
        finally:
            lib.dh_verify_free(out[0])

    def _take_problems(self, run: Any, count: int) -> None:
        texts = [ffi.new("const char **") for _ in range(3)]
        taken = 0
        while lib.dh_verify_problem_read(run, taken, *texts) == 0:
            path, what, where = (_string(text[0]) for text in texts)
            self.findings.add(path, what, where)
            taken += 1
        self.findings.problems_count += count - taken


def _string(text: Any) -> str:
    return str(ffi.string(text).decode("utf-8", "replace"))
