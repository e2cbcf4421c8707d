"""Folds that run beside commits: in steps that the test takes, and in a thread of their own.

Between any two steps of a fold every verb works as if there were none; the fold can be cut short
there, or be finished by a verb that cannot wait for it; and what is on the disk is the last commit.
"""

from __future__ import annotations

import errno
import gc
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import change, contents, fault, fill, plain, seeded

import dirtyheap as dh
from dirtyheap import folder
from dirtyheap.backup import backup
from dirtyheap.folder import Folder
from dirtyheap.folding import Fold
from dirtyheap.store import Store

pytestmark = pytest.mark.timeout(120)

LARGE_BYTES = 5 << 19  # more than half of an extent: a rewrite becomes a base file
DUE = 4


@pytest.fixture
def due(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fold is due after every few commits."""
    monkeypatch.setattr(folder, "_COMMITS_MAX", DUE)


class Steps:
    """Instead of a thread: the steps of a fold are taken by the test."""

    def __init__(self, heap: dh.Heap) -> None:
        self.heap = heap

    @property
    def fold(self) -> Fold:
        fold = self.heap._folder._fold
        assert fold is not None
        return fold

    def take(self) -> bool:
        """The next one; whether there are more."""
        fold = self.fold
        self.heap._take_fold_step(fold.step)
        fold.work_outside(self)
        if fold.is_over:
            self.heap._folder._note_success()
        return not fold.is_over

    def take_all(self) -> None:
        while self.take():
            pass


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch, due: None) -> None:
    """No thread: see Steps. Durability is shown elsewhere: nothing is synced."""
    monkeypatch.setattr(Folder, "_start", lambda self: None)
    monkeypatch.setenv("DIRTYHEAP_UNSAFE_NO_SYNC", "1")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A heap with base files, and deltas upon them: the next commit finds a fold due."""
    path = tmp_path_factory.mktemp("template") / "heap"
    rng = seeded("template")
    with dh.open(path) as heap:
        prepare(heap)
        heap.commit()
        heap.tag("first")
        rewrite(heap, 2)
        heap.commit()
        heap.fold()
        for _ in range(DUE):
            change(heap, rng)
            scatter(heap, rng.randrange(256))
            heap.commit()
    return path


def prepare(heap: dh.Heap) -> None:
    fill(heap)
    heap.root["large"] = heap.buffer(LARGE_BYTES)
    rewrite(heap, 1)


def begin(template: Path, path: Path, **options: Any) -> tuple[dh.Heap, Steps]:
    """A copy of it, in which a fold has just begun."""
    shutil.copytree(template, path)
    heap = dh.open(path, **options)
    change(heap, seeded())
    heap.commit()
    steps = Steps(heap)
    steps.fold.take(steps)
    assert steps.fold.version == heap.last_commit_id
    return heap, steps


def rewrite(heap: dh.Heap, value: int) -> None:
    memoryview(heap.root["large"])[:] = bytes([value]) * LARGE_BYTES


def scatter(heap: dh.Heap, value: int) -> None:
    """A word in each of many pages: memory that a fold gives back."""
    view = memoryview(heap.root["large"])
    for page in range(0, 400, 3):
        view[page * 4096] = value


# --- between steps ------------------------------------------------------------------------------


def commit_some(heap: dh.Heap) -> None:
    change(heap, seeded())
    heap.commit()


def commit_back(heap: dh.Heap) -> None:
    """Values as the base before the fold has them."""
    scatter(heap, 2)
    heap.commit()


def commit_much(heap: dh.Heap) -> None:
    rewrite(heap, 9)
    commit_some(heap)


def commit_much_twice(heap: dh.Heap) -> None:
    commit_much(heap)
    rewrite(heap, 10)
    commit_some(heap)


def delete_and_commit(heap: dh.Heap) -> None:
    del heap.root["large"]
    heap.collect()
    heap.commit()


def roll_back(heap: dh.Heap) -> None:
    before = plain(heap)
    rewrite(heap, 77)
    change(heap, seeded())
    heap.rollback()
    assert plain(heap) == before


def go_back_to_savepoint(heap: dh.Heap) -> None:
    scatter(heap, 5)
    before = plain(heap)
    savepoint = heap.savepoint()
    change(heap, seeded())
    savepoint.rollback()
    assert plain(heap) == before
    heap.commit()


def restore(heap: dh.Heap) -> None:
    heap.restore("first")
    assert bytes(heap.root["large"][:2]) == b"\1\1"


def move_tags(heap: dh.Heap) -> None:
    heap.tag("new")
    heap.untag("first")
    commit_some(heap)
    heap.tag("new")


def fail_to_commit(heap: dh.Heap) -> None:
    change(heap, seeded())
    rewrite(heap, 3)
    with fault("extent.write", rc=errno.ENOSPC), pytest.raises(dh.CommitError):
        heap.commit()
    heap.commit()


def fail_in_transaction(heap: dh.Heap) -> None:
    before = plain(heap)
    with pytest.raises(ZeroDivisionError), heap.transaction():
        rewrite(heap, 3)
        change(heap, seeded())
        raise ZeroDivisionError
    assert plain(heap) == before


def nothing(heap: dh.Heap) -> None:
    pass


VERBS = [
    nothing, commit_some, commit_back, commit_much, commit_much_twice, delete_and_commit, roll_back,
    go_back_to_savepoint, restore, move_tags, fail_to_commit, fail_in_transaction,
]  # fmt: skip


def committed(heap: dh.Heap) -> Any:
    """What the disk says is the last commit, in a heap that opens beside this one."""
    with dh.open(heap.path, read_only=True) as snapshot:
        report = snapshot.verify()
        assert report.ok, report.first_problem
        return plain(snapshot)


def assert_whole(heap: dh.Heap, now: Any) -> None:
    assert plain(heap) == now
    assert committed(heap) == now
    report = heap.verify()
    assert report.ok, report.first_problem


@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize(
    ("verb", "tracker"), [*((verb, "auto") for verb in VERBS), (commit_much, "compare")]
)
def test_a_verb_between_any_two_steps(
    template: Path, tmp_path: Path, verb: Callable[[dh.Heap], None], tracker: str
) -> None:
    for number in range(1000):
        path = tmp_path / f"heap {number}"
        heap, steps = begin(template, path, tracker=tracker, keep=3)
        is_long = all(steps.take() for _ in range(number))
        verb(heap)
        now = plain(heap)
        if is_long:
            steps.take_all()
        assert heap._folder._fold is None
        assert_whole(heap, now)
        change(heap, seeded())
        heap.commit()
        now = plain(heap)
        heap.fold()
        assert_whole(heap, now)
        heap.close()
        assert contents(path) == now
        assert not orphans(path)
        if not is_long:
            break
    print(f"{number} steps")
    assert number > 5


def orphans(path: Path) -> set[str]:
    """Base files that a fold left behind: what opening the heap removes."""
    before = set(os.listdir(path / "base"))
    dh.open(path).close()
    return before - set(os.listdir(path / "base"))


@pytest.mark.usefixtures("by_hand")
def test_a_commit_after_each_step_of_fold_after_fold(template: Path, path: Path) -> None:
    """The folds never come to rest upon one commit, and all kept commits can be opened."""
    rng = seeded()
    heap, steps = begin(template, path, keep=6)
    folds = 0
    shown = {}
    while folds < 8:
        if heap._folder._fold is not None:
            if not steps.fold.is_driven_by(steps):
                steps.fold.take(steps)
            folds += not steps.take()
        change(heap, rng)
        if rng.random() < 0.2:
            rewrite(heap, rng.randrange(256))
        scatter(heap, rng.randrange(4))
        shown[heap.commit().id] = plain(heap)
        for commit in heap.history():
            with dh.open(path, read_only=True, at=commit.id) as snapshot:
                assert plain(snapshot) == shown.get(commit.id, plain(snapshot))
    assert heap.verify().ok
    heap.close()
    assert contents(path) == shown[max(shown)]


@pytest.mark.usefixtures("by_hand")
def test_a_fold_cut_short_after_any_step_leaves_the_last_commit(
    template: Path, tmp_path: Path
) -> None:
    for number in range(1000):
        path = tmp_path / f"heap {number}"
        heap, steps = begin(template, path)
        is_long = all(steps.take() for _ in range(number))
        commit_much(heap)
        change(heap, seeded())
        now = committed(heap)
        heap.close()
        assert contents(path) == now
        if not is_long:
            break
    assert number > 5


# --- verbs that cannot wait ---------------------------------------------------------------------


@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize("how", ["fold", "overdue", "memory"])
@pytest.mark.parametrize("commits", [0, 1])
def test_who_cannot_wait_finishes_the_fold(
    template: Path, tmp_path: Path, how: str, commits: int
) -> None:
    for number in range(1000):
        path = tmp_path / f"heap {number}"
        heap, steps = begin(template, path)
        is_long = all(steps.take() for _ in range(number))
        for _ in range(commits):
            commit_some(heap)
        if how == "fold":
            rewritten = heap.fold()
            assert rewritten > 0 or not is_long
        elif how == "overdue":
            store = heap._writable_store()
            while store.deltas_count <= folder._OVERDUE * DUE:
                if heap._folder._fold is None:
                    break
                commit_some(heap)
        else:
            heap._folder.memory_limit = 1
            commit_some(heap)
        assert heap._folder._fold is None or not is_long
        if how != "overdue":
            assert heap._writable_store().deltas_count == 0
        now = plain(heap)
        heap.commit()
        assert_whole(heap, now)
        heap.close()
        assert contents(path) == now
        if not is_long:
            break
    assert number > 5


# --- in a thread --------------------------------------------------------------------------------


class Gate:
    """Holds a fold's thread before a step of a kind, until the test lets it go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, skip: int = 0) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        original = getattr(Fold, name)
        main = threading.current_thread()

        def wait(fold: Fold, *arguments: Any) -> Any:
            nonlocal skip
            if threading.current_thread() is not main:
                skip -= 1
                if skip < 0:
                    self.reached.set()
                    assert self.open.wait(60)
            return original(fold, *arguments)

        monkeypatch.setattr(Fold, name, wait)


def commit_until_due(heap: dh.Heap) -> None:
    for _ in range(DUE + 1):
        commit_some(heap)


@pytest.mark.usefixtures("due")
def test_commits_and_rollbacks_go_on_while_a_fold_waits_for_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, "_sync")
    with dh.open(path) as heap:
        prepare(heap)
        commit_until_due(heap)
        assert gate.reached.wait(60)
        for _ in range(DUE - 1):
            commit_some(heap)
        roll_back(heap)
        assert heap._writable_store().last.fold == 0  # type: ignore[union-attr]
        now = plain(heap)
        gate.open.set()
        heap._folder.join()
        assert heap._folder._fold is None
        store = heap._writable_store()
        assert store.last is not None and 0 < store.last.fold < store.last.id
        assert_whole(heap, now)
    assert contents(path) == now


@pytest.mark.usefixtures("due")
def test_fold_inside_hold_does_not_wait_for_the_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread cannot go on while this one holds the lock."""
    gate = Gate(monkeypatch, "step", skip=1)
    with dh.open(path) as heap:
        prepare(heap)
        gate.open.set()
        commit_until_due(heap)
        with heap.hold():
            heap.fold()
            assert heap._writable_store().deltas_count == 0
            assert heap._folder._fold is None
        now = plain(heap)
    assert contents(path) == now


@pytest.mark.usefixtures("due")
@pytest.mark.parametrize("is_held", [False, True])
def test_close_does_not_wait_for_the_fold(
    path: Path, monkeypatch: pytest.MonkeyPatch, is_held: bool
) -> None:
    synced: list[int] = []
    heap = dh.open(path)
    prepare(heap)
    commit_until_due(heap)
    heap._folder.join()
    gate = Gate(monkeypatch, "work_outside")
    gate.open.set()
    monkeypatch.setattr(Store, "sync_base", lambda self: synced.append(1))
    commit_until_due(heap)
    now = plain(heap)
    assert gate.reached.wait(60)
    if is_held:
        with heap.hold():
            heap.close()
    else:
        heap.close()
    assert not [t for t in threading.enumerate() if t.name == "dirtyheap-fold"]
    assert contents(path) == now


@pytest.mark.usefixtures("due")
def test_a_heap_that_is_forgotten_while_it_folds_is_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, "_sync")
    heap = dh.open(path)
    prepare(heap)
    commit_until_due(heap)
    assert gate.reached.wait(60)
    now = plain(heap)
    threads = [t for t in threading.enumerate() if t.name == "dirtyheap-fold"]
    threading.Timer(0.05, gate.open.set).start()
    with pytest.warns(ResourceWarning, match="unclosed heap"):
        del heap
        gc.collect()
    for thread in threads:
        thread.join(60)
    assert contents(path) == now


