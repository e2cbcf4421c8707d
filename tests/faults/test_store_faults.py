"""The disk fails in every way that can be arranged: after it, either nothing is lost (the next
commit and a reopening equal memory), or the heap is poisoned with a reason, and reopening shows
exactly the state before or the state after.

Arranged are: a full file system, a file size limit at every size, a descriptor that is read-only or
closed under the engine, and the core's fault points, each at its n-th hit for every n.
"""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import (
    ChildError,
    change,
    contents,
    fault,
    fill,
    hits,
    in_child,
    plain,
    require_root,
    run_ok,
    seeded,
    skip_kernel_test,
)

import dirtyheap as dh
from dirtyheap import environments, precopy
from dirtyheap.base_files import Extent
from dirtyheap.store import Store

pytestmark = pytest.mark.timeout(180)


def rewrite_much(heap: dh.Heap, rng: random.Random) -> None:
    """Enough that whole extents are written as base files: every step of a commit is passed."""
    heap.root["bulk"] = heap.buffer(3 << 20)
    heap.root["bulk"][:] = rng.randbytes(3 << 20)


def judge_failure(
    heap: dh.Heap, path: Path, before: Any, now: Any, last: int, where: str
) -> tuple[dh.Heap, str]:
    """The promise, checked once the disk is well again. Returns an open heap and what happened."""
    try:
        heap.commit()
    except dh.HeapPoisonedError as error:
        assert len(str(error)) > 30, where
        assert "close" in str(error), where
        for verb in (heap.commit, heap.rollback, heap.collect, heap.fold):
            with pytest.raises(dh.HeapPoisonedError):
                verb()
        heap.close()
        heap = dh.open(path)
        assert plain(heap) in (before, now), where
        assert heap.last_commit_id in (last, last + 1), where
        return heap, "poisoned"
    assert plain(heap) == now, where
    report = heap.verify()
    assert report.ok, f"{where}: {report.first_problem}"
    heap.close()
    heap = dh.open(path)
    assert plain(heap) == now, where
    assert heap.last_commit_id == last + 1, where
    return heap, "kept"


