"""dh.pagemap.scan: PAGEMAP_SCAN as it is, on memory whose state is known; arguments and errors."""

from __future__ import annotations

import ctypes
import errno
import gc
import mmap
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import fault, in_child, require_root, require_tracker, seeded, skip_test

import dirtyheap as dh
from dirtyheap import pagemap
from dirtyheap.pagemap import Category, Region

PAGE = 4096
PAGES = 600
libc = ctypes.CDLL(None, use_errno=True)
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


@pytest.fixture(autouse=True)
def _needs_the_kernel() -> None:
    require_tracker("uffd")


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    """Private, anonymous, untouched, no huge pages."""
    memory = mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    yield memory
    gc.collect()


def address(memory: Any) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def touch(memory: Any, *pages: int) -> None:
    for page in pages:
        memory[page * PAGE] = memory[page * PAGE] + 1


def pages_of(scan: pagemap.Scan, base: int) -> list[int]:
    return [page for r in scan for page in range((r.start - base) // PAGE, (r.end - base) // PAGE)]


# --- categories -----------------------------------------------------------------------------------


def test_present_pages_are_those_touched(memory: mmap.mmap) -> None:
    rng = seeded()
    touched = sorted(rng.sample(range(PAGES), 100))
    touch(memory, *touched)
    scan = pagemap.scan(memory, category_mask=Category.PRESENT)
    assert pages_of(scan, address(memory)) == touched
    assert scan.pages_count == 100
    assert scan.walk_end == scan.end == scan.start + PAGES * PAGE


def test_every_category_that_can_be_made_is_told(memory: mmap.mmap, tmp_path: Path) -> None:
    touch(memory, 0)
    assert memory[5 * PAGE] == 0  # read only
    base = address(memory)
    regions = {(r.start - base) // PAGE: r.categories for r in pagemap.scan(memory)}
    assert Category.PRESENT in regions[0]
    assert Category.PFNZERO not in regions[0]
    assert Category.PFNZERO in regions[5]
    assert Category.FILE not in regions[5]
    shared = mmap.mmap(-1, 4 * PAGE)
    shared[0] = 1
    assert Category.FILE | Category.PRESENT in pagemap.scan(shared).regions[0].categories
    with (tmp_path / "file").open("w+b") as file:
        file.write(b"x" * PAGE)
        file.flush()
        mapped = mmap.mmap(file.fileno(), PAGE, flags=mmap.MAP_PRIVATE)
    assert mapped[0] == ord("x")
    assert Category.FILE in pagemap.scan(mapped).regions[0].categories
    touch(mapped, 0)  # a copy of its own
    assert Category.FILE not in pagemap.scan(mapped).regions[0].categories


def test_written_and_wpallowed_pages_of_a_watch() -> None:
    with dh.WriteWatch(PAGES * PAGE, technique="uffd") as watch:
        touch(watch.buffer, 3, 4, 9)
        scan = pagemap.scan(watch.buffer, category_mask=Category.WRITTEN, check_wpasync=True)
        base = address(watch.buffer)
        assert pages_of(scan, base) == [3, 4, 9]
        assert all(Category.WPALLOWED in region.categories for region in scan)
        assert pages_of(pagemap.scan(watch.buffer, category_mask=Category.WRITTEN), base) == [
            3,
            4,
            9,
        ], "a scan changes nothing"
        assert list(watch.get().numbers()) == [3, 4, 9]
        allowed = pagemap.scan(watch.buffer, return_mask=Category.WPALLOWED)
        assert allowed.regions == [Region(base, base + PAGES * PAGE, Category.WPALLOWED)]


def test_write_protect_takes_and_reports_in_one_step() -> None:
    with dh.WriteWatch(PAGES * PAGE, technique="uffd") as watch:
        touch(watch.buffer, 3, 4, 9)
        base = address(watch.buffer)
        options = {"category_mask": Category.WRITTEN, "write_protect": True, "check_wpasync": True}
        first = pagemap.scan(watch.buffer, max_pages=2, **options)
        assert pages_of(first, base) == [3, 4]
        rest = pagemap.scan(first.walk_end, base + PAGES * PAGE - first.walk_end, **options)
        assert pages_of(rest, base) == [9]
        assert len(pagemap.scan(watch.buffer, **options)) == 0
        touch(watch.buffer, 4)
        assert pages_of(pagemap.scan(watch.buffer, **options), base) == [4]


def test_a_huge_page_is_one() -> None:
    memory = mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError as error:
        skip_test(f"no transparent huge pages: {error}")
    begin = -address(memory) % (2 << 20)
    memory[begin] = 1
    scan = pagemap.scan(memory, category_mask=Category.HUGE)
    if not scan:
        skip_test("the kernel gave no huge page")
    assert scan.pages_count == 512


def test_guard_pages_where_the_kernel_tells_them(memory: mmap.mmap) -> None:
    """Else the name is refused with the reason."""
    touch(memory, *range(10))
    if Category.GUARD not in pagemap.categories():
        with pytest.raises(ValueError, match="does not tell <Category.GUARD"):
            pagemap.scan(memory, category_mask=Category.GUARD)
        return
    where = address(memory) + 4 * PAGE
    assert libc.madvise(where, 2 * PAGE, 102) == 0  # MADV_GUARD_INSTALL
    scan = pagemap.scan(memory, category_mask=Category.GUARD)
    assert pages_of(scan, address(memory)) == [4, 5]


def test_soft_dirty_is_told_only_where_the_kernel_keeps_it(memory: mmap.mmap) -> None:
    """The ioctl takes the name everywhere; pages never have it where it is not compiled in."""
    touch(memory, 1)
    if Category.SOFT_DIRTY not in pagemap.categories():
        with pytest.raises(ValueError, match="SOFT_DIRTY"):
            pagemap.scan(memory, return_mask=Category.SOFT_DIRTY)
        return
    scan = pagemap.scan(memory, category_mask=Category.SOFT_DIRTY | Category.PRESENT)
    assert 1 in pages_of(scan, address(memory))


def test_categories_are_those_that_the_kernel_takes() -> None:
    known = pagemap.categories()
    assert known & Category.WRITTEN and known & Category.PRESENT and known & Category.PFNZERO
    assert known in Category(sum(Category))


# --- masks ----------------------------------------------------------------------------------------


def test_masks_select_as_the_documentation_says(memory: mmap.mmap) -> None:
    """Against a model: every combination over pages of four kinds."""
    touch(memory, *range(0, PAGES, 4))
    assert not any(memory[page * PAGE] for page in range(1, PAGES, 4))
    bits = [Category.PRESENT, Category.PFNZERO, Category.WRITTEN]
    everything = int(Category.PRESENT | Category.PFNZERO | Category.WRITTEN)
    base = address(memory)
    has = [0] * PAGES
    for region in pagemap.scan(memory, return_mask=everything):
        for page in range((region.start - base) // PAGE, (region.end - base) // PAGE):
            has[page] = int(region.categories)
    assert len(set(has)) >= 3
    rng = seeded()
    for _ in range(200):
        mask, anyof, inverted = (
            sum(bit for bit in bits if rng.random() < chance) for chance in (0.3, 0.4, 0.4)
        )
        expected = [
            page
            for page, kinds in enumerate(has)
            if (kinds ^ inverted) & mask == mask and (not anyof or (kinds ^ inverted) & anyof)
        ]
        scan = pagemap.scan(
            memory,
            category_mask=mask,
            anyof_mask=anyof,
            inverted=inverted,
            return_mask=everything,
        )
        assert pages_of(scan, base) == expected


def test_return_mask_says_by_what_regions_are_told_apart(memory: mmap.mmap) -> None:
    touch(memory, *range(0, 100, 2))
    assert memory[1 * PAGE] == 0
    base = address(memory)
    fine = pagemap.scan(memory, 3 * PAGE)
    assert len(fine) == 3
    coarse = pagemap.scan(memory, 3 * PAGE, return_mask=Category.WRITTEN)
    assert coarse.regions == [Region(base, base + 3 * PAGE, Category.WRITTEN)]


# --- how far --------------------------------------------------------------------------------------


def test_max_pages_and_walk_end_go_on_exactly(memory: mmap.mmap) -> None:
    rng = seeded()
    touched = sorted(rng.sample(range(PAGES), 200))
    touch(memory, *touched)
    base, end = address(memory), address(memory) + PAGES * PAGE
    for most in (1, 2, 7, 199, 200, 1000):
        at, found = base, []
        while at < end:
            scan = pagemap.scan(at, end - at, category_mask=Category.PRESENT, max_pages=most)
            assert scan.pages_count <= most
            assert scan.walk_end > at
            found += pages_of(scan, base)
            at = scan.walk_end
        assert found == touched


def test_vec_len_is_one_call_of_the_kernel(memory: mmap.mmap) -> None:
    touch(memory, *range(0, PAGES, 2))
    scan = pagemap.scan(memory, category_mask=Category.PRESENT, vec_len=10)
    assert len(scan) == 10
    assert scan.walk_end < scan.end
    assert pages_of(scan, address(memory)) == list(range(0, 20, 2))
    assert len(pagemap.scan(memory, category_mask=Category.PRESENT)) == PAGES // 2


@pytest.mark.parametrize("limit", [1, 2, 511, 512, 513, 600, 1000, 1024, 1500, 5000])
def test_walk_end_is_behind_everything_that_was_told(limit: int) -> None:
    """The kernel's own lies before regions that it returned, where its buffer was full once."""
    touched = list(range(0, 4000, 2))
    with dh.WriteWatch(4000 * PAGE, technique="uffd") as watch:
        touch(watch.buffer, *touched)
        base = address(watch.buffer)
        for is_taken in (False, True):
            at, found = base, []
            while at < base + 4000 * PAGE:
                scan = pagemap.scan(
                    at,
                    base + 4000 * PAGE - at,
                    category_mask=Category.WRITTEN,
                    return_mask=Category.WRITTEN,
                    vec_len=limit,
                    write_protect=is_taken,
                )
                found += pages_of(scan, base)
                assert scan.walk_end > at and scan.walk_end > base + found[-1] * PAGE
                at = scan.walk_end
            assert found == touched
        assert watch.get().count == 0, "all were taken, each once"


def test_a_hole_has_no_present_pages() -> None:
    memory = mmap.mmap(-1, 10 * PAGE)
    where = address(memory)
    gc.collect()
    memory.close()
    assert len(pagemap.scan(where, 10 * PAGE, category_mask=Category.PRESENT)) == 0


def test_bytes_are_rounded_up_and_buffers_outwards() -> None:
    memory = mmap.mmap(-1, 10 * PAGE)
    base = address(memory)
    assert pagemap.scan(base, 1).end == base + PAGE
    view = memoryview(memory)[PAGE + 10 : 3 * PAGE + 1]
    scan = pagemap.scan(view)
    assert (scan.start, scan.end) == (base + PAGE, base + 4 * PAGE)
    part = pagemap.scan(view, 5)
    assert (part.start, part.end) == (base + PAGE, base + 2 * PAGE)
    assert pagemap.scan(b"read-only bytes will do").pages_count >= 1
    assert pagemap.scan(np.int64(base), np.int64(PAGE)).start == base


# --- results --------------------------------------------------------------------------------------


def test_regions_and_numpy_say_the_same_without_a_copy(memory: mmap.mmap) -> None:
    touch(memory, 1, 2, 7)
    scan = pagemap.scan(memory, category_mask=Category.PRESENT, return_mask=Category.PRESENT)
    array = np.asarray(scan)
    assert array.dtype == np.uint64 and array.shape == (2, 3) and not array.flags.writeable
    assert np.shares_memory(array, np.asarray(scan))
    assert [Region(*row[:2], Category(row[2])) for row in array.tolist()] == scan.regions
    assert list(scan) == scan.regions and len(scan) == 2
    assert isinstance(scan.regions[0].categories, Category)
    text = repr(scan)
    assert "3 pages in 2 regions" in text
    del scan
    gc.collect()
    assert array[0, 1] - array[0, 0] == 2 * PAGE
    nothing = pagemap.scan(memory, category_mask=Category.PRESENT, inverted=Category.PRESENT)
    assert np.asarray(pagemap.scan(memory, PAGE, category_mask=Category.PRESENT)).shape == (0, 3)
    assert nothing.pages_count == PAGES - 3


# --- other processes ------------------------------------------------------------------------------


@pytest.fixture
def other() -> Iterator[tuple[int, int]]:
    """A process with 20 pages, of which 3, 4 and 9 are touched: pid and address."""
    script = (
        "import ctypes, mmap, sys\n"
        "m = mmap.mmap(-1, 20 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        "m.madvise(mmap.MADV_NOHUGEPAGE)\n"
        "for page in (3, 4, 9): m[page * 4096] = 1\n"
        "print(ctypes.addressof(ctypes.c_char.from_buffer(m)), flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
        process.communicate()


def test_another_process_is_read(other: tuple[int, int]) -> None:
    pid, where = other
    scan = pagemap.scan(where, 20 * PAGE, pid=pid, category_mask=Category.PRESENT)
    assert pages_of(scan, where) == [3, 4, 9]


def test_another_process_is_never_protected(other: tuple[int, int], memory: mmap.mmap) -> None:
    pid, where = other
    with pytest.raises(ValueError, match="write_protect: pages of another process"):
        pagemap.scan(where, PAGE, pid=pid, write_protect=True)
    with pytest.raises(ValueError, match="pid: a buffer is memory of this process"):
        pagemap.scan(memory, pid=pid)


def test_ones_own_pid_is_this_process(memory: mmap.mmap) -> None:
    touch(memory, 3)
    scan = pagemap.scan(memory, pid=os.getpid(), category_mask=Category.PRESENT)
    assert pages_of(scan, address(memory)) == [3]


def test_a_process_that_does_not_exist_is_named() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with pytest.raises(ProcessLookupError, match=f"there is no process {child.pid}"):
        pagemap.scan(0x10000, PAGE, pid=child.pid)


def test_a_process_of_somebody_else_is_refused_with_the_reason() -> None:
    require_root("becoming another user")

    def child() -> str:
        pagemap.categories()
        os.setgid(65534)
        os.setuid(65534)
        try:
            pagemap.scan(0x10000, PAGE, pid=1)
        except PermissionError as error:
            return str(error)
        return "it may"

    assert "the right to trace the process" in in_child(child)


def test_a_process_without_memory_is_named() -> None:
    """The kernel's own threads have none. Where none is in sight, there is nothing to ask."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if "VmSize" in (entry / "status").read_text():
                continue
            pagemap.scan(0x10000, PAGE, pid=int(entry.name))
        except FileNotFoundError:
            continue
        except PermissionError:
            break
        except ProcessLookupError as error:
            if "there is no process" in str(error):
                continue
            assert f"process {entry.name} has no memory" in str(error)
            return
    skip_test("no thread of the kernel is in sight, or they are closed to this user")


def test_a_forked_child_reads_its_own_pages(memory: mmap.mmap) -> None:
    touch(memory, 3)

    def child() -> list[int]:
        touch(memory, 5)
        found = pagemap.scan(memory, category_mask=Category.PRESENT)
        return pages_of(found, address(memory))

    assert in_child(child) == [3, 5]
    found = pagemap.scan(memory, category_mask=Category.PRESENT)
    assert pages_of(found, address(memory)) == [3]


# --- arguments and errors -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((0x10001, PAGE), {}, ValueError, "address 0x10001 is not a multiple of 4096"),
        ((0x10000,), {}, ValueError, "bytes: an address needs the size"),
        ((0x10000, 0), {}, ValueError, "bytes must be positive, not 0"),
        ((0x10000, -5), {}, ValueError, "bytes must be positive, not -5"),
        ((-PAGE, PAGE), {}, ValueError, "is not a range of addresses"),
        (((1 << 64) - PAGE, PAGE), {}, ValueError, "is not a range of addresses"),
        ((bytes(10), 11), {}, ValueError, "bytes: the buffer has 10, not 11"),
        ((b"",), {}, ValueError, "bytes must be positive"),
        (("text",), {}, TypeError, "an address or a buffer of this process, not str"),
        ((None,), {}, TypeError, "not NoneType"),
        ((0x10000, "x"), {}, TypeError, "bytes must be an integer, not str"),
        ((bytes(10), 1.5), {}, TypeError, "bytes must be an integer, not float"),
        ((0x10000, PAGE), {"pid": "x"}, TypeError, "pid must be an integer, not str"),
        ((0x10000, PAGE), {"pid": 0}, ProcessLookupError, "pid: there is no process 0"),
        ((0x10000, PAGE), {"pid": 1 << 40}, ProcessLookupError, "there is no process 109951162777"),
        ((0x10000, PAGE), {"max_pages": -1}, ValueError, "max_pages must be 0"),
        ((0x10000, PAGE), {"max_pages": 1 << 64}, ValueError, "max_pages must be 0.*below 2"),
        ((0x10000, PAGE), {"max_pages": None}, TypeError, "max_pages must be an integer, not None"),
        ((0x10000, PAGE), {"vec_len": 1.5}, TypeError, "vec_len must be an integer, not float"),
        ((0x10000, PAGE), {"vec_len": 0}, ValueError, "vec_len must be between 1"),
        ((0x10000, PAGE), {"vec_len": 1 << 40}, ValueError, "vec_len must be between 1"),
        (
            (0x10000, PAGE),
            {"category_mask": 512},
            ValueError,
            "category_mask: this kernel does not tell 0x200; see categories",
        ),
        (
            (0x10000, PAGE),
            {"anyof_mask": 1 << 62 | Category.PRESENT},
            ValueError,
            "anyof_mask: this kernel does not tell 0x4000000000000000; see",
        ),
        ((0x10000, PAGE), {"inverted": -1}, ValueError, "inverted must be a sum of cat.*, not -1"),
        (
            (0x10000, PAGE),
            {"return_mask": 1 << 70},
            ValueError,
            "return_mask: this kernel does not tell 0x400000000000000000; see",
        ),
        ((0x10000, PAGE), {"return_mask": "x"}, TypeError, "return_mask must be an integer"),
        ((0, 1 << 63), {}, OSError, "Bad address: .0x0, 0x8000000000000000. leaves the addresses"),
        (
            (0, 1 << 63),
            {"write_protect": True},
            OSError,
            "leaves the addresses that a process can have; pages may have been protected",
        ),
    ],
    ids=str,
)
def test_arguments_are_named_with_the_reason(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        pagemap.scan(*arguments, **options)


def test_a_name_that_the_kernel_does_not_know_is_told_beside_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pagemap, "categories", lambda: Category.WRITTEN)
    with pytest.raises(ValueError, match="tell <Category.HUGE: 64> and 0x400; see categories"):
        pagemap.scan(0x10000, PAGE, category_mask=Category.HUGE | Category.WRITTEN | 0x400)


@pytest.mark.parametrize("truth", [True, 1, 2, 5, "yes", [0]], ids=repr)
def test_flags_are_true_or_false(truth: Any) -> None:
    with dh.WriteWatch(8 * PAGE, technique="uffd") as watch:
        touch(watch.buffer, 3)
        where = {"category_mask": Category.WRITTEN, "return_mask": Category.WRITTEN}
        assert pagemap.scan(watch.buffer, **where, write_protect=truth).pages_count == 1
        assert pagemap.scan(watch.buffer, **where, check_wpasync=truth).pages_count == 0
        touch(watch.buffer, 3)
        assert pagemap.scan(watch.buffer, **where, write_protect=not truth).pages_count == 1
        assert pagemap.scan(watch.buffer, **where).pages_count == 1, "not protected"
    with pytest.raises(PermissionError, match="check_wpasync: a part of the range has no"):
        pagemap.scan(bytearray(PAGE), check_wpasync=truth)


def test_untracked_memory_fails_check_wpasync(memory: mmap.mmap) -> None:
    touch(memory, 3)
    with pytest.raises(PermissionError, match="check_wpasync: a part of the range has no"):
        pagemap.scan(memory, check_wpasync=True)
    with pytest.raises(PermissionError, match="pages may have been protected"):
        pagemap.scan(memory, check_wpasync=True, write_protect=True)


@pytest.mark.parametrize("code", [errno.EFAULT, errno.EIO, errno.ENOTTY, errno.ESRCH, errno.ENOMEM])
def test_refusals_of_the_kernel_have_a_class(memory: mmap.mmap, code: int) -> None:
    classes = {
        errno.ENOTTY: dh.TrackerError,
        errno.ESRCH: ProcessLookupError,
        errno.ENOMEM: MemoryError,
    }
    with fault("pagemap.query", 0, code), pytest.raises(classes.get(code, OSError)) as caught:
        pagemap.scan(memory)
    if code == errno.EFAULT:
        assert caught.value.errno == code
        assert "PAGEMAP_SCAN" in str(caught.value)
    assert pagemap.scan(memory).walk_end == address(memory) + PAGES * PAGE


def test_no_descriptor_is_left_behind(memory: mmap.mmap) -> None:
    pagemap.scan(memory)
    before = os.listdir("/proc/self/fd")
    for _ in range(20):
        pagemap.scan(memory)
        with fault("pagemap.query", 0, errno.EIO), pytest.raises(OSError):
            pagemap.scan(memory)
    assert os.listdir("/proc/self/fd") == before


def test_random_scans_agree_with_a_model(memory: mmap.mmap) -> None:
    """Sub-ranges, max_pages and vec_len on pages that come and go."""
    rng: random.Random = seeded()
    present: set[int] = set()
    base = address(memory)
    for _ in range(300):
        page = rng.randrange(PAGES)
        if rng.random() < 0.7:
            touch(memory, page)
            present.add(page)
        else:
            assert libc.madvise(base + page * PAGE, PAGE, mmap.MADV_DONTNEED) == 0
            present.discard(page)
        start, stop = sorted(rng.randrange(PAGES + 1) for _ in range(2))
        if start == stop:
            continue
        most, room = rng.choice((0, 1, 30)), rng.choice((None, 1, 5))
        scan = pagemap.scan(
            base + start * PAGE,
            (stop - start) * PAGE,
            category_mask=Category.PRESENT,
            max_pages=most,
            vec_len=room,
        )
        found = pages_of(scan, base)
        walked = (scan.walk_end - base) // PAGE
        assert set(range(start, walked)) & present <= set(found)
        assert set(found) <= set(range(start, stop)) & present
        assert not most or len(found) <= most
        assert room is None or len(scan) <= room
