"""What the kernel knows of each page: the PAGEMAP_SCAN ioctl as it is (Linux 6.7).

>>> import mmap
>>> from dirtyheap import pagemap
>>> memory = mmap.mmap(-1, 8 * 4096)
>>> memory[2 * 4096] = 1
>>> found = pagemap.scan(memory, category_mask=pagemap.Category.PRESENT)
>>> found.pages_count
1

:class:`dirtyheap.WriteWatch` is what you want for written pages. This is for everything else, and
for looking at other processes. Reference: Documentation/admin-guide/mm/pagemap.rst of the kernel.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from enum import IntFlag
from functools import cache
from operator import index
from typing import TYPE_CHECKING, Any, Final, NamedTuple, SupportsIndex

from ._ffi import ffi, lib
from .errors import TrackerError, error_from_code

if TYPE_CHECKING:
    from typing_extensions import Buffer as SupportsBuffer

__all__ = ["Category", "Region", "Scan", "categories", "scan"]

PAGE_BYTES: Final = 4096
_WP_MATCHING: Final = 1
_CHECK_WPASYNC: Final = 2
_NUMBER_LIMIT: Final = 1 << 64


class Category(IntFlag):
    """What a page can be, named as in the kernel's header; see :func:`categories`."""

    WPALLOWED = 1 << 0
    """In a range with asynchronous write-protection."""
    WRITTEN = 1 << 1
    """Written since it was protected; never protected counts as written."""
    FILE = 1 << 2
    """Of a file, or shared memory."""
    PRESENT = 1 << 3
    """In memory."""
    SWAPPED = 1 << 4
    """In swap."""
    PFNZERO = 1 << 5
    """The page of zeros that everybody shares: read, and never written."""
    HUGE = 1 << 6
    """Mapped as a part of a huge page."""
    SOFT_DIRTY = 1 << 7
    """Written since ``clear_refs``, where the kernel keeps that."""
    GUARD = 1 << 8
    """A guard page (MADV_GUARD_INSTALL); Linux 6.15."""


_NAMED: Final = sum(Category)


class Region(NamedTuple):
    """Addresses ``[start, end)`` of pages that are alike in what was asked."""

    start: int
    end: int
    categories: Category


class Scan:
    """What one :func:`scan` found.

    The regions lie in memory of the C core: ``numpy.asarray(scan)`` is a read-only ``uint64`` array
    of shape ``(n, 3)`` on them, without a copy: start, end, categories.

    Attributes:
        start, end: the addresses asked about.
        walk_end: the address up to which all was told: ``end``, or less after ``max_pages`` or
            ``vec_len`` regions. Go on there: no page is told twice, none left out.
        pages_count: in all regions.
    """

    __slots__ = ("_found", "end", "pages_count", "start", "walk_end")

    def __init__(self, found: Any, start: int, end: int) -> None:
        self._found = found  # freed with this object
        self.start: Final = start
        self.end: Final = end
        self.walk_end: Final = int(found.walk_end)
        self.pages_count: Final = int(found.pages_count)

    @property
    def regions(self) -> list[Region]:
        """The regions, ascending. O(regions), made anew each time."""
        count = self._found.regions_count
        if not count:
            return []
        flat = ffi.unpack(ffi.cast("uint64_t *", self._found.regions), 3 * count)
        kinds = {value: Category(value) for value in set(flat[2::3])}
        return [
            Region(start, end, kinds[value])
            for start, end, value in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        ]

    @property
    def __array_interface__(self) -> dict[str, Any]:
        count = int(self._found.regions_count)
        where = self._found.regions if count else self._found  # an empty array has one, too
        return {
            "version": 3,
            "shape": (count, 3),
            "typestr": "<u8",
            "data": (int(ffi.cast("uintptr_t", where)), True),
        }

    def __len__(self) -> int:
        return int(self._found.regions_count)

    def __iter__(self) -> Iterator[Region]:
        return iter(self.regions)

    def __repr__(self) -> str:
        return (
            f"<Scan of [{self.start:#x}, {self.end:#x}) up to {self.walk_end:#x}: "
            f"{self.pages_count} pages in {len(self)} regions>"
        )