class Trial:
    """A heap that is changed, meets a failure, and is judged; again and again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rng = seeded()
        self.outcomes: Counter[str] = Counter()
        self.heap = dh.open(path)
        fill(self.heap)
        self.heap.commit()

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *error: object) -> None:
        self.heap.close()
        print(dict(self.outcomes))

    def run(self, where: str, attempt: Callable[[], Any], much: bool = False) -> bool:
        """Change something, attempt it; returns whether it failed."""
        before, last = plain(self.heap), self.heap.last_commit_id
        change(self.heap, self.rng)
        if much:
            rewrite_much(self.heap, self.rng)
        now = plain(self.heap)
        try:
            attempt()
        except (dh.HeapError, OSError, MemoryError) as error:
            self.outcomes[type(error).__name__] += 1
            assert plain(self.heap) == now, where
        else:
            assert self.heap.last_commit_id == last + 1, where
            self.heap.close()
            self.heap = dh.open(self.path)
            assert plain(self.heap) == now, where
            self.outcomes["no failure"] += 1
            return False
        self.heap, outcome = judge_failure(self.heap, self.path, before, now, last, where)
        self.outcomes[outcome] += 1
        return True


# --- fault points ---

POINTS = [
    ("commit.encode", 5), ("commit.encode", errno.ENOMEM),
    ("watch.scan", errno.EPERM), ("watch.scan", errno.EFAULT), ("watch.scan", errno.ENOMEM),
    ("watch.scan", -3),
    ("extent.write", errno.EIO), ("extent.write", errno.ENOSPC),
]  # fmt: skip


@pytest.mark.parametrize("point,rc", POINTS)
def test_a_fault_at_the_nth_hit_of_a_commit_loses_nothing(path: Path, point: str, rc: int) -> None:
    with Trial(path) as trial:
        for number in range(200):

            def commit(number: int = number) -> None:
                with fault(point, after=number, rc=rc):
                    trial.heap.commit()

            if not trial.run(f"hit {number}", commit, much=True):
                break
        assert number > 0
        assert trial.outcomes["kept"] == number, "a fault before the transaction must not poison"


@pytest.mark.parametrize("window", [precopy.WINDOW_PAGES, 0])
@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
def test_a_durable_commit_whose_base_file_cannot_be_opened_once_is_a_success(
    path: Path, monkeypatch: pytest.MonkeyPatch, window: int, number: int
) -> None:
    """Too many open files for a moment, say, between the record and taking the file over."""
    monkeypatch.setattr(precopy, "WINDOW_PAGES", window)
    with Trial(path) as trial:
        heap = trial.heap
        store = heap._store
        assert isinstance(store, Store)
        locate, failures = store.locate, []

        def locate_later(extent: Extent) -> int:
            if not failures:
                failures.append(extent)
                raise OSError(number, os.strerror(number))
            return locate(extent)

        rewrite_much(heap, trial.rng)
        store.locate = locate_later  # type: ignore[method-assign]
        assert heap.commit().id == 2
        assert len(failures) == 1
        store.locate = locate  # type: ignore[method-assign]
        heap.root["a"] = "after"
        now = plain(heap)
        assert heap.commit().id == 3
        assert heap.verify().ok
    assert contents(path) == now


@pytest.mark.parametrize("window", [precopy.WINDOW_PAGES, 0])
def test_a_durable_commit_that_cannot_be_taken_over_poisons(
    path: Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(precopy, "WINDOW_PAGES", window)
    with Trial(path) as trial:
        rewrite_much(trial.heap, trial.rng)
        now = plain(trial.heap)
        with (
            fault("extent.view", rc=errno.EMFILE),
            pytest.raises(dh.HeapPoisonedError, match="commit 2 is durable.*open it again"),
        ):
            trial.heap.commit()
        with pytest.raises(dh.HeapPoisonedError, match="commit 2 is durable"):
            trial.heap.commit()
        assert plain(trial.heap) == now
    with dh.open(path) as heap:
        assert heap.last_commit_id == 2
        assert plain(heap) == now


def test_a_fold_that_cannot_map_its_files_is_recorded_and_says_so(path: Path) -> None:
    with Trial(path) as trial:
        heap = trial.heap
        now = plain(heap)
        with (
            fault("extent.view", rc=errno.EMFILE),
            pytest.raises(dh.HeapError, match="the fold is recorded, but.*next fold"),
        ):
            heap.fold()
        for _ in range(2):
            change(heap, trial.rng)
            now = plain(heap)
            heap.commit()
            assert heap.verify().ok
            heap.fold()
            assert plain(heap) == now
    assert contents(path) == now


# --- the engine's map ---


def test_an_index_without_room_loses_nothing_and_a_fold_makes_some(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the address space is limited the index gets a small map."""
    monkeypatch.setattr(environments, "_MAP_BYTES", (1 << 20,))
    failed = 0
    rng = seeded()
    with dh.open(path) as heap:
        fill(heap)
        heap.root["noise"] = heap.buffer(1 << 18)
        heap.commit()
        for _ in range(30):
            memoryview(heap.root["noise"])[:] = rng.randbytes(1 << 18)
            heap.root["n"] = rng.random()
            now, last = plain(heap), heap.last_commit_id
            try:
                heap.commit()
            except dh.CommitError as error:
                failed += 1
                assert "Nothing is lost" in str(error)
                assert "the index is full" in str(error)
                assert "fold(), called twice," in str(error)
                assert plain(heap) == now
                assert heap.last_commit_id == last
                with dh.open(path, read_only=True) as seen:
                    assert seen.last_commit_id == last
                heap.fold()
                heap.fold()
                assert heap.commit().id == last + 1
            assert heap.last_commit_id == last + 1
            assert plain(heap) == now
        assert heap.verify().ok
    assert failed >= 3
    assert contents(path) == now


def test_a_tag_that_the_index_has_no_room_for_is_not_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "_MAP_BYTES", (1 << 20,))
    with dh.open(path) as heap:
        fill(heap)
        heap.commit()
        number = 0
        with pytest.raises(dh.HeapError, match="the index is full"):
            while True:
                heap.tag(f"{number} {'é' * 190}")
                number += 1
        assert len(heap.tags()) == number > 100
        assert heap.verify().ok
    monkeypatch.undo()  # a larger address space
    with dh.open(path) as heap:
        assert len(heap.tags()) == number
        heap.tag("one more")
        heap.root["n"] = number
        assert heap.commit().id == 2
        assert heap.verify().ok


