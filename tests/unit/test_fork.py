"""A forked child may read, forgets on close, and neither robs nor hangs; exits without a close."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import (
    contents,
    fill,
    in_child,
    plain,
    require_tracker,
    run_ok,
    run_python,
)

import dirtyheap as dh
from dirtyheap import store

pytestmark = pytest.mark.timeout(180)


# --- fork ---


def test_a_forked_child_can_read_but_not_write_and_the_parent_goes_on(path: Path) -> None:
    require_tracker("auto")
    with dh.open(path) as heap:
        fill(heap)
        heap.commit()
        heap.root["uncommitted"] = [1]
        expected = plain(heap)

        def child() -> Any:
            assert plain(heap) == expected
            assert bytes(memoryview(heap.root["buffer"])) == bytes(expected["buffer"])
            refused = []
            tries: dict[str, Callable[[], Any]] = {
                "commit": heap.commit,
                "rollback": heap.rollback,
                "collect": heap.collect,
                "pending": heap.pending,
                "fold": heap.fold,
                "transaction": lambda: heap.transaction().__enter__(),
                "dict store": lambda: heap.root.update(a=1),
                "list store": lambda: heap.root["texts"].append(1),
                "buffer store": lambda: heap.root["buffer"].__setitem__(0, 1),
                "new dict": heap.dict,
                "new buffer": lambda: heap.buffer(10),
            }
            for name, attempt in tries.items():
                try:
                    attempt()
                except (dh.HeapError, TypeError):
                    refused.append(name)
            with pytest.raises(TypeError):
                memoryview(heap.root["buffer"])[0] = 1
            assert set(tries) == set(refused), set(tries) - set(refused)
            heap.close()
            return "read"

        assert in_child(child) == "read"
        # What the parent writes after the fork is still seen: nobody robbed it.
        heap.root["after"] = 1
        heap.root["buffer"][5] = 77
        expected = plain(heap)
        heap.commit()
    assert contents(path) == expected


def test_children_that_exit_in_any_way_harm_nothing(path: Path) -> None:
    """By falling off the end, by sys.exit, by close; with views alive."""
    script = """
import os, sys, dirtyheap as dh
from helpers import fill, plain, change
import random
heap = dh.open(sys.argv[1])
fill(heap)
heap.commit()
view = memoryview(heap.root["buffer"])
for number in range(4):
    pid = os.fork()
    if pid == 0:
        assert plain(heap)["numbers"][3] == 9
        if number == 1: sys.exit(0)
        if number == 2: view.release(); heap.close()
        if number == 3: del heap, view
        break
    assert os.waitpid(pid, 0)[1] == 0, number
    change(heap, random.Random(number))
    heap.commit()
else:
    view.release()
    heap.close()
    heap = dh.open(sys.argv[1])
    assert heap.last_commit_id == 5, heap.last_commit_id
    print("parent", plain(heap) == plain(heap), heap.verify().ok)
    heap.close()
"""
    assert "parent True True" in run_ok(script, path)


def test_a_heap_can_be_reopened_while_a_child_of_its_dead_writer_lives(path: Path) -> None:
    script = """
import os, signal, sys, dirtyheap as dh
heap = dh.open(sys.argv[1])
heap.root["a"] = 1
heap.commit()
pid = os.fork()
if pid == 0:
    print(os.getpid(), flush=True)  # it runs, and so has what it inherited in order
signal.pause()
"""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", script, str(path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            with pytest.raises(dh.HeapLockedError, match=str(parent.pid)):
                dh.open(path)
            parent.kill()
            parent.wait()
            os.kill(child, 0)  # it lives
            with dh.open(path) as heap:
                assert plain(heap) == {"a": 1}
                heap.root["b"] = 2
                heap.commit()
            os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)
    assert contents(path) == {"a": 1, "b": 2}


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_forked_while_a_thread_holds_the_lock_does_not_hang(path: Path) -> None:
    """The lock's owner does not exist in the child."""
    entered, leave = threading.Event(), threading.Event()

    def holder(heap: dh.Heap) -> None:
        with heap.hold():
            entered.set()
            assert leave.wait(60)

    def use(heap: dh.Heap) -> list[str]:
        verbs = [heap.commit, heap.rollback, heap.collect, heap.fold, heap.stats, heap.pending]
        verbs += [heap.transaction().__enter__, heap.hold().__enter__]
        outcomes = []
        for verb in verbs:
            try:
                verb()
            except dh.HeapClosedError as error:
                outcomes.append(str(error))
        assert heap.root["a"] == 1
        heap.close()
        assert heap.closed
        return outcomes

    with dh.open(path) as heap:
        heap.root["a"] = 1
        heap.commit()
        thread = threading.Thread(target=holder, args=(heap,))
        thread.start()
        assert entered.wait(60)
        outcomes = in_child(lambda: use(heap), timeout_s=20)
        leave.set()
        thread.join(60)
        assert isinstance(outcomes, list), outcomes
        assert len(outcomes) == 8
        assert all("parent" in outcome for outcome in outcomes)
        heap.root["b"] = 2
        heap.commit()
    assert contents(path) == {"a": 1, "b": 2}


