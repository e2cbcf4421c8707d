"""Every clause of the write watch's contract on every technique; what one cannot is proved.

The clauses are in contract.py. Beside them: kinds of memory, lifetimes, errors, heaps.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import mmap
import os
import random
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import contract
import numpy as np
import pytest
from contract import CANNOT, CLAUSES, PAGE, SOURCES, TECHNIQUES, told, write
from helpers import fault, hits, require_tracker, seeded, skip_kernel_test, skip_test
from kernel_writers import WRITERS, by_direct_read

import dirtyheap as dh

NAMES = sorted(TECHNIQUES)
MADV_PAGEOUT = 21  # Linux 5.4


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(seeded().random())


@pytest.fixture(params=NAMES)
def technique(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    require_technique(name)
    return name


def require_technique(name: str) -> None:
    """The kernel's are there or the test says loudly that it was not run."""
    for result in dh.probe():
        if result.tracker == name and not result.works:
            skip_kernel_test(f"{name} does not work here: {result.reason}")


# --- the contract ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLAUSES)
def test_clause(name: str, technique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check = CLAUSES[name].check
    reason = CANNOT.get((technique, name))
    if reason is None:
        check(TECHNIQUES[technique])
        return
    with pytest.raises(AssertionError):  # the row of the table is true
        check(TECHNIQUES[technique])


def test_the_table_speaks_of_clauses_and_techniques_that_exist() -> None:
    for technique_name, name in CANNOT:
        assert technique_name in TECHNIQUES
        assert name in CLAUSES


def test_each_clause_is_cited_or_our_own() -> None:
    for name, clause in CLAUSES.items():
        assert bool(clause.cited) == (clause.source != "D"), name
    assert {clause.source for clause in CLAUSES.values()} == SOURCES.keys()


# --- kinds of memory ------------------------------------------------------------------------------


def anonymous(pages: int) -> mmap.mmap:
    return mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def base_pages(pages: int, tmp_path: Path) -> Any:
    memory = anonymous(pages)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def huge_pages(pages: int, tmp_path: Path) -> Any:
    """Transparent ones, where the kernel has them: a part that is aligned to 2 MiB and touched."""
    memory = anonymous(pages + 512)
    with contextlib.suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    view = memoryview(memory)
    first = -contract.ctypes.addressof(contract.ctypes.c_char.from_buffer(memory)) % (512 * PAGE)
    part = view[first : first + pages * PAGE]
    part[::PAGE] = b"\1" * pages
    return part


def shared_memory(pages: int, tmp_path: Path) -> Any:
    return mmap.mmap(-1, pages * PAGE)


def shared_memory_file(pages: int, tmp_path: Path) -> Any:
    fd = contract.shared_file(pages)
    memory = mmap.mmap(fd, pages * PAGE)
    os.close(fd)
    return memory


def file(pages: int, tmp_path: Path, flags: int) -> Any:
    with (tmp_path / "file").open("w+b") as opened:
        opened.write(os.urandom(PAGE) * pages)
        opened.flush()
        return mmap.mmap(opened.fileno(), pages * PAGE, flags=flags)


def private_file(pages: int, tmp_path: Path) -> Any:
    return file(pages, tmp_path, mmap.MAP_PRIVATE)


def shared_disk_file(pages: int, tmp_path: Path) -> Any:
    return file(pages, tmp_path, mmap.MAP_SHARED)


def numpy_array(pages: int, tmp_path: Path) -> Any:
    return dh.WriteWatch.whole_pages(np.zeros((pages + 1) * 512))[: pages * PAGE]


def half_touched(pages: int, tmp_path: Path) -> Any:
    memory = anonymous(pages)
    for page in range(0, pages, 2):
        memory[page * PAGE] = 1
    return memory


def only_read(pages: int, tmp_path: Path) -> Any:
    """The shared page of zeros everywhere."""
    memory = anonymous(pages)
    assert not any(memory[::PAGE])
    return memory


KINDS = (
    base_pages,
    huge_pages,
    shared_memory,
    shared_memory_file,
    private_file,
    shared_disk_file,
    numpy_array,
    half_touched,
    only_read,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_memory_is_exact(kind: Any, technique: str, tmp_path: Path) -> None:
    pages = 1300
    with dh.WriteWatch(kind(pages, tmp_path), technique=technique) as watch:
        assert watch.pages_count == pages
        assert told(watch.get()) == []
        for count in (1, 40, 900, 0):
            written = {random.randrange(pages) for _ in range(count)}
            write(watch, *written)
            assert sum(watch.buffer[::PAGE]) >= 0
            start, stop = sorted(random.randrange(pages + 1) for _ in range(2))
            inside = sorted(page for page in written if start <= page < stop)
            assert told(watch.get(start, stop)) == inside
            assert told(watch.get(reset=True)) == sorted(written)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_kernels_writes_are_seen_in_every_kind_of_memory(
    kind: Any, technique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pages = 1300
    with dh.WriteWatch(kind(pages, tmp_path), technique=technique) as watch:
        for writer in WRITERS:
            at = random.randrange(pages - 4) * PAGE + random.randrange(100, PAGE - 100)
            data = os.urandom(3 * PAGE)
            if writer is by_direct_read:
                at -= at % PAGE
            writer(watch.buffer, at, data)
            assert watch.buffer[at : at + len(data)] == data
            expected = list(range(at // PAGE, (at + len(data) - 1) // PAGE + 1))
            assert told(watch.get(reset=True)) == expected, writer.__name__
            assert told(watch.get()) == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_writeback_and_reclaim_are_no_writes_and_hide_none(
    kind: Any, technique: str, tmp_path: Path
) -> None:
    """The kernel takes pages of files away, and anonymous ones where there is swap."""
    pages = 600
    memory = kind(pages, tmp_path)
    with dh.WriteWatch(memory, technique=technique) as watch:
        for count in (0, 1, 300):
            written = sorted(random.sample(range(pages), count))
            write(watch, *written)
            send_away(watch, memory)
            if kind is shared_disk_file and technique != "compare":
                assert present(watch) < pages / 2, "the kernel did take them away"
            assert told(watch.get()) == written
            assert sum(watch.buffer[::PAGE]) >= 0, "all are read in again"
            assert told(watch.get(reset=True)) == written
            send_away(watch, memory)
            assert told(watch.get()) == []


def send_away(watch: dh.WriteWatch, memory: Any) -> None:
    if isinstance(memory, mmap.mmap):
        memory.flush()
    where, size = contract.address(watch), len(watch.buffer)
    if contract.libc.madvise(where, size, MADV_PAGEOUT) != 0:
        error = contract.ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def present(watch: dh.WriteWatch) -> int:
    kind = dh.pagemap.Category.PRESENT
    return dh.pagemap.scan(watch.buffer, category_mask=kind, return_mask=kind).pages_count


def test_huge_pages_of_hugetlb_are_told_whole(
    technique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel protects 2 MiB at once there: more is told, never less, whatever part is asked."""
    monkeypatch.chdir(tmp_path)
    huge = 2 << 20
    try:
        memory = mmap.mmap(-1, 2 * huge, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
    except OSError as error:
        assert error.errno == errno.ENOMEM
        skip_test("no huge pages are reserved (vm.nr_hugepages, vm.nr_overcommit_hugepages)")
    memory[0] = memory[huge] = 1
    with dh.WriteWatch(memory, technique=technique) as watch:
        assert told(watch.get()) == []
        write(watch, 700)
        part = told(watch.get(690, 710, max_pages=15, reset=True))
        rest = told(watch.get(reset=True))
        assert set(part) | set(rest) == ({700} if technique == "compare" else set(range(512, 1024)))
        assert not set(part) & set(rest)
        assert 700 in part
        write(watch, 3)
        watch.reset(0, 10)
        assert told(watch.get(0, 10)) == []
        watch.reset()
        for writer in WRITERS:  # across the boundary of the two
            writer(watch.buffer, 510 * PAGE, os.urandom(3 * PAGE))
            assert {510, 511, 512} <= set(told(watch.get(reset=True))), writer.__name__
            assert told(watch.get()) == []


def test_a_range_of_several_mappings_is_one_watch(technique: str, tmp_path: Path) -> None:
    """Private anonymous memory with pieces of a file in it."""
    libc = contract.libc
    libc.mmap.restype = contract.ctypes.c_void_p
    libc.mmap.argtypes = (
        [contract.ctypes.c_void_p, contract.ctypes.c_size_t]
        + [contract.ctypes.c_int] * 3
        + [contract.ctypes.c_long]
    )
    fd = contract.shared_file(100)
    memory = anonymous(1000)
    address = contract.ctypes.addressof(contract.ctypes.c_char.from_buffer(memory))
    for at, flags in ((100, mmap.MAP_PRIVATE), (500, mmap.MAP_SHARED)):
        where = address + at * PAGE
        access = mmap.PROT_READ | mmap.PROT_WRITE
        assert libc.mmap(where, 100 * PAGE, access, flags | 0x10, fd, 0) == where
    with dh.WriteWatch(memory, technique=technique) as watch:
        assert told(watch.get()) == []
        pages = [0, 99, 100, 199, 200, 500, 599, 600, 999]
        write(watch, *pages)
        # The same file's page stands in both pieces; the private one has a copy by now.
        assert told(watch.get(reset=True)) == pages
    os.close(fd)


# --- how it is told -------------------------------------------------------------------------------


def test_ranges_numbers_bitmap_and_numpy_say_the_same(technique: str) -> None:
    pages = 1003
    with dh.WriteWatch(pages * PAGE, technique=technique) as watch:
        for density in (0.0, 0.01, 0.5, 0.99, 1.0):
            written = np.array([p for p in range(pages) if random.random() < density], "u8")
            write(watch, *written.tolist())
            start, stop = sorted(random.randrange(pages + 1) for _ in range(2))
            for found, expected in (
                (watch.get(start, stop), written[(written >= start) & (written < stop)]),
                (watch.get(reset=True), written),
            ):
                runs = np.asarray(found)
                assert runs.dtype == np.uint64 and runs.shape == (len(found), 2)
                assert not runs.flags.writeable
                assert found.ranges() == [tuple(run) for run in runs.tolist()]
                assert [range(*run) for run in found.ranges()] == list(found)
                assert np.array_equal(np.asarray(found.numbers()), expected)
                assert found.count == len(expected)
                assert found.next is None
                bits = np.unpackbits(np.frombuffer(found.bitmap(), "u1"), bitorder="little")
                assert np.array_equal(np.flatnonzero(bits) + found.start, expected)
                assert len(found.bitmap()) == (found.stop - found.start + 7) // 8


def test_the_array_lives_on_without_its_pages_and_is_no_copy() -> None:
    watch = dh.WriteWatch(100 * PAGE)
    write(watch, 5, 6, 9)
    pages = watch.get()
    first, second = np.asarray(pages), np.asarray(pages)
    assert np.shares_memory(first, second)
    alive = weakref.ref(first)
    del pages, watch, second
    gc.collect()
    assert first.tolist() == [[5, 7], [9, 10]]
    del first
    assert alive() is None


def test_a_repr_says_what_it_is() -> None:
    watch = dh.WriteWatch(10 * PAGE, technique="compare")
    watch.mark(2, 6)
    assert repr(watch) == "<WriteWatch of 10 pages: compare>"
    assert repr(watch.get(1, 9)) == "<Pages of [1, 9): 4 in 1 runs>"
    assert repr(watch.get(max_pages=2)) == "<Pages of [0, 10): 2 in 1 runs, next=4>"
    watch.close()
    assert repr(watch) == "<WriteWatch of 10 pages: closed>"


def test_one_page_of_a_large_range_costs_no_scan_of_all_of_it() -> None:
    """Counted in chunks that the tracker was asked for."""
    require_tracker("uffd")
    with dh.WriteWatch(1 << 30, technique="uffd") as watch:  # eight chunks at least
        write(watch, 0, 1, 100)
        with fault("watch.scan", rc=0):
            watch.get(max_pages=1, reset=True)
            few = hits("watch.scan")
            watch.get(reset=True)
            all_of_them = hits("watch.scan") - few
        assert few == 1
        assert all_of_them >= 8


# --- arguments ------------------------------------------------------------------------------------


def test_an_unaligned_buffer_is_refused_with_the_remedy() -> None:
    array = np.zeros(1 << 16)
    with pytest.raises(ValueError, match="whole_pages") as caught:
        dh.WriteWatch(array[1:])
    assert "bytes into a page" in str(caught.value)
    part = dh.WriteWatch.whole_pages(array)
    with dh.WriteWatch(part) as watch:
        array[4000] = 1
        offset = array.ctypes.data + 4000 * 8 - np.frombuffer(part, "u1").ctypes.data
        assert told(watch.get()) == [offset // PAGE]
    assert len(dh.WriteWatch.whole_pages(bytearray(100))) == 0


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        (None, TypeError, "a writable buffer or a size in bytes, not NoneType"),
        ("text", TypeError, "not str"),
        (b"x" * PAGE, BufferError, "read-only"),
        (0, ValueError, "must be positive, not 0"),
        (-1, ValueError, "must be positive, not -1"),
        (bytearray(), ValueError, "empty"),
        (np.zeros((64, 1024))[:, ::2], BufferError, "not contiguous"),
    ],
    ids=str,
)
def test_what_is_no_memory_is_refused(wrong: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        dh.WriteWatch(wrong)


def test_a_technique_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="'magic': must be one of auto, uffd, uffd-dev, compare"):
        dh.WriteWatch(PAGE, technique="magic")


def test_the_environment_says_what_auto_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIRTYHEAP_TRACKER", "compare")
    assert dh.WriteWatch(PAGE).technique == "compare"


def test_a_size_is_rounded_up_to_pages() -> None:
    with dh.WriteWatch(PAGE + 1) as watch:
        assert (watch.pages_count, len(watch.buffer)) == (2, 2 * PAGE)
        assert not any(watch.buffer)
    with dh.WriteWatch(np.int64(PAGE)) as watch:
        assert watch.pages_count == 1


@pytest.mark.parametrize("wrong", [0, -1, 1 << 64])
def test_max_pages_must_be_positive(wrong: int) -> None:
    with dh.WriteWatch(PAGE) as watch, pytest.raises(ValueError, match="max_pages must be"):
        watch.get(max_pages=wrong)


def test_cursors_are_few_and_come_back(technique: str) -> None:
    with dh.WriteWatch(PAGE, technique=technique) as watch:
        cursors = [watch.cursor() for _ in range(7)]
        with pytest.raises(dh.TrackerError, match="at most 8"):
            watch.cursor()
        cursors.pop().close()
        cursors.pop()  # without close
        gc.collect()
        cursors += [watch.cursor(), watch.cursor()]
        cursors[0].close()
        cursors[0].close()
        with pytest.raises(ValueError, match="cursor is closed"):
            cursors[0].get()
        with cursors[1] as cursor:
            assert cursor.get().count == 0
        with pytest.raises(ValueError, match="cursor is closed"):
            cursors[1].reset()


# --- lifetimes ------------------------------------------------------------------------------------


def test_a_closed_watch_refuses_everything(technique: str) -> None:
    watch = dh.WriteWatch(PAGE, technique=technique)
    cursor = watch.cursor()
    watch.close()
    watch.close()
    cursor.close()
    for verb in (watch.get, watch.reset, watch.cursor, lambda: watch.mark(0, 1)):
        with pytest.raises(ValueError, match="the watch is closed"):
            verb()
    with pytest.raises(ValueError, match="closed"):
        cursor.get()


def test_memory_stays_while_a_view_lives(technique: str) -> None:
    watch = dh.WriteWatch(100 * PAGE, technique=technique)
    array = np.frombuffer(watch.buffer, "u1")
    array[:] = 7
    watch.close()
    del watch
    gc.collect()
    assert int(array.sum()) == 7 * 100 * PAGE


def test_own_memory_goes_with_the_last_view() -> None:
    size = 333 * PAGE
    watch = dh.WriteWatch(size)
    watch.buffer[0] = 1
    address = contract.address(watch)
    gc.collect()

    def is_mapped() -> bool:
        lines = Path("/proc/self/maps").read_text().splitlines()
        spans = [[int(end, 16) for end in line.split()[0].split("-")] for line in lines]
        return any(low <= address < high for low, high in spans)

    assert is_mapped()
    del watch
    gc.collect()
    assert not is_mapped()


def test_the_buffer_is_held_while_the_watch_is_open(technique: str) -> None:
    memory = mmap.mmap(-1, 10 * PAGE)
    watch = dh.WriteWatch(memory, technique=technique)
    with pytest.raises(BufferError):
        memory.close()
    with pytest.raises(BufferError):
        watch.buffer.release()
    array = np.frombuffer(watch.buffer, "u1")
    watch.close()
    with pytest.raises(BufferError):
        memory.close()  # the array shows it
    del array
    watch.buffer.release()
    memory.close()
    other = mmap.mmap(-1, PAGE)
    with dh.WriteWatch(other, technique=technique) as watch:
        pass
    other.close()  # though `watch` is still there


def test_a_buffer_that_nobody_else_holds_stays(technique: str) -> None:
    watch = dh.WriteWatch(mmap.mmap(-1, 50 * PAGE), technique=technique)
    gc.collect()
    write(watch, 49)
    assert told(watch.get()) == [49]


def test_a_watch_that_is_forgotten_is_closed() -> None:
    memory = mmap.mmap(-1, 10 * PAGE)
    for _ in range(50):
        dh.WriteWatch(memory)
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd"))
    with dh.WriteWatch(memory) as watch:
        watch.get()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_watch_can_be_made_again_and_again_on_the_same_memory(technique: str) -> None:
    memory = mmap.mmap(-1, 10 * PAGE)
    for value in range(1, 5):
        with dh.WriteWatch(memory, technique=technique) as watch:
            assert told(watch.get()) == []
            memory[3 * PAGE] = value
            assert told(watch.get()) == [3]


def test_overlapping_watches_are_refused() -> None:
    require_tracker("uffd")
    memory = memoryview(mmap.mmap(-1, 30 * PAGE))
    with dh.WriteWatch(memory[10 * PAGE : 20 * PAGE], technique="uffd") as watch:
        for part in (memory, memory[: 11 * PAGE], memory[19 * PAGE :], watch.buffer):
            with pytest.raises(BufferError, match="another watch of this process"):
                dh.WriteWatch(part, technique="uffd")
        with dh.WriteWatch(memory, technique="compare") as other:
            write(watch, 3)
            assert (told(watch.get()), told(other.get())) == ([3], [13])


def test_the_kernels_refusal_is_explained_and_auto_compares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody else's userfaultfd, as that of an emulator in the same process."""
    require_tracker("uffd")
    monkeypatch.delenv("DIRTYHEAP_TRACKER", raising=False)
    memory = mmap.mmap(-1, 10 * PAGE)
    uffd = foreign_registration(memory)
    try:
        with pytest.raises(dh.TrackerError, match="another userfaultfd of this process"):
            dh.WriteWatch(memory, technique="uffd")
        with dh.WriteWatch(memory) as watch:
            assert watch.technique == "compare"
            assert "another userfaultfd" in watch.reason
            write(watch, 3)
            assert told(watch.get()) == [3]
    finally:
        os.close(uffd)


def foreign_registration(memory: mmap.mmap) -> int:
    """The shortest way to a registered range."""
    import fcntl
    import struct

    ctypes = contract.ctypes
    uffd = ctypes.CDLL(None, use_errno=True).syscall(323, os.O_CLOEXEC | os.O_NONBLOCK | 1)
    if uffd < 0:
        skip_kernel_test("the userfaultfd system call is refused")
    api = bytearray(struct.pack("<QQQ", 0xAA, 1 << 13 | 1 << 15, 0))
    fcntl.ioctl(uffd, 0xC018AA3F, api)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(uffd, 0xC020AA00, bytearray(struct.pack("<QQQQ", address, len(memory), 2, 0)))
    return int(uffd)


def test_memory_that_lost_its_tracking_is_an_error_and_never_silence() -> None:
    require_tracker("uffd")
    libc = contract.libc
    libc.mmap.restype = contract.ctypes.c_void_p
    libc.mmap.argtypes = (
        [contract.ctypes.c_void_p, contract.ctypes.c_size_t]
        + [contract.ctypes.c_int] * 3
        + [contract.ctypes.c_long]
    )
    memory = anonymous(100)
    with dh.WriteWatch(memory, technique="uffd") as watch:
        where = contract.address(watch) + 50 * PAGE
        assert libc.mmap(where, PAGE, 3, 0x32, -1, 0) == where  # over the watched page
        with pytest.raises(dh.TrackerError, match="no longer tracks"):
            watch.get(reset=True)
        assert 50 in told(watch.get(reset=True)), "tracked again, and counts as written"
        assert told(watch.get()) == []
        write(watch, 50, 51)
        assert told(watch.get(reset=True)) == [50, 51]
        for verb in (watch.get, watch.reset, watch.cursor):
            assert libc.mmap(where, PAGE, 3, 0x32, -1, 0) == where
            with pytest.raises(dh.TrackerError, match="no longer tracks"):
                verb()
            watch.reset()


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EPERM, errno.EFAULT, errno.ENOMEM])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_scan_that_fails_loses_nothing(technique: str, code: int, after: int) -> None:
    pages = 40_000  # three chunks
    with dh.WriteWatch(pages * PAGE, technique=technique) as watch:
        other = watch.cursor()
        written = sorted(random.sample(range(pages), 500))
        write(watch, *written)
        raised = (OSError, MemoryError, dh.TrackerError)
        with fault("watch.scan", after, code):
            with pytest.raises(raised):
                watch.get(reset=True)
            with pytest.raises(raised):
                watch.reset(0, 100)
            with pytest.raises(raised):
                watch.cursor()
        for cursor in (watch, other):
            assert set(written) <= set(told(cursor.get(reset=True)))
            assert told(cursor.get()) == []


def test_arming_that_fails_is_told_and_auto_compares(monkeypatch: pytest.MonkeyPatch) -> None:
    require_tracker("uffd")
    monkeypatch.delenv("DIRTYHEAP_TRACKER", raising=False)
    refused = pytest.raises(dh.TrackerError, match="first scan of this memory failed .Bad addr")
    with fault("watch.arm", 0, errno.EFAULT), refused:
        dh.WriteWatch(PAGE, technique="uffd")
    memory = mmap.mmap(-1, 10 * PAGE)
    for after in (0, 1):
        with fault("watch.arm", after, errno.EFAULT), contextlib.suppress(dh.TrackerError):
            dh.WriteWatch(memory).close()
    with dh.WriteWatch(memory) as watch:  # nothing is left behind
        assert watch.technique == "uffd"


def test_no_memory_for_the_watch_is_a_memory_error(technique: str) -> None:
    memory = mmap.mmap(-1, 10 * PAGE)
    for after in range(4):
        with fault("arena.reserve", after, errno.ENOMEM), contextlib.suppress(MemoryError):
            dh.WriteWatch(memory, technique=technique).close()
    with fault("arena.reserve", 1, errno.ENOMEM), pytest.raises((MemoryError, dh.TrackerError)):
        dh.WriteWatch(memory, technique=technique)
    with dh.WriteWatch(memory, technique=technique) as watch:
        assert told(watch.get()) == []


# --- memory of a heap -----------------------------------------------------------------------------


@pytest.fixture
def buffer_heap(path: Path) -> Iterator[dh.Heap]:
    require_tracker("uffd")
    with dh.open(path, tracker="uffd") as heap:
        heap.root["data"] = heap.buffer(100 * PAGE)
        heap.commit()
        yield heap


def test_a_heaps_buffer_shares_the_heaps_watch(buffer_heap: dh.Heap) -> None:
    """Both hear of each write, whoever asks first, through commits, folds and collections."""
    heap, data = buffer_heap, buffer_heap.root["data"]
    with dh.WriteWatch(data, technique="uffd") as watch:
        assert (watch.technique, watch.pages_count) == ("uffd", 100)
        for first, verbs in enumerate((heap.commit, heap.fold, heap.collect)):
            data[first * PAGE] = 1
            verbs()
            data[(50 + first) * PAGE] = 1
            assert told(watch.get(reset=True)) == [first, 50 + first]
        data[7 * PAGE] = 9
        assert told(watch.get(reset=True)) == [7]
        assert heap.commit().pages >= 1
        assert told(watch.get()) == []
        data[8 * PAGE] = 9
        heap.rollback()
        assert 8 in told(watch.get(reset=True))
        data[9 * PAGE] = 5
    with dh.open(heap.path, read_only=True) as snapshot:
        assert snapshot.root["data"][7 * PAGE] == 9


def test_a_watch_takes_nothing_from_a_commit(path: Path) -> None:
    """Random stores, gets and commits; the next process finds every byte."""
    require_tracker("uffd")
    rng = seeded()
    with dh.open(path) as heap:
        heap.root["data"] = heap.buffer(300 * PAGE)
        data = heap.root["data"]
        with dh.WriteWatch(data) as watch:
            for _ in range(200):
                for _ in range(rng.randrange(5)):
                    data[rng.randrange(300 * PAGE)] = rng.randrange(256)
                if rng.random() < 0.5:
                    watch.get(reset=rng.random() < 0.7)
                if rng.random() < 0.2:
                    heap.commit()
        heap.commit()
        expected = bytes(data)
    with dh.open(path, read_only=True) as heap:
        assert bytes(heap.root["data"]) == expected


def test_the_end_of_the_heap_is_the_end_of_the_watch(buffer_heap: dh.Heap) -> None:
    data = buffer_heap.root["data"]
    watch = dh.WriteWatch(data, technique="uffd")
    with pytest.warns(ResourceWarning):
        buffer_heap.close()
    for verb in (watch.get, watch.reset, watch.cursor):
        with pytest.raises(dh.HeapClosedError, match="heap whose memory is watched is closed"):
            verb()
    watch.buffer[0] = 1  # the memory stays
    watch.close()


def test_a_heaps_memory_can_be_compared_instead(buffer_heap: dh.Heap) -> None:
    data = buffer_heap.root["data"]
    with dh.WriteWatch(data, technique="compare") as watch:
        data[3 * PAGE] = 1
        buffer_heap.commit()
        assert told(watch.get(reset=True)) == [3]
        buffer_heap.collect()
        assert told(watch.get()) == []


def test_the_memory_of_a_heap_that_compares_has_a_watch_of_its_own(path: Path) -> None:
    require_tracker("uffd")
    with dh.open(path, tracker="compare") as heap:
        data = heap.root["data"] = heap.buffer(10 * PAGE)
        heap.commit()
        data = heap.root["data"]
        with dh.WriteWatch(data) as watch:
            data[3 * PAGE] = 1
            heap.commit()
            data[4 * PAGE] = 1
            assert told(watch.get()) == [3, 4]


def test_a_readers_memory_is_refused(buffer_heap: dh.Heap) -> None:
    refused = pytest.raises(BufferError, match="read-only")
    with dh.open(buffer_heap.path, read_only=True) as snapshot, refused:
        dh.WriteWatch(snapshot.root["data"])


def test_a_buffer_smaller_than_its_pages_is_watched_whole(buffer_heap: dh.Heap) -> None:
    buffer_heap.root["odd"] = buffer_heap.buffer(PAGE + 100)
    with dh.WriteWatch(buffer_heap.root["odd"]) as watch:
        buffer_heap.root["odd"][PAGE + 99] = 1
        assert told(watch.get()) == [1]


# --- threads --------------------------------------------------------------------------------------


def test_threads_share_a_watch_and_its_end(technique: str) -> None:
    """Gets, resets, cursors and marks of several threads, and a close in the middle."""
    watch = dh.WriteWatch(2000 * PAGE, technique=technique)
    failed: list[BaseException] = []
    barrier = threading.Barrier(5)

    def work(number: int) -> None:
        rng = random.Random(number)
        barrier.wait()
        try:
            while True:
                write(watch, rng.randrange(2000))
                watch.get(max_pages=rng.randrange(1, 50), reset=rng.random() < 0.5)
                with contextlib.suppress(dh.TrackerError), watch.cursor() as cursor:
                    cursor.get(reset=True)
                watch.mark(3, 5)
                watch.reset(rng.randrange(1000))
        except ValueError as error:
            assert "closed" in str(error)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    barrier.wait()
    for _ in range(200):
        watch.get(reset=True)
    watch.close()
    for thread in threads:
        thread.join()
    assert failed == []