# --- folds ---


def test_a_fault_at_the_nth_hit_of_a_fold_loses_nothing(path: Path) -> None:
    with Trial(path) as trial:
        for number in range(200):
            change(trial.heap, trial.rng)
            trial.heap.commit()
            before = plain(trial.heap)
            change(trial.heap, trial.rng)
            now, last = plain(trial.heap), trial.heap.last_commit_id
            with fault("extent.write", after=number, rc=errno.ENOSPC):
                try:
                    trial.heap.fold()
                    failed = False
                except dh.HeapError:
                    failed = True
                assert failed == (hits("extent.write") > number)
            trial.heap, outcome = judge_failure(
                trial.heap, path, before, now, last, f"hit {number}"
            )
            assert outcome == "kept"
            if not failed:
                break
        assert number >= 2


def test_no_memory_in_the_capture_loses_nothing(path: Path) -> None:
    """The reservations behind a capture and a rollback fail."""
    with Trial(path) as trial:
        failures = 0
        for number in range(20):

            def commit(number: int = number) -> None:
                with fault("arena.reserve", after=number, rc=errno.ENOMEM):
                    trial.heap.commit()

            failures += trial.run(f"reservation {number}", commit)
            change(trial.heap, trial.rng)
            now = plain(trial.heap)
            with fault("arena.reserve", after=number, rc=errno.ENOMEM):
                try:
                    with trial.heap.transaction():
                        change(trial.heap, trial.rng)
                        raise RuntimeError
                except MemoryError:
                    failures += 1
                except RuntimeError:
                    pass  # undone: going back needs no memory
            assert plain(trial.heap) == now
            trial.heap.commit()
        assert failures > 0


# --- descriptors ---


def data_descriptors(path: Path) -> Iterator[int]:
    """The descriptors through which the engine reaches data.mdb."""
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the one listdir itself had
        if target == str(path / "data.mdb"):
            yield int(name)


@pytest.mark.parametrize("kind", ["read-only", "closed", "full device", "pipe"])
def test_a_descriptor_that_fails_under_the_engine_loses_nothing(path: Path, kind: str) -> None:
    def use() -> Any:
        with Trial(path) as trial:
            for number in range(6):

                def commit() -> None:
                    found = list(data_descriptors(path))
                    assert found
                    kept = {fd: os.dup(fd) for fd in found}
                    for fd in found:
                        break_descriptor(fd, kind, path)
                    try:
                        trial.heap.commit()
                    finally:
                        for fd, copy in kept.items():
                            os.dup2(copy, fd)
                            os.close(copy)

                assert trial.run(f"{kind} {number}", commit, much=number % 2 == 1)
            return dict(trial.outcomes)

    outcomes = in_child(use)
    assert isinstance(outcomes, dict), outcomes
    print(outcomes)


def break_descriptor(fd: int, kind: str, path: Path) -> None:
    if kind == "closed":
        os.close(fd)
        return
    if kind == "pipe":
        read_fd, other = os.pipe()
        os.close(read_fd)
    else:
        name = "/dev/full" if kind == "full device" else path / "data.mdb"
        other = os.open(name, os.O_WRONLY if kind == "full device" else os.O_RDONLY)
    os.dup2(other, fd)
    os.close(other)


def test_a_meta_page_that_cannot_be_written_poisons(path: Path) -> None:
    """All data goes to the disk, then the last write fails: which commit is the last is not known
    to the engine, and the heap says so instead of guessing."""

    def use() -> Any:
        heap = dh.open(path)
        fill(heap)
        heap.commit()
        before = plain(heap)
        change(heap, random.Random(3))
        now = plain(heap)
        # LMDB writes the meta page through a descriptor of its own.
        found = list(data_descriptors(path))
        outcomes = []
        for fd in found:
            kept = os.dup(fd)
            break_descriptor(fd, "read-only", path)
            try:
                heap.commit()
                outcomes.append("committed")
            except dh.HeapError as error:
                outcomes.append(type(error).__name__)
            finally:
                os.dup2(kept, fd)
                os.close(kept)
            if heap._committer.poison:
                break
        heap, outcome = judge_failure(heap, path, before, now, 1, str(outcomes))
        heap.close()
        return outcomes, outcome

    outcomes, outcome = in_child(use)
    print(outcomes, outcome)
    assert set(outcomes) <= {"CommitError", "HeapPoisonedError", "committed"}