def test_a_heap_whose_making_was_cut_short_is_synced_by_the_next(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the transaction that makes the index and the syncs of the directories."""
    script = """
        import os, sys
        from dirtyheap import store
        store.sync_directory = lambda path: os._exit(9)
        import dirtyheap as dh
        dh.open(sys.argv[1])
        """
    assert run_python(textwrap.dedent(script), path).returncode == 9
    assert (path / "data.mdb").exists()
    synced: list[tuple[Path, bool]] = []
    monkeypatch.setattr(
        store, "sync_directory", lambda where: synced.append((where, (path / "base").exists()))
    )
    with dh.open(path) as heap:
        heap.root["a"] = 1
        heap.commit()
    # The index's name is durable before there is a base folder, which says that it exists.
    assert synced == [(path, False), (path, True), (path.parent, True)]


def test_a_heap_opened_in_a_forked_child_is_the_childs_own(path: Path, tmp_path: Path) -> None:
    with dh.open(tmp_path / "parents") as parents:
        parents.root["a"] = 1
        parents.commit()

        def child() -> Any:
            with dh.open(path) as heap:
                heap.root["b"] = 2
                heap.commit()
                heap.root["b"] = 3
                heap.rollback()
                return plain(heap)

        assert in_child(child) == {"b": 2}
        parents.root["a"] = 2
        parents.commit()
    assert contents(tmp_path / "parents") == {"a": 2}
    assert contents(path) == {"b": 2}


def test_spawned_workers_are_refused_while_the_heap_is_open_and_let_in_afterwards(
    path: Path, tmp_path: Path
) -> None:
    script = tmp_path / "spawning.py"
    script.write_text("""
import multiprocessing, sys, dirtyheap as dh

def work(path):
    try:
        with dh.open(path) as heap:
            heap.root["worker"] = heap.root["a"] + 1
            return heap.commit().id
    except dh.HeapLockedError as error:
        return str(error)

if __name__ == "__main__":
    path = sys.argv[1]
    heap = dh.open(path)
    heap.root["a"] = 1
    heap.commit()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        refused = pool.apply(work, [path])
        assert "is open for writing in process" in refused, refused
        print("entries", pool.apply(len, [heap.root]))  # it gets a plain copy
        heap.close()
        print("commit", pool.apply(work, [path]))
""")
    done = subprocess.run(
        [sys.executable, "-P", str(script), str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["entries 1", "commit 2"]
    assert contents(path) == {"a": 1, "worker": 2}


# --- exits ---

ENDS = {
    "nothing": "",
    "view alive": "view = memoryview(heap.root['buffer'])",
    "array alive": "import numpy; array = numpy.frombuffer(heap.root['buffer'], dtype='u1')",
    "iterator alive": "iterator = iter(heap.root['numbers'].items()); next(iterator)",
    "in a cycle": "heap.cycle = [heap, heap.root, memoryview(heap.root['buffer'])]",
    "sys.exit in a transaction": "heap.transaction().__enter__(); heap.root['a'] = 2; sys.exit(0)",
    "thread in a loop": """
import threading
started = threading.Event()
def loop():
    while True:
        heap.root['numbers'][1] = 2
        started.set()
threading.Thread(target=loop, daemon=True).start()
started.wait()
""",
    "thread that commits": """
import threading
started = threading.Event()
def loop():
    while True:
        heap.root['again'] = 1
        heap.rollback()
        started.set()
threading.Thread(target=loop, daemon=True).start()
started.wait()
""",
    "finalizer that uses the heap": """
class Late:
    def __del__(self):
        try:
            heap.root['late'] = 1
            heap.commit('late')
        except Exception as error:
            pass
late = Late(); late.cycle = late; sys.keep = late
""",
    "os._exit": "os._exit(0)",
}


@pytest.mark.parametrize("end", ENDS)
def test_an_interpreter_that_ends_without_close_keeps_the_last_commit(path: Path, end: str) -> None:
    script = f"""
import os, sys, dirtyheap as dh
from helpers import fill
heap = dh.open(sys.argv[1])
fill(heap)
heap.commit()
heap.root['uncommitted'] = 1
{ENDS[end]}
"""
    done = run_python(script, path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    found = contents(path)
    assert found["numbers"][3] == 9 and len(found["buffer"]) == 64 * 256
    assert "uncommitted" not in found or end == "finalizer that uses the heap"
