"""The rules for processes: dumpable or not, privileges given up, fork, forkserver, spawn, exec.

What a heap has opened stays open to it; what comes of its process gets none of it.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import change, contents, fill, in_child, plain, require_root, require_tracker, seeded
from restrictions import NOBODY, become_nobody, set_dumpable

import dirtyheap as dh

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that belongs to an ordinary user, and none of root's above it."""
    require_root("becoming another user")
    with tempfile.TemporaryDirectory(prefix="dirtyheap-processes-") as name:
        os.chown(name, NOBODY, NOBODY)
        yield Path(name)


def use(heap: dh.Heap) -> Any:
    """Everything that asks the kernel for something; returns what was committed last."""
    rng = seeded()
    for _ in range(5):
        change(heap, rng)
        heap.commit()
        heap.root["taken back"] = 1
        heap.rollback()
    heap.fold()
    change(heap, rng)
    heap.commit()
    return plain(heap)


# --- dumpable, privileges -------------------------------------------------------------------------


def test_not_dumpable_before_the_heap_is_opened_it_compares(open_place: Path) -> None:
    def work() -> tuple[str, str, Any]:
        become_nobody()
        set_dumpable(False)
        with dh.open(open_place / "heap") as heap:
            fill(heap)
            return heap.stats().tracker, heap.stats().tracker_reason, use(heap)

    tracker, reason, expected = in_child(work)
    assert tracker == "compare"
    assert "PR_SET_DUMPABLE" in reason or dh.probe().tracker == "compare"
    assert contents(open_place / "heap") == expected


@pytest.mark.parametrize("is_stored_to", [True, False])
def test_not_dumpable_afterwards_changes_nothing(open_place: Path, is_stored_to: bool) -> None:
    """Also when nothing was stored yet: the descriptors are opened with the heap."""
    require_tracker("auto")

    def work() -> tuple[str, Any]:
        become_nobody()
        with dh.open(open_place / "heap") as heap:
            fill(heap)
            heap.commit()
        with dh.open(open_place / "heap", proof=True) as heap:
            if is_stored_to:
                heap.root["before"] = 1
            set_dumpable(False)
            return heap.stats().tracker, use(heap)

    tracker, expected = in_child(work)
    assert tracker in ("uffd", "uffd-dev")
    assert contents(open_place / "heap") == expected


def test_privileges_may_be_given_up_after_opening(open_place: Path) -> None:
    """As a daemon does: opened as root, used as somebody else, who then is not dumpable either."""
    require_tracker("auto")

    def work() -> tuple[str, Any]:
        with dh.open(open_place / "heap", proof=True) as heap:
            fill(heap)
            heap.commit()
            for each in (open_place / "heap").rglob("*"):
                os.chown(each, NOBODY, NOBODY)
            os.chown(open_place / "heap", NOBODY, NOBODY)
            become_nobody()
            set_dumpable(False)
            return heap.stats().tracker, use(heap)

    tracker, expected = in_child(work)
    assert tracker in ("uffd", "uffd-dev")
    assert contents(open_place / "heap") == expected


# --- multiprocessing ------------------------------------------------------------------------------

WORKERS = """
import multiprocessing, sys
import dirtyheap as dh

def look(path, key):
    with dh.open(path, read_only=True) as snapshot:
        return dh.to_python(snapshot.root[key])

def own(path):
    with dh.open(path) as heap:
        for number in range(3):
            heap.root["number"] = number
            heap.commit()
        return heap.stats().tracker

def use_the_parents(heap):
    try:
        heap.commit()
    except dh.HeapClosedError:
        return heap.root["count"]

if __name__ == "__main__":
    method, path = sys.argv[1:]
    context = multiprocessing.get_context(method)
    with dh.open(path, proof=True) as heap:
        heap.root["buffer"] = heap.buffer(100_000)
        heap.root["count"] = 0
        heap.commit()
        with context.Pool(2) as pool:
            for count in range(1, 30):
                heap.root["count"] = count
                heap.root["buffer"][count * 3000] = count
                assert heap.commit().pages >= 2
                assert pool.apply(look, [path, "count"]) == count
            # Heaps of their own, tracked as any.
            trackers = pool.map(own, [path + ".a", path + ".b"])
            assert set(trackers) == {heap.stats().tracker}, trackers
            if method != "fork":
                try:
                    pool.apply(use_the_parents, [heap])
                except TypeError as error:
                    assert "cannot be pickled" in str(error)
                else:
                    raise SystemExit("a heap went to another process")
        if method == "fork":
            # Made with the heap open, so it has a copy: to read.
            child = context.Process(target=lambda: sys.exit(use_the_parents(heap)))
            child.start()
            child.join()
            assert child.exitcode == 29, child.exitcode
        heap.root["buffer"][5] = 77
        assert heap.commit().pages >= 1
    assert look(path, "buffer")[5] == 77
    print("done")
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_of_any_kind_neither_rob_nor_harm(path: Path, tmp_path: Path, method: str) -> None:
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    done = subprocess.run(
        [sys.executable, "-P", str(script), method, str(path)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0 and done.stdout == "done\n", done.stdout + done.stderr


def test_a_program_that_is_executed_inherits_neither_watch_nor_lock(path: Path) -> None:
    """Descriptors of the watch would rob this process, one of the lock would keep it. One of the
    engine's data file, which the engine does leave open to programs, does neither."""
    script = """
import os
for fd in os.listdir("/proc/self/fd"):
    if os.path.lexists(f"/proc/self/fd/{fd}"):
        print(os.readlink(f"/proc/self/fd/{fd}"))
"""
    with dh.open(path) as heap, dh.open(path, read_only=True):
        fill(heap)
        heap.commit()
        inherited = subprocess.check_output(
            [sys.executable, "-c", script], close_fds=False, text=True
        )
        assert str(path / "writer.lock") in run_here(script)
    assert inherited.strip()
    for each in inherited.splitlines():
        assert each == str(path / "data.mdb") or str(path) not in each
        assert "userfaultfd" not in each and "pagemap" not in each


def run_here(script: str) -> str:
    """The same in this process: that the script would see what is open."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(script, {})
    return shown.getvalue()