# --- limits of size ---


def test_a_file_size_limit_at_any_size_loses_nothing(path: Path) -> None:
    """Small steps around the size of the index, so that each of its writes fails once."""

    def use() -> Any:
        with Trial(path) as trial:
            for number in range(60):
                size = (path / "data.mdb").stat().st_size
                limit = max(0, size - 8192 + number * 1024)

                def commit(limit: int = limit) -> None:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                    try:
                        trial.heap.commit()
                    finally:
                        resource.setrlimit(
                            resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
                        )

                trial.run(f"limit {limit}, file {size}", commit, much=number % 5 == 4)
            return dict(trial.outcomes)

    outcomes = in_child(use, timeout_s=120)
    assert isinstance(outcomes, dict), outcomes
    print(outcomes)
    assert outcomes["kept"] > 5
    assert outcomes["no failure"] > 5


# --- a full disk ---

# A tmpfs in a mount namespace of the child's own: gone with it, invisible to everybody else.
FULL_DISK = """
import json, os, subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import dirtyheap as dh
from helpers import change, contents, fill, plain, seeded
from test_store_faults import judge_failure, rewrite_much

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", disk], check=True)
path, filler = disk / "heap", disk / "filler"
rng = seeded()
heap = dh.open(path)
fill(heap)
heap.commit()
outcomes = {}

def fill_disk(leave):
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        file.truncate(max(0, file.tell() - leave))

for leave in [0, 0, 4096, 8192, 12288, 16384, 20480, 28672, 40960, 65536, 131072] * 2:
    before, last = plain(heap), heap.last_commit_id
    change(heap, rng)
    heap.root["more"] = rng.randbytes(20_000)
    now = plain(heap)
    fill_disk(leave)
    outcome = "done"
    try:
        heap.commit()
    except (dh.HeapError, OSError) as error:
        assert plain(heap) == now
        outcome = type(error).__name__
        # and again, while the disk is still full
        try:
            heap.commit()
        except (dh.HeapError, OSError):
            pass
    full_fold = ""
    filler.unlink()
    outcomes[outcome] = outcomes.get(outcome, 0) + 1
    if outcome == "done":
        continue
    if heap.last_commit_id == last + 1:
        continue
    heap, kept = judge_failure(heap, path, before, now, last, f"{leave} bytes left")
    outcomes[kept] = outcomes.get(kept, 0) + 1

# A full disk does not keep anybody from reading, nor a fold from failing whole.
expected = plain(heap)
fill_disk(0)
try:
    heap.fold()
    outcomes["fold done"] = 1
except dh.HeapError as error:
    outcomes["fold " + type(error).__name__] = 1
assert plain(heap) == expected
heap.close()
try:
    reopened = dh.open(path)
    outcomes["opened full"] = 1
    assert plain(reopened) == expected
    reopened.close()
except OSError as error:
    outcomes["not opened: " + str(error)] = 1
filler.unlink()
assert contents(path) == expected
print(json.dumps(outcomes))
"""


def test_a_full_file_system_loses_nothing(tmp_path: Path) -> None:
    require_root("mounting a tmpfs")
    if shutil.which("unshare") is None:
        skip_kernel_test("there is no unshare command")
    disk = tmp_path / "disk"
    disk.mkdir()
    allowed = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", str(disk)], capture_output=True
    )
    if allowed.returncode != 0:
        skip_kernel_test(f"mounts are not allowed here: {allowed.stderr.decode()}")
    script = tmp_path / "full_disk.py"
    script.write_text(FULL_DISK)
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[1]))
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-P", str(script), str(disk), str(Path(__file__).parent)],
        capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    print(done.stdout)
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert outcomes["CommitError"] >= 4, "the disk was never full"
    assert outcomes["opened full"] == 1, outcomes


