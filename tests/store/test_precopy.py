"""Big commits copy their bulk ahead of the stop: bounded memory, the same cut, the same figures."""

from __future__ import annotations

import errno
import random
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import TRACKERS, contents, fault, fill, hits, plain, require_tracker, run_ok, seeded

import dirtyheap as dh
from dirtyheap import precopy
from dirtyheap._ffi import lib

BULK_BYTES = 9 << 20  # some extents

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage whatever is worth it."""
    monkeypatch.setattr(precopy, "WINDOW_PAGES", 0)


def overwrite(heap: dh.Heap, rng: random.Random) -> None:
    """Bulk that changes wholly, beside some of everything."""
    heap.root["bulk"][:] = rng.randbytes(BULK_BYTES)
    heap.root["small"] = {rng.randrange(100): "x" * rng.randrange(100) for _ in range(20)}


@pytest.fixture
def bulky(path: Path, no_window: None) -> Iterator[dh.Heap]:
    with dh.open(path) as heap:
        fill(heap)
        heap.root["bulk"] = heap.buffer(BULK_BYTES)
        yield heap


def base_files(path: Path) -> set[str]:
    return {file.name for file in (path / "base").iterdir()}


# --- memory ---

PEAK = """
import sys
from pathlib import Path
import numpy
import dirtyheap as dh

def status(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) << 10

path, is_filled = sys.argv[1], sys.argv[2] == "True"
heap = dh.open(path)
content = numpy.arange(8 << 20) if is_filled else numpy.zeros(8 << 20, "u8")
for number in range(4):
    heap.root[number] = heap.array((8 << 20,), "u8")
    if is_filled:
        heap.root[number][:] = content
before = status("VmRSS")
assert before > 256 << 20 or not is_filled
Path("/proc/self/clear_refs").write_text("5")  # forget the peak
commit = heap.commit()
print(status("VmHWM") - before, commit.bytes_changed, commit.pause_ns, commit.total_ns)
heap.close()
with dh.open(path) as heap:
    for number in range(4):
        assert (heap.root[number] == content).all()