def scan(
    address_or_buffer: SupportsBuffer | SupportsIndex,
    bytes: SupportsIndex | None = None,
    *,
    pid: int | None = None,
    category_mask: int = 0,
    anyof_mask: int = 0,
    inverted: int = 0,
    return_mask: int | None = None,
    max_pages: SupportsIndex = 0,
    write_protect: bool = False,
    check_wpasync: bool = False,
    vec_len: SupportsIndex | None = None,
) -> Scan:
    """Ask the kernel about a range of addresses. About 1 ns per page, 15 where all are found.

    A page matches when, after the bits of ``inverted`` are turned over, it has all categories of
    ``category_mask`` and, unless that is 0, one of ``anyof_mask``.

    Args:
        address_or_buffer: the first address, a multiple of 4096, with ``bytes``; or a buffer of
            this process: all pages that hold some of it.
        bytes: the size of the range, rounded up to whole pages; of a buffer, not more than it has.
        pid: of the process to look into, this one if None. Needs the right to trace it, and an
            address.
        return_mask: what the regions tell of their pages, and by what they are told apart. None:
            everything that this kernel tells (:func:`categories`).
        max_pages: stop after so many matching pages; 0: no limit.
        write_protect: protect matching pages again, in the same step (PM_SCAN_WP_MATCHING). Of this
            process only: another one's watch would lose what you take. Never on memory with a
            WriteWatch, for the same reason.
        check_wpasync: fail where a page has no asynchronous write-protection.
        vec_len: make one call of the kernel, for at most so many regions, and see in ``walk_end``
            how far it came. None: as many calls as it takes.

    Raises:
        ValueError: an argument does not fit; the message says which and why.
        PermissionError: that process may not be looked into; or check_wpasync found a page.
        ProcessLookupError: there is no such process.
        TypeError: an argument is no integer, or no buffer; the message says which.
        TrackerError: this kernel has no PAGEMAP_SCAN, or /proc is not mounted.
        OSError: the kernel refuses. After a scan with ``write_protect`` that failed, pages may be
            protected that nobody was told: treat them all as written.
    """
    process = None if pid is None else _number("pid", pid)
    start, end, held = _range(address_or_buffer, bytes, process)
    most = _number("max_pages", max_pages)
    room = 0 if vec_len is None else _number("vec_len", vec_len)
    if not 0 <= most < _NUMBER_LIMIT:
        raise ValueError(f"max_pages must be 0 (no limit) or positive, below 2**64, not {most}")
    if vec_len is not None and not 1 <= room <= 1 << 24:
        raise ValueError(f"vec_len must be between 1 and {1 << 24}, not {room}")
    if write_protect and process not in (None, os.getpid()):
        raise ValueError(
            "write_protect: pages of another process are not protected, for that takes away what "
            "its own watch has to tell"
        )
    masks = {
        "category_mask": _number("category_mask", category_mask),
        "anyof_mask": _number("anyof_mask", anyof_mask),
        "inverted": _number("inverted", inverted),
        "return_mask": int(categories())
        if return_mask is None
        else _number("return_mask", return_mask),
    }
    _check_masks(masks)
    query = ffi.new("dh_pagemap_query *")
    query.flags = (_WP_MATCHING if write_protect else 0) | (_CHECK_WPASYNC if check_wpasync else 0)
    query.start, query.end, query.max_pages, query.vec_len = start, end, most, room
    query.category_mask, query.category_anyof_mask = masks["category_mask"], masks["anyof_mask"]
    query.category_inverted, query.return_mask = masks["inverted"], masks["return_mask"]
    found = ffi.new("dh_page_regions **")
    fd = _open(process)
    try:
        rc = lib.dh_pagemap_query_run(fd, query, found)
    finally:
        os.close(fd)
        del held  # the memory stayed until here
    if rc != 0:
        raise _error(rc, (start, end), check_wpasync, write_protect)
    return Scan(ffi.gc(found[0], lib.dh_page_regions_free), start, end)


@cache
def categories() -> Category:
    """The categories that this kernel tells: tried, not taken from its version.

    >>> from dirtyheap import pagemap
    >>> pagemap.Category.WRITTEN in pagemap.categories()
    True

    Raises:
        TrackerError: this kernel has no PAGEMAP_SCAN, or /proc is not mounted.
    """
    known = ffi.new("uint64_t *")
    fd = _open(None)
    try:
        rc = lib.dh_pagemap_categories(fd, known)
    finally:
        os.close(fd)
    if rc != 0:
        raise _error(rc, (0, 0), False, False)
    return Category(known[0] & _NAMED)


# --- arguments and errors -------------------------------------------------------------------------


def _number(name: str, value: SupportsIndex) -> int:
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}") from None


