"""The contract of a write watch as a list of clauses, and what each technique cannot do.

A clause gets a function that opens a watch of one technique, and asserts. Where a technique cannot
satisfy a clause, CANNOT says so with the reason, and the clause must fail with it: the table is
tested, not believed. Other techniques join by an entry in TECHNIQUES and rows in CANNOT.

Each clause names what it rests on (SOURCES) and cites it: words in quotation marks stand there to
the letter, others say what a test does. `ours` is what goes beyond the source, or departs from it.
Clauses of source D are our own promises: nothing in the contract of Windows or the kernel's
documentation demands them. Departures, all of them said with their clause: an empty part of the
memory is allowed; a read that brings less than its buffer holds tells less; memory must be
writable when its watch begins; and pages given back to the system are told, not forgotten.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import struct
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import kernel_writers
from helpers import in_child

import dirtyheap as dh

PAGE = 4096
PAGES = 1500  # more than one huge page, fewer than a scan's chunk

Open = Callable[[Any], dh.WriteWatch]
Check = Callable[[Open], None]

libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


# What clauses rest on, as it was read for this list.
_API = "Microsoft, memoryapi.h, learn.microsoft.com/windows/win32/api/memoryapi"
SOURCES: dict[str, str] = {
    "G": f"{_API}/nf-memoryapi-getwritewatch (MicrosoftDocs/sdk-api at 11014b755929)",
    "R": f"{_API}/nf-memoryapi-resetwritewatch (MicrosoftDocs/sdk-api at 1f14bbb3768f)",
    "V": f"{_API}/nf-memoryapi-virtualalloc (MicrosoftDocs/sdk-api at 036d9d8c495c)",
    # Written to pass on Windows, which is what makes it a source: it says what Microsoft does not.
    "W": "Wine, test_write_watch() in dlls/kernel32/tests/virtual.c (at 8db355e6b33b)",
    "P": "Linux, Documentation/admin-guide/mm/pagemap.rst, chapter Pagemap Scan IOCTL (since 6.7)",
    "U": "Linux, Documentation/admin-guide/mm/userfaultfd.rst, Write Protect Notifications",
    "D": "dirtyheap: a promise of our own",
}


@dataclass(frozen=True)
class Clause:
    source: str  # a key of SOURCES
    text: str
    cited: str  # what stands there; empty for D
    ours: str  # what goes beyond it
    check: Check


CLAUSES: dict[str, Clause] = {}


def clause(source: str, text: str, cited: str = "", *, ours: str = "") -> Callable[[Check], Check]:
    def add(check: Check) -> Check:
        CLAUSES[check.__name__] = Clause(source, text, cited, ours, check)
        return check

    return add


def opener(technique: str) -> Open:
    return lambda memory: dh.WriteWatch(memory, technique=technique)


TECHNIQUES: dict[str, Open] = {name: opener(name) for name in ("uffd", "uffd-dev", "compare")}

_SEES_CONTENT_ONLY = "it compares bytes: a write that leaves them as they were is none"
_SEES_OWN_MAPPING_ONLY = "the kernel protects this mapping; others lead to the page by another way"
CANNOT: dict[tuple[str, str], str] = {
    ("compare", "the_same_bytes_written_again_are_told"): _SEES_CONTENT_ONLY,
    ("compare", "a_write_that_was_undone_is_told"): _SEES_CONTENT_ONLY,
    ("uffd", "a_write_through_another_mapping_is_told"): _SEES_OWN_MAPPING_ONLY,
    ("uffd-dev", "a_write_through_another_mapping_is_told"): _SEES_OWN_MAPPING_ONLY,
    ("uffd", "a_write_to_the_file_of_a_private_mapping_is_told"): _SEES_OWN_MAPPING_ONLY,
    ("uffd-dev", "a_write_to_the_file_of_a_private_mapping_is_told"): _SEES_OWN_MAPPING_ONLY,
    ("uffd", "a_private_page_given_back_to_its_file_is_told"): "the kernel tells of writes only",
    (
        "uffd-dev",
        "a_private_page_given_back_to_its_file_is_told",
    ): "the kernel tells of writes only",
}


# --- what clauses share ---------------------------------------------------------------------------


def write(watch: dh.WriteWatch, *pages: int) -> None:
    """Change a byte of each page."""
    for page in pages:
        at = page * PAGE + random.randrange(PAGE)
        watch.buffer[at] = (watch.buffer[at] + 1) % 256


def told(pages: dh.Pages) -> list[int]:
    return list(pages.numbers())


def address(watch: dh.WriteWatch) -> int:
    return kernel_writers.address_of(watch.buffer)


def mprotect(watch: dh.WriteWatch, access: int) -> None:
    if libc.mprotect(address(watch), len(watch.buffer), access) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")


def drop(watch: dh.WriteWatch, page: int) -> None:
    if libc.madvise(address(watch) + page * PAGE, PAGE, mmap.MADV_DONTNEED) != 0:
        raise OSError(ctypes.get_errno(), "madvise")


def shared_file(pages: int) -> int:
    """A file in memory, full of ones."""
    fd = os.memfd_create("dirtyheap-test")
    os.write(fd, b"\1" * (pages * PAGE))
    return fd


# --- GetWriteWatch --------------------------------------------------------------------------------


@clause(
    "V",
    "pages written since the region was allocated: in a new one there are none",
    '"the pages that have been written to since the region was allocated"',
    ours="the watch of memory that was there before begins with its opening",
)
def a_new_region_has_no_written_pages(open_watch: Open) -> None:
    memory = mmap.mmap(-1, PAGES * PAGE)
    memory[: 100 * PAGE] = b"\1" * (100 * PAGE)  # before it was watched
    with open_watch(memory) as watch:
        assert told(watch.get()) == []
    with open_watch(PAGES * PAGE) as watch:
        assert told(watch.get()) == []


@clause(
    "G",
    "the addresses of the pages that were written are told, and no others",
    '"the pages that have been written to since the region has been allocated or the '
    'write-tracking state has been reset"',
)
def exactly_the_written_pages_are_told(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        for count in (1, 7, 200, 3000, 0):
            pages = {random.randrange(PAGES) for _ in range(count)}
            write(watch, *pages)
            assert told(watch.get(reset=True)) == sorted(pages)


@clause(
    "W",
    "the buffer receives page addresses in ascending order",
    'every second of 2048 pages is written, and result i must be page 2 i ("Test longer range")',
    ours="Microsoft's page says nothing of the order",
)
def pages_are_told_in_ascending_order(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        write(watch, *random.sample(range(PAGES), 300))
        numbers = told(watch.get())
        assert numbers == sorted(set(numbers))
        assert len(numbers) == 300


@clause(
    "G",
    "flags 0: the write-tracking state is not reset, so the next call tells the same",
    '"If this parameter is 0 (zero), GetWriteWatch does not reset the write-tracking state."',
)
def a_get_without_reset_changes_nothing(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        write(watch, 3, 700, 1499)
        assert [told(watch.get()) for _ in range(3)] == [[3, 700, 1499]] * 3
        assert told(watch.get(reset=True)) == [3, 700, 1499]


@clause(
    "G",
    "WRITE_WATCH_FLAG_RESET: told and reset in one call",
    '"To reset the write-tracking state, set this parameter to WRITE_WATCH_FLAG_RESET."',
)
def a_get_with_reset_tells_a_page_once_for_each_write(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        write(watch, 5, 6)
        assert told(watch.get(reset=True)) == [5, 6]
        assert told(watch.get(reset=True)) == []
        write(watch, 6)
        assert told(watch.get(reset=True)) == [6]


@clause(
    "P",
    "told and reset in one step: a write beside it is told now or the next time",
    '"Both of those operations can be combined into one atomic operation where we can get and '
    'write protect the pages as well."',
    ours='of a get and a ResetWriteWatch apart Microsoft says: "you must ensure that no threads '
    'write to the region during the interval"',
)
def a_write_beside_a_get_with_reset_is_told(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        base = address(watch)
        pages = random.sample(range(PAGES), PAGES)

        def store() -> None:
            for page in pages:  # once each: whoever misses it has lost it
                ctypes.memset(base + page * PAGE + 8, 1, 8)  # without the GIL

        writer = threading.Thread(target=store)
        writer.start()
        found: set[int] = set()
        while writer.is_alive():
            found.update(told(watch.get(reset=True)))
        writer.join()
        found.update(told(watch.get(reset=True)))
        assert sorted(found) == sorted(pages)
        assert told(watch.get()) == []


@clause(
    "G",
    "base address and region size: only pages of that part are told",
    '"The base address of the memory region for which to retrieve write-tracking information."',
    ours="an empty part has no pages; Windows refuses a size of 0 (Wine's test)",
)
def a_get_is_about_its_range_only(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        write(watch, 9, 10, 19, 20, 1000)
        assert told(watch.get(10, 20)) == [10, 19]
        assert told(watch.get(10, 10)) == []
        assert told(watch.get(1000)) == [1000]


@clause(
    "D",
    "a reset flag resets the pages of the range asked about, and no others",
    ours="follows from the clauses on the range and on what is reset; neither source tries it",
)
def a_get_with_reset_resets_its_range_only(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        write(watch, 9, 10, 19, 20)
        assert told(watch.get(10, 20, reset=True)) == [10, 19]
        assert told(watch.get()) == [9, 20]


@clause(
    "G",
    "count: at most so many pages as the array has room for",
    '"On input, this variable indicates the size of the lpAddresses array, in array elements."',
)
def a_get_tells_at_most_as_many_as_asked(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        write(watch, *range(0, PAGES, 3))
        for most in (1, 2, 64, 499):
            assert told(watch.get(max_pages=most)) == list(range(0, PAGES, 3))[:most]


@clause(
    "W",
    "with a smaller array only the pages that were returned are reset",
    "of three written pages one is asked for with WRITE_WATCH_FLAG_RESET, and it is the lowest; "
    "a look afterwards gives the other two",
)
def only_told_pages_are_reset(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        write(watch, 1, 2, 3, 1200)
        assert told(watch.get(max_pages=2, reset=True)) == [1, 2]
        assert told(watch.get()) == [3, 1200]


@clause(
    "W",
    "calling again gives the rest: every page once, none left out",
    "the same; a call there begins at the base again",
    ours=".next says where to go on",
)
def going_on_gives_every_page_once(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        for most in (1, 5, 100):
            pages = sorted(random.sample(range(PAGES), 150))
            write(watch, *pages)
            found, at = [], 0
            while at is not None:
                part = watch.get(at, max_pages=most, reset=True)
                assert part.count <= most
                found += told(part)
                at = part.next
            assert found == pages
            assert told(watch.get()) == []


@clause(
    "G",
    "granularity: the size of a page",
    '"A pointer to a variable that receives the page size, in bytes."',
)
def the_page_size_is_told(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        assert watch.page_bytes == PAGE == mmap.PAGESIZE
        assert watch.pages_count == PAGES


@clause(
    "W",
    "invalid parameters are refused, and change nothing",
    "twice the region's size, and a byte beyond its end: ERROR_INVALID_PARAMETER (\"some invalid "
    'parameter tests"); Microsoft: "If the function fails, the return value is a nonzero value."',
    ours="that nothing changes; Microsoft leaves open what a call that fails has done",
)
def bad_arguments_are_refused(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        write(watch, 1)
        for start, stop in ((-1, 1), (2, 1), (0, PAGES + 1), (PAGES + 1, None)):
            for verb in (watch.get, watch.reset):
                try:
                    verb(start, stop)
                except ValueError as error:
                    assert "page numbers" in str(error)
                else:
                    raise AssertionError(f"{verb.__name__}({start}, {stop}) is taken")
        assert told(watch.get()) == [1]


@clause(
    "G",
    "memory that is not watched is refused: it must be whole pages of writable memory",
    '"This address must be in a memory region that is allocated by the VirtualAlloc function using '
    'MEM_WRITE_WATCH."',
    ours='any whole pages will do that are writable when the watch begins; for Windows "initial '
    "protect doesn't matter\" (Wine's test)",
)
def what_cannot_be_watched_is_refused(open_watch: Open) -> None:
    memory = mmap.mmap(-1, 10 * PAGE)
    view = memoryview(memory)
    bad = (
        view[1:],
        view[: PAGE + 1],
        view[:0],
        view[:PAGE].toreadonly(),
        bytes(PAGE),
        0,
        -PAGE,
        {},
    )
    for part in bad:
        try:
            open_watch(part).close()
        except (ValueError, TypeError, BufferError):
            pass
        else:
            raise AssertionError(f"{part!r} is taken")


# --- ResetWriteWatch ------------------------------------------------------------------------------


@clause(
    "R",
    "resets the write-tracking state for a region",
    '"Subsequent calls to the GetWriteWatch function only report pages that are written to since '
    'the reset operation."',
)
def a_reset_forgets_without_telling(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        write(watch, *range(200))
        watch.reset()
        assert told(watch.get()) == []
        write(watch, 7)
        assert told(watch.get()) == [7]


@clause(
    "R",
    "base address and region size: of that region only",
    '"The size of the memory region for which to reset the write-tracking information, in bytes."',
    ours="an empty region is allowed; Windows refuses a size of 0 (Wine's test)",
)
def a_reset_is_about_its_range_only(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        write(watch, 9, 10, 19, 20)
        watch.reset(10, 20)
        watch.reset(0, 0)
        assert told(watch.get()) == [9, 20]


@clause(
    "R",
    "a collector gets the pages, cleans up in them, and resets to forget its own writes",
    '"Then the garbage collector calls ResetWriteWatch to remove the write-tracking records caused '
    'by the cleanup."',
)
def a_collector_can_forget_its_own_writes(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        write(watch, 3, 4)
        pages = watch.get()
        for run in pages:
            write(watch, *run)
        watch.reset()
        assert told(watch.get()) == []
        write(watch, 4)
        assert told(watch.get(reset=True)) == [4]


# --- what counts as a write -----------------------------------------------------------------------


@clause(
    "W",
    "a store across the boundary of two pages marks both",
    "four bytes are stored from two before the end of a page: both pages are told",
)
def a_store_across_a_boundary_marks_both_pages(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        word = ctypes.c_uint64.from_buffer(watch.buffer, 8 * PAGE - 4)
        word.value = 0x0102030405060708
        del word
        assert told(watch.get()) == [7, 8]


@clause(
    "G",
    "reading is no write, whether the page was ever touched or not",
    '"the pages that are written to"',
    ours="also for pages that reading makes, and for write(2) out of the memory",
)
def reading_is_no_write(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        write(watch, *range(0, PAGES, 2))
        watch.reset()
        assert sum(watch.buffer[::PAGE]) >= 0
        with open("/dev/null", "wb", buffering=0) as sink:
            sink.write(watch.buffer)
        assert told(watch.get()) == []


@clause(
    "W",
    "changing the protection and back changes nothing, and writes after it count",
    '"changing protections doesn\'t affect watches"',
)
def protection_changes_are_no_writes(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        write(watch, 3)
        mprotect(watch, mmap.PROT_READ)
        assert told(watch.get()) == [3]
        mprotect(watch, mmap.PROT_READ | mmap.PROT_WRITE)
        assert told(watch.get(reset=True)) == [3]
        write(watch, 4)
        assert told(watch.get()) == [4]


@clause(
    "W",
    "a call that the kernel rejects writes nothing",
    "ReadFile with a handle that is none fails, and no page is told",
)
def a_rejected_call_is_no_write(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch, open(os.devnull, "wb", buffering=0) as not_readable:
        try:
            os.readv(not_readable.fileno(), [watch.buffer])
        except OSError as error:
            assert error.errno == errno.EBADF
        else:
            raise AssertionError("a file opened for writing was read")
        assert told(watch.get()) == []


@clause(
    "D",
    "a read that brings less than the buffer holds marks what it brought, and nothing at the end",
    ours="Windows marks the whole buffer of a read that it accepts, also at a file's end (Wine's "
    "test: 16 pages, of a file of two pages and three bytes)",
)
def a_short_read_tells_what_it_brought(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch, tempfile.TemporaryFile(buffering=0) as file:
        file.write(b"\1" * (2 * PAGE + 3))
        file.seek(0)
        assert file.readinto(watch.buffer[5 * PAGE : 21 * PAGE]) == 2 * PAGE + 3
        assert told(watch.get(reset=True)) == [5, 6, 7]
        assert file.readinto(watch.buffer) == 0
        assert told(watch.get()) == []


@clause("D", "the same bytes written again are a write")
def the_same_bytes_written_again_are_told(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        watch.buffer[5 * PAGE] = 1
        watch.reset()
        watch.buffer[5 * PAGE] = 1
        assert told(watch.get()) == [5]


@clause("D", "a write that was undone before anybody asked is a write")
def a_write_that_was_undone_is_told(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        watch.buffer[5 * PAGE] = 1
        watch.buffer[5 * PAGE] = 0
        assert told(watch.get()) == [5]


@clause("D", "what was told as changed and is changed back is told again")
def a_change_back_after_a_get_is_told(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        for value in (1, 0, 1):
            watch.buffer[5 * PAGE] = value
            assert told(watch.get(reset=True)) == [5]


# --- writers in the kernel ------------------------------------------------------------------------

DATA = bytes(range(1, 251)) * 40  # 10,000 bytes: three pages from anywhere in the first
AT = 30 * PAGE + 100
_BY_THE_SAME_FAULTS = "the sources speak of reads; the kernel stores by the same faults for others"


def told_of_a_kernels_write(
    open_watch: Open, writer: kernel_writers.Writer, at: int = AT, data: bytes = DATA
) -> list[int]:
    with open_watch(PAGES * PAGE) as watch:
        writer(watch.buffer, at, data)
        assert watch.buffer[at : at + len(data)] == data
        return told(watch.get(reset=True))


@clause(
    "W",
    "read(2) into the memory",
    '"ReadFile should trigger write watches", from a pipe and from a file',
    ours="exactly the pages it wrote",
)
def a_read_is_told(open_watch: Open) -> None:
    assert told_of_a_kernels_write(open_watch, kernel_writers.by_read) == [30, 31, 32]


@clause("D", "readv(2) into parts of the memory", ours=_BY_THE_SAME_FAULTS)
def a_readv_is_told(open_watch: Open) -> None:
    assert told_of_a_kernels_write(open_watch, kernel_writers.by_readv) == [30, 31, 32]


@clause("D", "recv(2) into the memory", ours=_BY_THE_SAME_FAULTS)
def a_recv_is_told(open_watch: Open) -> None:
    assert told_of_a_kernels_write(open_watch, kernel_writers.by_recv) == [30, 31, 32]


@clause("D", "a read with O_DIRECT, which a device may do by itself", ours=_BY_THE_SAME_FAULTS)
def a_direct_read_is_told(open_watch: Open) -> None:
    writer = kernel_writers.by_direct_read
    assert told_of_a_kernels_write(open_watch, writer, 30 * PAGE, b"\2" * (2 * PAGE)) == [30, 31]


@clause("D", "process_vm_writev(2), as another process writes", ours=_BY_THE_SAME_FAULTS)
def a_process_vm_writev_is_told(open_watch: Open) -> None:
    assert told_of_a_kernels_write(open_watch, kernel_writers.by_process_vm_writev) == [30, 31, 32]


@clause("D", "/proc/pid/mem, as a debugger writes", ours=_BY_THE_SAME_FAULTS)
def a_debuggers_write_is_told(open_watch: Open) -> None:
    assert told_of_a_kernels_write(open_watch, kernel_writers.by_debugger) == [30, 31, 32]


@clause("D", "struct.pack_into, a slice of a memoryview, memset: every store is one")
def stores_of_libraries_are_told(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        struct.pack_into("<Q", watch.buffer, 2 * PAGE + 8, 77)
        watch.buffer[4 * PAGE : 5 * PAGE] = b"\1" * PAGE
        ctypes.memset(address(watch) + 7 * PAGE, 3, 1)
        assert told(watch.get()) == [2, 4, 7]


# --- what changes memory and is no write through it ----------------------------------------------


@clause(
    "U",
    "a page given back to the kernel is zeros now: it counts as written",
    '"MADV_DONTNEED on anonymous ... will be treated as dirtying of memory"',
    ours="for the other techniques, too; Windows forgets a page that is decommitted (Wine's test)",
)
def a_page_given_back_is_told(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        write(watch, 3, 4)
        watch.reset()
        drop(watch, 4)
        assert told(watch.get(reset=True)) == [4]
        write(watch, 4)
        assert told(watch.get(reset=True)) == [4]


@clause("D", "a write to shared memory through another mapping")
def a_write_through_another_mapping_is_told(open_watch: Open) -> None:
    fd = shared_file(20)
    other = mmap.mmap(fd, 20 * PAGE)
    with mmap.mmap(fd, 20 * PAGE) as mine, open_watch(mine) as watch:
        other[7 * PAGE] = 9
        assert mine[7 * PAGE] == 9
        assert told(watch.get()) == [7]
    os.close(fd)


@clause("D", "a write to a file under a page of a private mapping that has no copy yet")
def a_write_to_the_file_of_a_private_mapping_is_told(open_watch: Open) -> None:
    fd = shared_file(20)
    with mmap.mmap(fd, 20 * PAGE, flags=mmap.MAP_PRIVATE) as mine, open_watch(mine) as watch:
        os.pwrite(fd, b"\7", 7 * PAGE)
        assert mine[7 * PAGE] == 7
        assert told(watch.get()) == [7]
    os.close(fd)


@clause("D", "a private copy of a file's page given back: the file's bytes show again")
def a_private_page_given_back_to_its_file_is_told(open_watch: Open) -> None:
    fd = shared_file(20)
    with mmap.mmap(fd, 20 * PAGE, flags=mmap.MAP_PRIVATE) as mine, open_watch(mine) as watch:
        write(watch, 7)
        watch.reset()
        drop(watch, 7)
        assert told(watch.get()) == [7]
    os.close(fd)


@clause("D", "mark() enters by hand what cannot be seen, for every cursor")
def marked_pages_are_told(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        other = watch.cursor()
        write(watch, 3)
        watch.mark(5, 7)
        assert told(watch.get(reset=True)) == told(other.get(reset=True)) == [3, 5, 6]
        assert told(watch.get()) == []


# --- cursors, watches, processes ------------------------------------------------------------------


@clause("D", "what one cursor resets is still written for the others")
def cursors_are_independent(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        write(watch, 1)
        other = watch.cursor()
        assert told(other.get()) == [], "nothing was written yet for a new cursor"
        write(watch, 2)
        assert told(watch.get(reset=True)) == [1, 2]
        write(watch, 3)
        other.reset(3, 4)
        assert told(other.get()) == [2]
        assert told(watch.get()) == [3]


@clause("D", "several watches on neighbouring memory do not hear of each other's writes")
def watches_are_independent(open_watch: Open) -> None:
    memory = memoryview(mmap.mmap(-1, 30 * PAGE))
    with (
        open_watch(memory[: 10 * PAGE]) as low,
        open_watch(memory[10 * PAGE : 20 * PAGE]) as middle,
        open_watch(memory[20 * PAGE :]) as high,
    ):
        write(low, 9)
        write(high, 0)
        assert [told(each.get(reset=True)) for each in (low, middle, high)] == [[9], [], [0]]
        low.close()
        write(middle, 0, 9)
        assert told(middle.get()) == [0, 9]


@clause("D", "in a forked child every verb raises; the parent's watch goes on")
def a_fork_leaves_the_parents_watch_alone(open_watch: Open) -> None:
    with open_watch(PAGES * PAGE) as watch:
        other = watch.cursor()
        write(watch, 1)

        def child() -> list[str]:
            verbs = (
                watch.get,
                watch.reset,
                watch.cursor,
                other.get,
                other.reset,
                lambda: watch.mark(0, 1),
            )
            refused = []
            for verb in verbs:
                try:
                    verb()
                except dh.TrackerError as error:
                    refused.append(str(error))
            write(watch, 50)
            with open_watch(watch.buffer) as own:  # a watch of its own works
                write(own, 60)
                assert told(own.get()) == [60]
            other.close()
            watch.close()
            return refused

        refused = in_child(child)
        assert isinstance(refused, list), refused
        assert len(refused) == 6 and all("parent" in text for text in refused)
        write(watch, 2)
        assert told(watch.get(reset=True)) == [1, 2]