def test_a_fold_that_fails_after_a_note_only_commit_keeps_the_old_files(path: Path) -> None:
    """Its record has no delta before the fold either: only the fold's own record tells it."""

    def use() -> Any:
        outcomes = Counter[str]()
        with dh.open(path) as heap:
            fill(heap)
            heap.commit()
            heap.fold()
        for number in range(24):
            with dh.open(path) as heap:
                heap.root["changed"] = "x" * 100 + str(number)
                heap.commit()
                heap.commit("note only")
                now = plain(heap)
                limit = number * 4096
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                try:
                    heap.fold()
                    outcomes["folded"] += 1
                except dh.HeapPoisonedError:
                    outcomes["poisoned"] += 1
                except dh.HeapError:
                    outcomes["failed"] += 1
                finally:
                    resource.setrlimit(
                        resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
                    )
            assert contents(path) == now, f"limit {limit}"
        return dict(outcomes)

    outcomes = in_child(use)
    assert isinstance(outcomes, dict), outcomes
    print(outcomes)
    assert outcomes["failed"] > 5


def test_a_commit_whose_fold_fails_is_told_to_be_durable(path: Path) -> None:
    """A fold that the commit waits for, because memory is over its limit."""
    with dh.open(path) as heap:
        for number in range(1, 8):
            heap.root["a"] = number
            heap._folder.memory_limit = 1 if number > 2 else None
            with fault("extent.write", rc=errno.ENOMEM if number % 2 else errno.EIO):
                if number > 2:
                    with pytest.warns(RuntimeWarning, match="is durable, but the fold"):
                        assert heap.commit().id == number
                else:
                    assert heap.commit().id == number
        heap._folder.memory_limit = None
    assert contents(path) == {"a": 7}


def test_a_full_disk_at_creation_leaves_a_path_that_can_be_tried_again(path: Path) -> None:
    """Each size limit cuts the making of a heap short somewhere else."""

    def make(limit: int) -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            with dh.open(path) as heap:
                heap.root["a"] = 1
                heap.commit()
        finally:
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
        return "made"

    answers = Counter()
    for limit in [*range(0, 60_000, 2048)]:
        shutil.rmtree(path, ignore_errors=True)
        try:
            answer = in_child(lambda limit=limit: make(limit))
        except ChildError as error:
            raise AssertionError(f"limit {limit}: {error}") from error
        answers[answer if isinstance(answer, str) else answer[1]] += 1
        with dh.open(path) as heap:
            assert plain(heap) in ({}, {"a": 1}), limit
            heap.root["b"] = 2
            heap.commit()
        assert contents(path)["b"] == 2, limit
    print(dict(answers))
    assert answers["made"] > 0 and answers.total() > answers["made"]
    assert set(answers) <= {"made", "CommitError", "HeapError", "OSError"}


def test_a_base_directory_that_is_gone_loses_nothing(path: Path) -> None:
    with Trial(path) as trial:

        def commit() -> None:
            (path / "base").rename(path / "away")
            try:
                trial.heap.commit()
            finally:
                (path / "away").rename(path / "base")

        assert trial.run("no base directory", commit, much=True)
        assert trial.outcomes["CommitError"] == 1


def test_writing_without_privileges_to_a_heap_that_became_read_only(path: Path) -> None:
    """chmod does not take back open descriptors: the commit succeeds or fails whole."""
    script = """
import os, sys
import dirtyheap as dh
from helpers import contents, fill, plain
heap = dh.open(sys.argv[1])
fill(heap)
heap.commit()
os.chmod(sys.argv[1], 0o500)
os.chmod(sys.argv[1] + "/data.mdb", 0o400)
heap.root["more"] = 1
heap.root["bulk"] = heap.buffer(os.urandom(3 << 20))
expected = plain(heap)
try:
    heap.commit()
except dh.HeapError as error:
    assert plain(heap) == expected
os.chmod(sys.argv[1], 0o700)
os.chmod(sys.argv[1] + "/data.mdb", 0o600)
heap.commit()
heap.close()
print(contents(__import__("pathlib").Path(sys.argv[1])) == expected)
"""
    assert run_ok(script, path).strip() == "True"