def _range(
    address_or_buffer: SupportsBuffer | SupportsIndex, size: SupportsIndex | None, pid: int | None
) -> tuple[int, int, Any]:
    """First address, end, and what holds the memory."""
    held = None
    try:  # first: an integer of numpy is a buffer, too, and an array has __index__
        start = index(address_or_buffer)  # type: ignore[arg-type]
    except TypeError:
        if pid not in (None, os.getpid()):
            raise ValueError("pid: a buffer is memory of this process; give an address") from None
        held = _held(address_or_buffer)
        begin = int(ffi.cast("uintptr_t", held))
        count = len(held) if size is None else _number("bytes", size)
        if count > len(held):
            raise ValueError(f"bytes: the buffer has {len(held)}, not {count}") from None
        start = begin - begin % PAGE_BYTES
        count += begin - start if count > 0 else 0
    else:
        if size is None:
            raise ValueError("bytes: an address needs the size of the range")
        if start % PAGE_BYTES:
            raise ValueError(f"the address {start:#x} is not a multiple of {PAGE_BYTES}")
        count = _number("bytes", size)
    if count <= 0:
        raise ValueError(f"bytes must be positive, not {count}")
    end = start + -(-count // PAGE_BYTES) * PAGE_BYTES
    if start < 0 or end >= _NUMBER_LIMIT:
        raise ValueError(f"[{start:#x}, {end:#x}) is not a range of addresses")
    return start, end, held


def _held(buffer: Any) -> Any:
    try:
        return ffi.from_buffer("char[]", buffer)
    except TypeError:
        raise TypeError(
            f"scan takes an address or a buffer of this process, not {type(buffer).__name__}"
        ) from None


def _check_masks(masks: dict[str, int]) -> None:
    known = int(categories())
    for name, mask in masks.items():
        if mask < 0:
            raise ValueError(f"{name} must be a sum of categories, not {mask}")
        unknown = mask & ~known
        if unknown:
            meant = [repr(Category(unknown & _NAMED))] if unknown & _NAMED else []
            meant += [f"{unknown & ~_NAMED:#x}"] if unknown & ~_NAMED else []
            raise ValueError(
                f"{name}: this kernel does not tell {' and '.join(meant)}; see categories()"
            )


def _open(pid: int | None) -> int:
    path = f"/proc/{'self' if pid is None else pid}/pagemap"
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        if pid is None or not os.path.exists("/proc/self"):
            raise TrackerError(
                f"{path} cannot be opened ({error.strerror}): /proc must be mounted, of a kernel "
                "with CONFIG_PROC_PAGE_MONITOR"
            ) from None
        raise ProcessLookupError(errno.ESRCH, f"pid: there is no process {pid}") from None
    except ProcessLookupError:
        raise ProcessLookupError(
            errno.ESRCH, f"pid: process {pid} has no memory: it has ended, or is one of the kernel"
        ) from None
    except PermissionError as error:
        if pid in (None, os.getpid()):
            text = "the page map of this process is closed to itself: it is not dumpable, see "
            raise PermissionError(error.errno, text + "PR_SET_DUMPABLE") from None
        raise PermissionError(
            error.errno,
            f"pid: the page map of process {pid} is closed to this user: it needs the right to "
            "trace the process",
        ) from None


def _error(
    rc: int, addresses: tuple[int, int], check_wpasync: bool, write_protect: bool
) -> Exception:
    after = "; pages may have been protected that were not told" if write_protect else ""
    if rc == errno.EFAULT:
        start, end = addresses
        text = f"[{start:#x}, {end:#x}) leaves the addresses that a process can have"
        return OSError(rc, f"PAGEMAP_SCAN: {os.strerror(rc)}: {text}{after}")
    if rc == errno.ENOTTY:
        return TrackerError("this kernel has no PAGEMAP_SCAN: it needs Linux 6.7")
    if rc == errno.EPERM and check_wpasync:
        text = "check_wpasync: a part of the range has no asynchronous write-protection"
        return PermissionError(rc, text + after)
    if rc == errno.EPERM and write_protect:
        return PermissionError(rc, "write_protect: refused for a part of the range" + after)
    if rc == errno.ESRCH:
        return ProcessLookupError(rc, "pid: the process has ended")
    if rc > 0 and rc != errno.ENOMEM:
        return OSError(rc, f"PAGEMAP_SCAN: {os.strerror(rc)}{after}")
    return error_from_code(rc)
