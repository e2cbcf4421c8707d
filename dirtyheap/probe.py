"""What this kernel, container and user allow: tested by doing it, never by version numbers."""

from __future__ import annotations

from dataclasses import dataclass

from ._ffi import ffi, lib


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One tracker: ``works``, else ``reason`` says what is missing and what to do."""

    tracker: str
    works: bool
    reason: str


def probe() -> list[ProbeResult]:
    """Test the kernel's write tracking, by system call and by device node. Takes milliseconds.

    >>> import dirtyheap
    >>> [result.tracker for result in dirtyheap.probe()]
    ['uffd', 'uffd-dev']
    """
    results = []
    text = ffi.new("char[]", 512)
    for name, tracker in (("uffd", lib.DH_TRACKER_UFFD), ("uffd-dev", lib.DH_TRACKER_UFFD_DEV)):
        rc = lib.dh_probe(tracker, text, 512)
        reason = "" if rc == 0 else ffi.string(text).decode("utf-8", "replace")
        results.append(ProbeResult(name, rc == 0, reason))
    return results