"""


@pytest.mark.parametrize("is_filled", [True, False])
def test_a_first_commit_needs_no_second_copy_of_the_heap(path: Path, is_filled: bool) -> None:
    """256 MiB; beside the heap there are an extent, the files' buffers, the allocation table.
    Memory that was handed out and not touched needs nothing."""
    require_tracker("auto")  # who compares maps the committed pages of the whole heap
    growth, changed, pause_ns, total_ns = map(int, run_ok(PEAK, path, is_filled).split())
    print(f"peak +{growth >> 20} MiB for {changed >> 20} MiB, {pause_ns} of {total_ns} ns stopped")
    assert (changed >= 255 << 20) == is_filled
    assert growth <= 32 << 20


# --- the cut ---


def write_in_order(heap: dh.Heap, words: Any, is_over: threading.Event) -> None:
    """Number after number: into a page of the bulk, then into the root."""
    step = 0
    while not is_over.is_set():
        step += 1
        words[step % len(words), -1] = step
        heap.root["step"] = step


def check_cut(heap: dh.Heap) -> None:
    """No page is older than the number in the root, none is younger than the store after it."""
    step = heap.root["step"]
    words = np.frombuffer(heap.root["bulk"], "u8").reshape(-1, 512)[:, -1].astype("i8")
    newest = step - (step - np.arange(len(words))) % len(words)
    assert (words >= newest).all()
    assert words.max() <= step + 1


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_staged_commit_is_one_cut(path: Path, tracker: str, no_window: None) -> None:
    require_tracker(tracker)
    rng = seeded()
    with dh.open(path, tracker=tracker) as heap:
        heap.root["bulk"] = heap.buffer(BULK_BYTES)
        words = np.frombuffer(heap.root["bulk"], "u8").reshape(-1, 512)
        is_over = threading.Event()
        writer = threading.Thread(target=write_in_order, args=(heap, words, is_over))
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-4)
        writer.start()
        try:
            staged = 0
            for _ in range(8):
                words[:, :500] = rng.getrandbits(60)
                with fault("extent.write", rc=0):
                    heap.commit()
                    staged += hits("extent.write") > 0
                heap._folder.join()  # no file goes while they are copied
                shutil.copytree(path, path.with_name("copy"))
                with dh.open(path.with_name("copy")) as copy:
                    check_cut(copy)
                shutil.rmtree(path.with_name("copy"))
        finally:
            is_over.set()
            writer.join()
            sys.setswitchinterval(interval)
        del words
        assert staged == 8
        heap.commit()
        expected = plain(heap)
    assert contents(path) == expected


def test_a_staged_commit_tells_the_same_figures(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[list[Any]] = []
    for window in (0, precopy.WINDOW_PAGES):
        monkeypatch.setattr(precopy, "WINDOW_PAGES", window)
        rng = random.Random(5)
        commits = []
        with dh.open(path.with_name(f"window {window}")) as heap:
            heap.root["bulk"] = heap.buffer(BULK_BYTES)
            for _ in range(3):
                overwrite(heap, rng)
                commit = heap.commit()
                commits.append(commit)
        figures.append(commits)
    for staged, plain_one in zip(*figures, strict=True):
        # Not quite equal: each heap has a hash key of its own, and places its keys by it.
        assert abs(staged.pages - plain_one.pages) <= 2
        assert abs(staged.bytes_changed - plain_one.bytes_changed) <= 4096
        assert staged.bytes_changed > BULK_BYTES * 9 // 10


def test_small_commits_are_not_staged(path: Path) -> None:
    with dh.open(path) as heap, fault("extent.write", rc=0):
        fill(heap)
        heap.commit()
        assert hits("extent.write") == 0


# --- failures ---

POINTS = [
    ("extent.write", errno.EIO), ("extent.write", errno.ENOSPC), ("watch.scan", errno.EIO),
    ("watch.scan", lib.DH_E_WATCH), ("commit.encode", errno.ENOMEM),
    ("arena.reserve", errno.ENOMEM),
]  # fmt: skip


@pytest.mark.parametrize("point,rc", POINTS)
def test_a_fault_at_the_nth_hit_of_a_staged_commit_loses_nothing(
    bulky: dh.Heap, path: Path, point: str, rc: int
) -> None:
    """What the files under way hold is forgotten with them, and is in the next commit."""
    rng = seeded()
    overwrite(bulky, rng)
    bulky.commit()
    committed = plain(bulky)
    for number in range(200):
        files = base_files(path)
        overwrite(bulky, rng)
        now = plain(bulky)
        with fault(point, after=number, rc=rc):
            try:
                bulky.commit()
            except (dh.HeapError, OSError, MemoryError):
                assert plain(bulky) == now
            else:
                break
        assert base_files(path) == files, "files of a commit that failed are left"
        if number % 2:
            bulky.rollback()
            assert plain(bulky) == committed
        else:
            bulky.commit()
            committed = now
    else:
        raise AssertionError("the fault never ran out")
    assert number > 0 or point == "arena.reserve"
    assert bulky.verify().ok
    bulky.close()
    assert contents(path) == now


def interrupt_after(store: Any, name: str, number: int, poke: Callable[[], None]) -> None:
    """Let the store's n-th call of that name end in an interrupt; the application goes on
    meanwhile, so that files are patched, too."""
    calls = 0

    def wrapped(name_now: str) -> Callable[..., Any]:
        real = getattr(type(store), name_now).__get__(store)

        def call(*arguments: Any) -> Any:
            nonlocal calls
            result = real(*arguments)
            poke()
            if name_now == name:
                calls += 1
                if calls == number + 1:
                    raise KeyboardInterrupt
            return result

        return call

    for each in {name, "write_base"}:
        setattr(store, each, wrapped(each))


def test_an_interrupt_anywhere_while_staging_loses_nothing(bulky: dh.Heap, path: Path) -> None:
    rng = seeded()
    interrupts = 0

    def poke() -> None:
        bulky.root["bulk"][rng.randrange(BULK_BYTES)] ^= 1

    for name in ("write_base", "patch_base", "sync_base"):
        for number in range(3):
            overwrite(bulky, rng)
            store = bulky._store
            interrupt_after(store, name, number, poke)
            try:
                bulky.commit()
            except KeyboardInterrupt:
                interrupts += 1
            for each in {name, "write_base"}:
                delattr(store, each)
            bulky.commit()
            now = plain(bulky)
            bulky.rollback()
            assert plain(bulky) == now
    # Who compares stages only what is new: the files are written in fewer of these commits.
    assert interrupts >= (6 if bulky.stats().tracker != "compare" else 3)
    bulky.close()
    before = base_files(path)
    with dh.open(path) as heap:
        assert plain(heap) == now
    assert base_files(path) < before, "orphans of interrupted commits are removed at open"


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_random_histories_of_staged_commits(path: Path, no_window: None) -> None:
    rng = seeded()
    committed: Any = {}
    heap = dh.open(path)
    heap.root["bulk"] = heap.buffer(BULK_BYTES)
    for _ in range(1000):
        choice = rng.randrange(8)
        if choice < 3:
            overwrite(heap, rng)
        elif choice == 3:
            heap.rollback()
            heap.root.setdefault("bulk", heap.buffer(BULK_BYTES))
        elif choice == 4:
            heap.root["bulk"] = heap.buffer(BULK_BYTES)
            heap.collect()
        elif choice == 5:
            heap.fold()
        else:
            heap.commit()
            committed = plain(heap)
            if rng.randrange(4) == 0:
                heap.close()
                heap = dh.open(path)
                assert plain(heap) == committed
    heap.commit()
    committed = plain(heap)
    heap.close()
    assert contents(path) == committed
