"""Exceptions of dirtyheap, and the one table from codes of the C core to classes.

``dirtyheap._ffi.check`` and the C types both raise through :func:`error_from_code`, so a failure
has the same class whichever way it came.
"""

from __future__ import annotations

import errno
import os

__all__ = [
    "CommitError",
    "HeapClosedError",
    "HeapCorruptError",
    "HeapError",
    "HeapFullError",
    "HeapLockedError",
    "HeapPoisonedError",
    "ReadOnlyError",
    "RecordClassError",
    "StaleObjectError",
    "TrackerError",
    "UnreportedWriteError",
    "error_from_code",
]


class HeapError(Exception):
    """Something about a heap went wrong; every error of dirtyheap's own is below this one."""


class HeapClosedError(HeapError):
    """The heap, or the container's heap, is closed, or belongs to the process that forked."""


class HeapLockedError(HeapError):
    """Another process writes this heap."""


class HeapFullError(HeapError):
    """The heap's capacity is used up; the operation changed nothing."""


class HeapCorruptError(HeapError):
    """Stored data is damaged; nothing of it was followed or shown."""


class HeapPoisonedError(HeapError):
    """A commit failed half-way in a way that cannot be undone; only ``close()`` is legal."""


class StaleObjectError(HeapError):
    """The container is not part of the state that the heap shows now (it was rolled back)."""


class ReadOnlyError(HeapError):
    """The heap is open for reading only."""


class RecordClassError(HeapError, TypeError):
    """A record cannot be read as its class: the class was changed in a way that does not fit what
    was stored, or has a new field without a default."""


class CommitError(HeapError):
    """A commit failed; nothing is lost, the same changes are in the next one."""


class UnreportedWriteError(CommitError):
    """Proof mode: pages changed and the watch did not report them. Nothing was committed and
    nothing is lost: these pages count as written now, and the next commit holds them. Without
    proof mode it would have been a commit that lacks a change."""


class TrackerError(HeapError):
    """The kernel cannot, or can no longer, track the heap's memory as asked."""


# code -> (name in dirtyheap.h, class, what to say when the core left no sentence)
_CODES: dict[int, tuple[str, type[Exception], str]] = {
    -1: (
        "DH_E_FULL",
        HeapFullError,
        "the heap's capacity is used up: heap.collect() frees what is garbage; else open it with a "
        "larger capacity=",
    ),
    -2: ("DH_E_CORRUPT", HeapCorruptError, "a damaged structure was met"),
    -3: ("DH_E_WATCH", TrackerError, "the kernel no longer tracks the heap's memory"),
    -4: (
        "DH_E_FORKED",
        HeapClosedError,
        "the heap belongs to the parent process: open it anew, read-only, in the child",
    ),
    -5: ("DH_E_LIMIT", OverflowError, "larger than the format can express"),
    -6: ("DH_E_ABSENT", KeyError, "there is no such key"),
    -7: ("DH_E_FORMAT", HeapCorruptError, "not a record of this format"),
    -8: ("DH_E_CLOSED", HeapClosedError, "the heap is closed"),
    -9: ("DH_E_UNHASHABLE", TypeError, "the value cannot be a key"),
    -10: ("DH_E_TRACKER", TrackerError, "the tracker asked for is not available here"),
    -11: ("DH_E_UNORDERED", TypeError, "the keys cannot be compared"),
    -12: ("DH_E_READ_ONLY", ReadOnlyError, "the heap is open for reading only"),
    -13: (
        "DH_E_UNREPORTED",
        UnreportedWriteError,
        "nothing was committed, the next commit holds these pages too. Memory that is pinned for a "
        "device (io_uring fixed buffers, RDMA, a GPU) is written past the kernel's watch: call "
        "heap.mark_dirty() after such writes. Anything else is a mistake in dirtyheap or a kernel",
    ),
}


def error_from_code(code: int, text: str = "") -> Exception:
    """Return the exception for a nonzero code of the core; ``text`` is the sentence behind it.

    Positive codes are errno values: OSError, or MemoryError for ENOMEM.

    >>> error_from_code(-8)
    HeapClosedError('the heap is closed')
    """
    if code > 0:
        if code == errno.ENOMEM:
            return MemoryError(text or "out of memory")
        return OSError(code, text or os.strerror(code))
    if code not in _CODES:
        return HeapError(text or f"unknown error code {code}")
    _, cls, fallback = _CODES[code]
    if cls is HeapFullError and "capacity=" not in text:
        text = f"{text}; {fallback}" if text else fallback
    if cls is UnreportedWriteError and text:
        text = f"{text}; {fallback}"
    return cls(text or fallback)
