"""The laboratory: what each technique can do, proven, and what it cannot, proven as well."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import seeded

import dirtyheap as dh

PAGE = 4096
ALL = [technique.name for technique in dh.lab.techniques()]
LABORATORY = [technique.name for technique in dh.lab.techniques() if not technique.for_heaps]
HERE = [technique.name for technique in dh.lab.techniques() if technique.works]

# What is true of a technique by its nature. The rows of docs/write-watch.md say the same.
BREAKS_SYSTEM_CALLS = {"mprotect", "uffd-sync"}
SEES_BYTES_ONLY = {"compare", "hash", "fork"}
SEES_OTHER_MAPPINGS = {"compare", "hash"}
REFUSES_SHARED_MEMORY = {"fork"}
REFUSES_FILES = {"uffd-sync"}
# Pages given back (MADV_DONTNEED): the kernel's own tracking and who looks at bytes.
SEES_PAGES_GIVEN_BACK = {"uffd", "uffd-dev", "compare", "hash", "fork"}

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=HERE)
def technique(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def watch(technique: str) -> Iterator[dh.WriteWatch]:
    with dh.lab.watch(200 * PAGE, technique) as opened:
        yield opened


def taken(watch: dh.WriteWatch) -> list[int]:
    return list(watch.get(reset=True).numbers())


# --- the list -------------------------------------------------------------------------------------


def test_every_technique_says_what_it_cannot_see_and_what_it_breaks() -> None:
    assert ALL[:3] == ["uffd", "uffd-dev", "compare"]
    assert {"hash", "soft-dirty", "mprotect", "uffd-sync", "fork"} == set(LABORATORY)
    for technique in dh.lab.techniques():
        assert technique.idea and technique.cannot_see and technique.breaks
        assert technique.works == (technique.reason == "")
        assert ("EFAULT" in technique.breaks) == (technique.name in BREAKS_SYSTEM_CALLS)


def test_those_that_need_nothing_of_the_kernel_work_everywhere() -> None:
    assert {"compare", "hash", "mprotect"} <= set(HERE)


def test_soft_dirty_is_proven_or_refused_with_a_reason() -> None:
    """Clearing succeeds on every kernel; only the bit tells."""
    (found,) = (t for t in dh.lab.techniques() if t.name == "soft-dirty")
    if found.works:
        with dh.lab.watch(10 * PAGE, "soft-dirty") as watch:
            watch.buffer[3 * PAGE] = 1
            assert taken(watch) == [3]
    else:
        assert "bit 55" in found.reason or "cannot be opened" in found.reason
        with pytest.raises(dh.TrackerError) as refused:
            dh.lab.watch(PAGE, "soft-dirty")
        assert str(refused.value) == found.reason


# --- heaps cannot choose them ---------------------------------------------------------------------


@pytest.mark.parametrize("name", LABORATORY)
def test_a_heap_refuses_it(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' is one of the laboratory, and never for a"):
        dh.open(tmp_path / "heap", tracker=name)
    monkeypatch.setenv("DIRTYHEAP_TRACKER", name)
    with pytest.raises(ValueError, match=r"must be one of auto, uffd, uffd-dev, compare"):
        dh.open(tmp_path / "heap")
    assert not (tmp_path / "heap").exists()


@pytest.mark.parametrize("name", LABORATORY)
def test_a_write_watch_points_to_the_laboratory(name: str) -> None:
    with pytest.raises(ValueError, match=rf"dh.lab.watch\(buffer_or_size, '{name}'\) takes it"):
        dh.WriteWatch(PAGE, technique=name)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"technique 'magic': must be one of uffd, .*, fork"):
        dh.lab.watch(PAGE, "magic")


@pytest.mark.parametrize("name", [name for name in LABORATORY if name in HERE])
def test_memory_of_a_heap_is_refused(tmp_path: Path, name: str) -> None:
    with dh.open(tmp_path / "heap") as heap:
        heap.root["buffer"] = buffer = heap.buffer(4 * PAGE)
        with pytest.raises(dh.TrackerError, match=r"memory of a heap"):
            dh.lab.watch(buffer, name)
        buffer[5] = 1
        assert heap.commit().pages


# --- what each can and cannot do ------------------------------------------------------------------


def test_it_is_a_write_watch_of_that_technique(watch: dh.WriteWatch, technique: str) -> None:
    assert isinstance(watch, dh.WriteWatch)
    assert watch.technique == technique
    assert watch.get().count == 0


def test_stores_by_numpy_and_slices_are_told_exactly(watch: dh.WriteWatch) -> None:
    rng = seeded()
    array = np.frombuffer(watch.buffer, "u8")
    for _ in range(20):
        pages = sorted(rng.sample(range(watch.pages_count), rng.randrange(1, 40)))
        for page in pages[::2]:
            array[page * 512 + rng.randrange(512)] += 1
        for page in pages[1::2]:
            at = page * PAGE + rng.randrange(PAGE)
            watch.buffer[at] = (watch.buffer[at] + 1) % 256
        assert array.sum(dtype="u8") > 0  # reading is no writing
        assert list(watch.get().numbers()) == pages
        assert taken(watch) == pages
        assert taken(watch) == []


def test_read_into_a_watched_page(watch: dh.WriteWatch, technique: str) -> None:
    """EFAULT where stores of the kernel are refused like any other; else success, and a report."""
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(b"x" * 10)
        file.seek(0)
        part = watch.buffer[7 * PAGE : 7 * PAGE + 10]
        if technique in BREAKS_SYSTEM_CALLS:
            with pytest.raises(OSError, match=r"Bad address"):
                file.readinto(part)
            assert taken(watch) == []
            watch.buffer[7 * PAGE + 20] = 1  # a store of our own lifts the protection
        assert file.readinto(part) == 10
        assert taken(watch) == [7]
        assert bytes(part) == b"x" * 10


def test_bytes_that_stay_the_same(watch: dh.WriteWatch, technique: str) -> None:
    watch.buffer[3 * PAGE] = 0
    watch.buffer[4 * PAGE] = 1
    watch.buffer[4 * PAGE] = 0
    assert taken(watch) == ([] if technique in SEES_BYTES_ONLY else [3, 4])


def test_pages_given_back(technique: str) -> None:
    memory = mmap.mmap(-1, 20 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[5 * PAGE] = 1
    with dh.lab.watch(memory, technique) as watch:
        memory.madvise(mmap.MADV_DONTNEED, 5 * PAGE, PAGE)
        assert memory[5 * PAGE] == 0
        assert taken(watch) == ([5] if technique in SEES_PAGES_GIVEN_BACK else [])


def test_a_store_through_another_mapping(technique: str, tmp_path: Path) -> None:
    """Shared memory, written where nobody watches."""
    path = tmp_path / "shared"
    path.write_bytes(bytes(20 * PAGE))
    fd = os.open(path, os.O_RDWR)
    watched, other = mmap.mmap(fd, 20 * PAGE), mmap.mmap(fd, 20 * PAGE)
    os.close(fd)
    if technique in REFUSES_SHARED_MEMORY | REFUSES_FILES:
        with pytest.raises((dh.TrackerError, BufferError), match=r"private|files cannot"):
            dh.lab.watch(watched, technique)
        return
    with dh.lab.watch(watched, technique) as watch:
        watched[2 * PAGE] = 1
        other[3 * PAGE] = 1
        assert taken(watch) == ([2, 3] if technique in SEES_OTHER_MAPPINGS else [2])


def test_a_forked_child_writes_freely(watch: dh.WriteWatch) -> None:
    watch.buffer[3 * PAGE] = 1
    child = os.fork()
    if child == 0:
        code = 1
        try:
            watch.buffer[4 * PAGE] = 1
            try:
                watch.get()
            except dh.TrackerError:
                watch.close()
                watch.buffer[5 * PAGE] = 1
                code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    watch.buffer[6 * PAGE] = 1
    assert taken(watch) == [3, 6]


def test_a_closed_watch_leaves_ordinary_memory(watch: dh.WriteWatch) -> None:
    view = watch.buffer
    watch.close()
    view[:] = b"x" * len(view)
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(b"y" * PAGE)
        file.seek(0)
        assert file.readinto(view) == PAGE


# Reading and clearing soft-dirty bits are two steps: its writers must stand still.
@pytest.mark.parametrize("technique", [name for name in HERE if name != "soft-dirty"])
def test_writers_in_threads_lose_nothing(technique: str) -> None:
    """Counters that only grow, each with one writer: the condition of those that look at bytes."""
    with dh.lab.watch(300 * PAGE, technique) as watch:
        words = np.frombuffer(watch.buffer, "u8")
        copy = words.copy()
        is_over = threading.Event()

        def write(seed: int) -> None:
            rng = np.random.default_rng(seed)
            while not is_over.is_set():
                words[2 * rng.integers(0, words.size // 2, 50) + seed] += 1

        writers = [threading.Thread(target=write, args=(seed,)) for seed in range(2)]
        for writer in writers:
            writer.start()
        copied = 0
        while copied < 3000:
            for run in watch.get(reset=True):
                part = slice(run.start * 512, run.stop * 512)
                copy[part] = words[part]
                copied += len(run)
        is_over.set()
        for writer in writers:
            writer.join()
        for run in watch.get(reset=True):
            part = slice(run.start * 512, run.stop * 512)
            copy[part] = words[part]
        assert np.array_equal(copy, words)


# --- breaking, proven -----------------------------------------------------------------------------


def run_python(text: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", "import dirtyheap as dh\n" + text]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_mprotect_breaks_a_handler_installed_later() -> None:
    """faulthandler takes the first store for a crash, when it comes after the watch; installed
    before, it is passed on to and gets real crashes only."""
    stores = "watch.buffer[0] = 1; print(watch.get().count, flush=True)"
    opening = "watch = dh.lab.watch(8192, 'mprotect')"
    before = run_python(f"import faulthandler; faulthandler.enable()\n{opening}\n{stores}")
    assert before.returncode == 0 and before.stdout == "1\n"
    after = run_python(f"{opening}\nimport faulthandler; faulthandler.enable()\n{stores}")
    assert after.returncode == -11 and "Segmentation fault" in after.stderr
    crash = run_python(
        f"import faulthandler, ctypes; faulthandler.enable()\n{opening}\n{stores}\n"
        "ctypes.string_at(64)"
    )
    assert crash.returncode == -11 and crash.stdout == "1\n"
    assert "Segmentation fault" in crash.stderr


def test_fork_leaves_no_child_behind() -> None:
    done = run_python(
        "import os\n"
        "watch = dh.lab.watch(8192, 'fork')\n"
        "children = open(f'/proc/self/task/{os.getpid()}/children').read().split()\n"
        "assert len(children) == 1\n"
        "try: os.waitpid(-1, os.WNOHANG)\n"
        "except ChildProcessError: pass\n"
        "else: raise SystemExit('the program learns of the child')\n"
        "watch.close()\n"
        "assert open(f'/proc/self/task/{os.getpid()}/children').read() == ''\n"
    )
    assert done.returncode == 0, done.stderr