# --- failures -----------------------------------------------------------------------------------


def failing(heap: dh.Heap, point: str, code: int) -> None:
    """A fold in the background that fails there."""
    with fault(point, rc=code):
        heap.commit("due")
        heap._folder.join()


@pytest.mark.usefixtures("due")
@pytest.mark.parametrize(
    ("point", "code"),
    [("extent.write", errno.ENOSPC), ("extent.write", errno.ENOMEM), ("extent.view", errno.EMFILE)],
)
def test_a_failure_is_told_once_and_tried_again_later(path: Path, point: str, code: int) -> None:
    with dh.open(path) as heap:
        prepare(heap)
        heap.commit()
        heap.fold()
        for _ in range(DUE):
            commit_some(heap)
        for attempt in range(1, 4):
            change(heap, seeded())
            failing(heap, point, code)
            assert heap._folder._distance == 2**attempt
            with pytest.warns(RuntimeWarning, match="background failed.*All commits are durable"):
                commit_some(heap)
            now = plain(heap)
            assert_whole(heap, now)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                while not folder.is_due(heap._writable_store(), 2**attempt):
                    assert heap._folder._thread is None or not heap._folder._thread.is_alive()
                    change(heap, seeded())
                    # the next one is due
                    if heap._writable_store().deltas_count == DUE * 2**attempt:
                        break
                    heap.commit()
        heap.commit()
        heap._folder.join()
        assert heap._folder._fold is None and heap._folder._distance == 1
        now = plain(heap)
        assert_whole(heap, now)
    assert contents(path) == now


