"""What this kernel, container and user allow: tested by doing it, never by version numbers."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, overload

from . import file_system, surroundings
from ._ffi import ffi, lib
from .findings import Finding, Verdict

_TEXT_BYTES: Final = 512
_SHORTAGES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_VERDICTS: Final = {1: Verdict.YES, 0: Verdict.NO, -1: Verdict.UNTESTED}


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One tracker: ``works``, else ``reason`` says what is missing and what to do."""

    tracker: str
    works: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Probe(Sequence[ProbeResult]):
    """What :func:`probe` found; as a sequence, the kernel's trackers.

    Attributes:
        trackers: of the kernel, the better one first.
        findings: everything that was looked at, in groups.
        tracker: the one that ``tracker="auto"`` takes here; "" when no file descriptor or memory is
            left to try one: then a heap cannot be opened, either.
    """

    trackers: tuple[ProbeResult, ...]
    findings: tuple[Finding, ...]
    tracker: str

    @property
    def ok(self) -> bool:
        """Whether nothing was found that makes heaps slow, unsafe or impossible here."""
        return not self.warnings

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that do."""
        return tuple(each for each in self.findings if each.verdict is Verdict.WARNING)

    def finding(self, name: str) -> Finding:
        """One of the findings.

        Raises:
            KeyError: there is none of that name.
        """
        for each in self.findings:
            if each.name == name:
                return each
        raise KeyError(name)

    def __len__(self) -> int:
        return len(self.trackers)

    @overload
    def __getitem__(self, index: int) -> ProbeResult: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ProbeResult, ...]: ...
    def __getitem__(self, index: int | slice) -> ProbeResult | tuple[ProbeResult, ...]:
        return self.trackers[index]

    def __iter__(self) -> Iterator[ProbeResult]:
        return iter(self.trackers)


def probe(path: str | os.PathLike[str] | None = None) -> Probe:
    """Test what heaps need of kernel, container and user; with ``path``, of the file system too.

    Everything is tried on small mappings and unnamed files of its own, in milliseconds, and leaves
    nothing behind. What cannot be tried safely is "not tested", never guessed.

    Args:
        path: a heap's directory, or where one is to be made.

    >>> import dirtyheap
    >>> [result.tracker for result in dirtyheap.probe()]
    ['uffd', 'uffd-dev']
    >>> print(dirtyheap.probe().finding("page-size").text)
    4096 bytes
    """
    trackers = tuple(_try_tracker(name, number) for name, number in _TRACKERS)
    results = tuple(result for result, _ in trackers)
    chosen, tracking = _choose(trackers)
    findings = [tracking, *_kernel(), *surroundings.findings()]
    if path is not None:
        findings += file_system.findings(path)
    return Probe(results, tuple(findings), chosen)


def _try_tracker(name: str, number: int) -> tuple[ProbeResult, int]:
    """The answer, and the code behind it."""
    text = ffi.new("char[]", _TEXT_BYTES)
    rc = lib.dh_probe(number, text, _TEXT_BYTES)
    reason = "" if rc == 0 else ffi.string(text).decode("utf-8", "replace")
    return ProbeResult(name, rc == 0, reason), rc


def _choose(trackers: Sequence[tuple[ProbeResult, int]]) -> tuple[str, Finding]:
    """The sum of it: does a heap find its written pages by the kernel? As the core chooses."""
    for result, rc in trackers:
        if rc == 0:
            return result.tracker, Finding(
                "tracking",
                "tracker",
                Verdict.YES,
                f"heaps use {result.tracker}: stores, system calls and pages given back were "
                "reported, exactly",
            )
        if rc in _SHORTAGES:
            return "", Finding(
                "tracking",
                "tracker",
                Verdict.WARNING,
                f"no heap can be opened now, and the kernel could not be tried: {result.reason}",
                "more memory" if rc == errno.ENOMEM else "see ulimit -n",
            )
    return "compare", Finding(
        "tracking",
        "tracker",
        Verdict.WARNING,
        "heaps compare every page with its committed image at each commit: "
        f"{trackers[0][0].reason}",
        "a commit takes 0.25 us for each page of the heap instead of 1 ns; results are the same",
    )


_TRACKERS: Final = (("uffd", lib.DH_TRACKER_UFFD), ("uffd-dev", lib.DH_TRACKER_UFFD_DEV))


@dataclass(frozen=True, slots=True)
class _Question:
    name: str
    ability: int
    remedy: str


_QUESTIONS: Final = (
    _Question(
        "uffd-syscall",
        lib.DH_ABILITY_UFFD_SYSCALL,
        "EPERM: allow userfaultfd in the container's seccomp profile, or use the device node; "
        "ENOSYS: a sandbox hides it, or the kernel has no CONFIG_USERFAULTFD. The sysctl "
        "vm.unprivileged_userfaultfd is not needed",
    ),
    _Question(
        "uffd-device",
        lib.DH_ABILITY_UFFD_DEVICE,
        "only needed where the system call is refused: pass the device /dev/userfaultfd (Linux "
        "6.1) into the container and give this user read and write permission on it",
    ),
    _Question(
        "wp-async",
        lib.DH_ABILITY_WP_ASYNC,
        "a kernel of Linux 6.7 or later with CONFIG_PTE_MARKER_UFFD_WP",
    ),
    _Question(
        "pagemap",
        lib.DH_ABILITY_PAGEMAP,
        "/proc must be mounted, and the process dumpable (PR_SET_DUMPABLE) when it opens the heap",
    ),
    _Question("pagemap-scan", lib.DH_ABILITY_PAGEMAP_SCAN, "a kernel of Linux 6.7 or later"),
    _Question("wpallowed", lib.DH_ABILITY_WPALLOWED, "heaps do not need it"),
    _Question(
        "guard",
        lib.DH_ABILITY_GUARD,
        "heaps do not need it: guard pages are Linux 6.13, their category 6.15",
    ),
    _Question(
        "soft-dirty",
        lib.DH_ABILITY_SOFT_DIRTY,
        "heaps never use it; for the laboratory: a kernel with CONFIG_MEM_SOFT_DIRTY",
    ),
    _Question(
        "dropped-pages-reported",
        lib.DH_ABILITY_DROPPED_PAGES,
        "a kernel's mistake, mended in 7.2: heaps enter pages that they give back by hand; after "
        "MADV_DONTNEED on memory watched otherwise, mark it",
    ),
    _Question(
        "dropped-huge-reported",
        lib.DH_ABILITY_DROPPED_HUGE,
        "a kernel's mistake, mended in 7.2: heaps use no huge pages; after MADV_DONTNEED on huge "
        "pages watched otherwise, mark them",
    ),
    _Question(
        "rich-masks",
        lib.DH_ABILITY_RICH_MASKS,
        "a kernel's mistake, mended in 7.2: heaps scan for WRITTEN alone, which is right; so "
        "should whoever scans to learn what was written",
    ),
    _Question(
        "unwatched-reads-written",
        lib.DH_ABILITY_UNREGISTERED,
        "nothing to do: heaps never rely on it",
    ),
)
_NOT_TESTABLE: Final = (
    (
        "empty-vector",
        "a re-arming scan with an empty vector stops some kernels before 6.18: trying it would "
        "too; dirtyheap never makes one",
    ),
    (
        "arm-race",
        "kernels 6.7 and 6.8 could lose a dirty bit while a page was re-armed (CVE-2024-36943): a "
        "race that cannot be forced; heaps arm private memory only, stopped",
    ),
    (
        "mremap-bits",
        "kernels before 6.13 kept watch bits of moved memory (CVE-2025-21696): seen in the "
        "kernel's log only; heaps never move memory",
    ),
)


def _kernel() -> Iterator[Finding]:
    text = ffi.new("char[]", _TEXT_BYTES)
    for question in _QUESTIONS:
        verdict = _VERDICTS[lib.dh_ability(question.ability, text, _TEXT_BYTES)]
        found = ffi.string(text).decode("utf-8", "replace")
        remedy = question.remedy if verdict is Verdict.NO else ""
        yield Finding("kernel", question.name, verdict, found, remedy)
    for name, why in _NOT_TESTABLE:
        yield Finding("kernel", name, Verdict.UNTESTED, why)