@pytest.mark.usefixtures("due")
def test_a_failing_sync_in_the_background_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    with dh.open(path) as heap:
        prepare(heap)
        commit_until_due(heap)
        heap._folder.join()
        with monkeypatch.context() as patch:
            patch.setattr("dirtyheap.folding.sync_file", fail)
            commit_until_due(heap)
            heap._folder.join()
        with pytest.warns(RuntimeWarning, match="could not be written.*the disk is gone"):
            heap.commit("next")
        now = plain(heap)
        assert_whole(heap, now)
    assert contents(path) == now
    assert not orphans(path)


@pytest.mark.usefixtures("by_hand")
def test_a_poisoned_heap_takes_no_step(template: Path, path: Path) -> None:
    """The index may hold a commit that the process does not know of: a fold would unchain it."""
    heap, steps = begin(template, path)
    steps.take()
    change(heap, seeded())
    heap._committer.poison = "for this test"
    with pytest.raises(dh.HeapPoisonedError, match="for this test"):
        steps.take()
    now = committed(heap)
    heap.close()
    assert contents(path) == now


@pytest.mark.usefixtures("due")
def test_without_threads_a_fold_runs_in_the_commit(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with dh.open(path) as heap:
        prepare(heap)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            commit_until_due(heap)
        assert heap._writable_store().deltas_count == 0
        now = plain(heap)
    assert contents(path) == now


# --- the process --------------------------------------------------------------------------------

PRELUDE = f"""
import atexit, os, sys, threading
import dirtyheap as dh
from dirtyheap import folder
from dirtyheap.folding import Fold

folder._COMMITS_MAX = {DUE}
heap = dh.open(sys.argv[1])
heap.root["large"] = heap.buffer(32 << 20)

def commit_until_due(is_threaded=True):
    view = memoryview(heap.root["large"])
    for number in range({DUE} + 1):
        for page in range(number, 8192, 7):
            view[page * 4096] = 1 + number
        heap.commit()
    assert heap._folder._fold is not None or not is_threaded

"""
ENDINGS = {
    "without close": "commit_until_due()",
    "with close": "commit_until_due(); heap.close()",
    "by an exception": "commit_until_due(); raise SystemExit(0)",
    "in a daemon that keeps the lock": """
        taken = threading.Event()
        def hold():
            with heap.hold():
                taken.set()
                threading.Event().wait()
        commit_until_due()
        threading.Thread(target=hold, daemon=True).start()
        taken.wait()
    """,
    # Some versions start no thread any more: then the commit folds.
    "in atexit": "atexit.register(commit_until_due, False)",
    "forked": """
        commit_until_due()
        pid = os.fork()
        if pid == 0:
            os._exit(0 if bytes(heap.root["large"][:1]) == b"\\1" else 1)
        assert os.waitpid(pid, 0)[1] == 0
        heap._folder.join()
        assert heap.verify().ok
    """,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_process_ends_while_a_fold_is_under_way(path: Path, ending: str) -> None:
    script = PRELUDE + textwrap.dedent(ENDINGS[ending])
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    with dh.open(path) as heap:
        assert heap.verify().ok
        assert bytes(heap.root["large"][4 * 4096 : 4 * 4096 + 1]) == b"\5"


# --- all at once --------------------------------------------------------------------------------


@pytest.mark.usefixtures("due")
def test_commits_rollbacks_folds_and_backups_in_parallel(tmp_path: Path) -> None:
    """Two threads that change, commit and roll back, one that folds, one that looks and copies;
    held against plain dicts."""
    path = tmp_path / "heap"
    models: list[dict[int, int]] = [{}, {}]
    over = threading.Event()
    errors: list[BaseException] = []
    counts = {"commits": 0, "rollbacks": 0, "folds": 0, "looks": 0}
    heap = dh.open(path, keep=4)
    for number in range(2):
        heap.root[number] = {}
    heap.root["large"] = heap.buffer(12 << 20)
    heap.commit()

    def guarded(work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)
                over.set()

        return threading.Thread(target=run)

    def change_part(number: int) -> None:
        rng = seeded(f"thread {number}")
        view = memoryview(heap.root["large"])
        for _ in range(150):
            if over.is_set():
                return
            with heap.hold():  # what is uncommitted is one thread's own
                model = dict(models[number])
                part = heap.root[number]
                for _ in range(rng.randrange(1, 30)):
                    key = rng.randrange(4000)
                    part[key] = model[key] = rng.randrange(1 << 40)
                    view[(number * 1500 + rng.randrange(1500)) * 4096 + 8] = rng.randrange(256)
                if rng.random() < 0.2:
                    heap.rollback()
                    counts["rollbacks"] += 1
                else:
                    heap.commit()
                    models[number] = model
                    counts["commits"] += 1

    def fold_now_and_then() -> None:
        while not over.wait(0.05):
            heap.fold()
            counts["folds"] += 1

    def look() -> None:
        while not over.is_set():
            with dh.open(path, read_only=True) as snapshot:
                assert set(snapshot.root) == {0, 1, "large"}
            copy = backup(path, tmp_path / f"copy {counts['looks'] % 2}")
            assert dh.verify(copy.path).ok
            os.rename(copy.path, tmp_path / f"done {counts['looks']}")
            counts["looks"] += 1

    writers = [guarded(lambda number=number: change_part(number)) for number in range(2)]  # type: ignore[misc]
    others = [guarded(fold_now_and_then), guarded(look)]
    for thread in [*writers, *others]:
        thread.start()
    for thread in writers:
        thread.join()
    over.set()
    for thread in others:
        thread.join()
    assert not errors, errors
    print(counts)
    assert min(counts.values()) > 0
    heap._folder.join()
    report = heap.verify()
    assert report.ok, report.first_problem
    assert [dict(heap.root[number]) for number in range(2)] == models
    large = bytes(heap.root["large"])
    heap.close()
    with dh.open(path) as heap:
        assert heap.verify().ok
        assert [dict(heap.root[number]) for number in range(2)] == models
        assert bytes(heap.root["large"]) == large
