"""Snapshots beside the writer: in its process, in another, from a directory that cannot be written
to; what they show stays, whatever the writer does meanwhile."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import change, fill, in_child, plain, require_root, run_ok, seeded

import dirtyheap as dh
from dirtyheap import environments, snapshots

pytestmark = pytest.mark.timeout(120)


def show(path: Path, at: Any = None) -> Any:
    with dh.open(path, read_only=True, at=at) as snapshot:
        return plain(snapshot)


def rewrite(heap: dh.Heap, seed: int) -> None:
    data = random.Random(seed).randbytes(3 << 20)
    if "bulk" in heap.root:
        heap.root["bulk"][:] = data
    else:
        heap.root["bulk"] = heap.buffer(data)


def readers(heap: dh.Heap) -> str:
    """The engine's table of readers."""
    return str(heap._store._env.readers())  # type: ignore[union-attr]


# --- what it is ----------------------------------------------------------------------------------


def test_a_snapshot_shows_its_commit_whatever_the_writer_does(path: Path) -> None:
    rng = seeded()
    with dh.open(path) as heap:
        fill(heap)
        rewrite(heap, 1)
        heap.commit()
        expected = plain(heap)
        with dh.open(path, read_only=True) as snapshot:
            assert snapshot.last_commit_id == 1
            assert snapshot.read_only
            assert not heap.read_only
            for number in range(6):
                change(heap, rng)
                rewrite(heap, number)
                heap.commit()
                heap.fold()
                heap.collect()
            assert [commit.id for commit in heap.history()] == [7], "its commit is gone"
            assert plain(snapshot) == expected
            report = snapshot.verify()
            assert report.ok, report
        assert show(path) == plain(heap)


CHANGES: dict[str, Callable[[dh.Heap], Any]] = {
    "commit": lambda heap: heap.commit(),
    "rollback": lambda heap: heap.rollback(),
    "collect": lambda heap: heap.collect(),
    "fold": lambda heap: heap.fold(),
    "tag": lambda heap: heap.tag("name"),
    "untag": lambda heap: heap.untag("name"),
    "restore": lambda heap: heap.restore(1),
    "savepoint": lambda heap: heap.savepoint(),
    "transaction": lambda heap: heap.transaction().__enter__(),
    "mark_dirty": lambda heap: heap.mark_dirty(b"abc"),
    "setitem": lambda heap: heap.root.update(a=1),
    "append": lambda heap: heap.root["texts"].append(1),
    "dict": lambda heap: heap.dict(),
    "list": lambda heap: heap.list([1]),
    "buffer": lambda heap: heap.buffer(10),
    "write": lambda heap: memoryview(heap.root["buffer"]).__setitem__(0, 1),
}


@pytest.mark.parametrize("verb", CHANGES)
def test_every_change_of_a_snapshot_is_refused(path: Path, verb: str) -> None:
    with dh.open(path) as heap:
        fill(heap)
        heap.commit()
    with dh.open(path, read_only=True) as snapshot:
        expected = plain(snapshot)
        error = TypeError if verb == "write" else dh.ReadOnlyError
        with pytest.raises(error, match="read-only|reading only|read_only"):
            CHANGES[verb](snapshot)
        assert plain(snapshot) == expected
        assert snapshot.pending() == dh.Pending(0, 0)
        with snapshot.hold():
            assert snapshot.stats().commit == 1


def test_arguments_that_contradict_each_other_are_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="read_only=True"):
        dh.open(path, at=1)
    with pytest.raises(TypeError, match="named by its id"):
        dh.open(path, read_only=True, at=1.5)  # type: ignore[arg-type]
    assert not path.exists()


def test_a_snapshot_creates_nothing(path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no heap"):
        dh.open(path, read_only=True)
    path.mkdir()
    with pytest.raises(FileNotFoundError, match="no heap"):
        dh.open(path, read_only=True)
    assert list(path.iterdir()) == []
    (path / "data.mdb").touch()
    with pytest.raises(dh.HeapCorruptError, match="empty"):
        dh.open(path, read_only=True)
    (path / "data.mdb").write_bytes(b"#!/bin/sh\n" * 2000)
    with pytest.raises(dh.HeapError, match="not a dirtyheap"):
        dh.open(path, read_only=True)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(NotADirectoryError):
        dh.open(file, read_only=True)


def test_a_snapshot_of_a_heap_without_commits_is_empty(path: Path) -> None:
    with dh.open(path) as heap:
        heap.root["uncommitted"] = 1
        with dh.open(path, read_only=True) as snapshot:
            assert plain(snapshot) == {}
            assert snapshot.last_commit_id == 0
            assert snapshot.history() == []


def digest(path: Path) -> dict[str, Any]:
    """Contents and times of everything but the engine's table of readers."""
    return {
        str(file.relative_to(path)): (
            hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "",
            file.stat().st_mtime_ns,
        )
        for file in sorted(path.rglob("*"))
        if file.name != "lock.mdb"
    }


def test_a_snapshot_writes_nothing(path: Path) -> None:
    with dh.open(path, keep=3) as heap:
        fill(heap)
        heap.commit()
        rewrite(heap, 1)
        heap.commit()
        heap.tag("t")
    (path / "base" / "00000007.0000000000000001.00000000").touch()  # an orphan
    before = digest(path)
    with dh.open(path, read_only=True, at="t") as snapshot:
        plain(snapshot)
        snapshot.verify()
        snapshot.history()
        snapshot.tags()
        snapshot.diff(1, 2)
    assert digest(path) == before


def test_links_are_not_followed(path: Path, tmp_path: Path) -> None:
    with dh.open(path) as heap:
        heap.commit("one")
    other = tmp_path / "other"
    other.mkdir()
    (other / "data.mdb").symlink_to(path / "data.mdb")
    with pytest.raises(dh.HeapError, match="no regular file"):
        dh.open(other, read_only=True)


# --- the engine's environment --------------------------------------------------------------------


def test_no_read_transaction_outlives_the_call(path: Path) -> None:
    with dh.open(path) as heap:
        fill(heap)
        heap.commit()
        with dh.open(path, read_only=True) as snapshot:
            assert "no active readers" in readers(heap)
            snapshot.history()
            assert "no active readers" in readers(heap)
            with pytest.raises(dh.HeapError):
                dh.open(path, read_only=True, at=77)
            assert "no active readers" in readers(heap)
    assert environments._registry.environments == {}


def test_snapshots_may_be_open_before_the_writer_and_after_it(path: Path) -> None:
    with dh.open(path, keep=5) as heap:
        heap.root["n"] = 1
        heap.commit()
    first = dh.open(path, read_only=True)
    with dh.open(path, keep=5) as heap:
        heap.root["n"] = 2
        heap.commit()
        second = dh.open(path, read_only=True)
    third = dh.open(path, read_only=True, at=1)
    assert [snapshot.root["n"] for snapshot in (first, second, third)] == [1, 2, 1]
    assert [commit.id for commit in first.history()] == [1, 2], "as the index has it now"
    for snapshot in (first, second, third):
        snapshot.close()
    assert environments._registry.environments == {}


def test_threads_open_snapshots_while_the_writer_opens_closes_and_prunes(path: Path) -> None:
    with dh.open(path) as heap:
        heap.root["n"] = [0] * 100
        heap.commit()
    stop, problems = threading.Event(), list[BaseException]()
    opened = [0, 0, 0]

    def look(index: int) -> None:
        try:
            while not stop.is_set() or opened[index] < 5:
                numbers = show(path)["n"]
                assert numbers == [numbers[0]] * 100
                opened[index] += 1
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=look, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for round_ in range(5):
        with dh.open(path) as heap:
            for number in range(4):
                heap.root["n"][:] = [round_ * 10 + number] * 100
                rewrite(heap, number)
                heap.commit()
                heap.fold()
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not problems
    assert min(opened) >= 5


def test_a_forked_child_opens_snapshots_of_its_parents_heap(path: Path) -> None:
    with dh.open(path) as heap:
        fill(heap)
        heap.commit()
        expected = plain(heap)
        change(heap, seeded())
        assert in_child(lambda: show(path) == expected) is True
        heap.commit()
        assert in_child(lambda: show(path) == show(path)) is True
        now = plain(heap)
        change(heap, seeded())
        heap.commit()
    assert show(path) != now


def test_a_child_forked_in_the_middle_of_a_write_is_told(path: Path) -> None:
    with dh.open(path) as heap:
        heap.root["n"] = 1
        heap.commit()
        with heap._store._environment.writing:  # type: ignore[union-attr]
            answer = in_child(lambda: show(path))
        assert answer[:2] == ("raised", "HeapError")
        assert "subprocess" in answer[2]
        heap.root["n"] = 2
        heap.commit()


# --- pruned meanwhile ----------------------------------------------------------------------------


@pytest.fixture
def two_bases(path: Path) -> Iterator[dh.Heap]:
    with dh.open(path) as heap:
        rewrite(heap, 1)
        heap.root["n"] = 1
        heap.commit()
        yield heap


def test_a_base_file_pruned_meanwhile_means_another_attempt(
    two_bases: dh.Heap, monkeypatch: pytest.MonkeyPatch
) -> None:
    heap, open_directory, calls = two_bases, snapshots.BaseFiles.open_directory, []

    def open_late(self: Any) -> int:
        calls.append(self)
        if len(calls) == 1:
            rewrite(heap, 2)
            heap.root["n"] = 2
            heap.commit()
            heap.fold()
        return open_directory(self)

    monkeypatch.setattr(snapshots.BaseFiles, "open_directory", open_late)
    with dh.open(heap.path, read_only=True) as snapshot:
        assert snapshot.root["n"] == 2
    assert len(calls) > 1


def test_a_writer_that_never_stops_pruning_ends_in_a_clear_error(
    two_bases: dh.Heap, monkeypatch: pytest.MonkeyPatch
) -> None:
    heap = two_bases

    def open_directory(self: Any) -> int:
        heap.commit("moves on")
        raise FileNotFoundError

    monkeypatch.setattr(snapshots, "_ATTEMPTS_MAX", 7)
    with monkeypatch.context() as patch:
        patch.setattr(snapshots.BaseFiles, "open_directory", open_directory)
        with pytest.raises(dh.HeapError, match="7 times on end; open a tagged commit"):
            dh.open(heap.path, read_only=True)
    assert heap.last_commit_id == 8


def test_a_base_file_that_is_gone_is_damage(two_bases: dh.Heap) -> None:
    (file,) = (heap_file for heap_file in (two_bases.path / "base").iterdir()
               if heap_file.stat().st_size > 1 << 20)  # fmt: skip
    file.unlink()
    with pytest.raises(dh.HeapCorruptError, match=f"base file {file.name} is missing"):
        dh.open(two_bases.path, read_only=True)


# --- another process -----------------------------------------------------------------------------

WRITER = """
import random, sys
import dirtyheap as dh
from helpers import change, fill
heap = dh.open(sys.argv[1], keep=int(sys.argv[2]))
print("open", flush=True)
bulk = heap.root["bulk"] = heap.buffer(3 << 20)
number = 0
while sys.stdin.readline().strip() == "go":
    for _ in range(10):
        number += 1
        heap.root["n"] = [number] * 200
        if number % 3 == 0:
            bulk[:] = random.randbytes(3 << 20)
        heap.commit()
        if number % 4 == 0:
            heap.fold()
    print(number, flush=True)
heap.close()
"""


@pytest.mark.parametrize("keep", [1, 5])
def test_beside_a_writer_in_another_process(path: Path, keep: int) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-P", "-c", WRITER, str(path), str(keep)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert writer.stdin and writer.stdout
    held: list[tuple[dh.Heap, Any]] = []
    seen = 0
    try:
        assert writer.stdout.readline() == "open\n"
        for _ in range(4):
            writer.stdin.write("go\n")
            writer.stdin.flush()
            for _ in range(10):  # while it commits, folds and prunes
                snapshot = dh.open(path, read_only=True)
                numbers = dh.to_python(snapshot.root).get("n", [0] * 200)
                assert numbers == [numbers[0]] * 200
                assert numbers[0] >= seen
                seen = numbers[0]
                assert snapshot.last_commit_id == seen
                if len(held) < 8:
                    held.append((snapshot, plain(snapshot)))
                else:
                    snapshot.close()
                with pytest.raises(dh.HeapLockedError):
                    dh.open(path)
            writer.stdout.readline()
        for snapshot, state in held:
            assert plain(snapshot) == state
            snapshot.close()
        writer.stdin.close()
        assert writer.wait(60) == 0
    finally:
        writer.kill()
        writer.wait()
        for stream in (writer.stdin, writer.stdout):
            stream.close()
    assert show(path)["n"] == [40] * 200


def test_a_reader_that_was_killed_keeps_no_pages(path: Path) -> None:
    """The next writer clears its row."""
    with dh.open(path) as heap:
        heap.root["n"] = 1
        heap.commit()
    script = """
import os, signal, sys
import dirtyheap as dh
from dirtyheap import snapshots
snapshots.Index.find = lambda self, at: os.kill(os.getpid(), signal.SIGKILL)
dh.open(sys.argv[1], read_only=True)
"""
    done = subprocess.run([sys.executable, "-P", "-c", script, str(path)])
    assert done.returncode == -9
    with dh.open(path) as heap:
        assert "no active readers" in readers(heap)


# --- where nothing can be written ----------------------------------------------------------------

UNPRIVILEGED = """
import os, sys
import dirtyheap as dh
dh.probe()
os.setgid(65534); os.setuid(65534)
try:
    with dh.open(sys.argv[1], read_only=True, tracker="compare") as snapshot:
        print(snapshot.root["n"], [commit.id for commit in snapshot.history()])
except dh.HeapError as error:
    print("refused:", error)
"""


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A directory that other users can reach."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory / "heap"
    shutil.rmtree(directory)


def test_a_directory_that_cannot_be_written_to(public_path: Path) -> None:
    require_root("becoming another user")
    with dh.open(public_path) as heap:
        heap.root["n"] = 5
        heap.commit()
        answer = run_ok(UNPRIVILEGED, public_path)
        assert answer.startswith("refused:")
        assert "give this user write access" in answer
        (public_path / "lock.mdb").chmod(0o666)
        assert run_ok(UNPRIVILEGED, public_path) == "5 [1]\n", "beside the writer"
        (public_path / "lock.mdb").chmod(0o644)
    assert run_ok(UNPRIVILEGED, public_path) == "5 [1]\n", "no writer is there"
    (public_path / "lock.mdb").unlink()
    (public_path / "writer.lock").unlink()
    assert run_ok(UNPRIVILEGED, public_path) == "5 [1]\n", "a copy of the files"
    assert not (public_path / "lock.mdb").exists()


def test_a_file_system_that_cannot_be_written_to(tmp_path: Path) -> None:
    require_root("mounting")
    path, mounted = tmp_path / "heap", tmp_path / "mounted"
    with dh.open(path) as heap:
        heap.root["n"] = 5
        heap.commit()
    mounted.mkdir()
    script = """
import subprocess, sys
import dirtyheap as dh
for options in (["--bind", sys.argv[1], sys.argv[2]], ["-o", "remount,ro,bind", sys.argv[2]]):
    if subprocess.run(["mount", *options], capture_output=True).returncode != 0:
        print("not allowed"); sys.exit()
with dh.open(sys.argv[2], read_only=True) as snapshot:
    print(snapshot.root["n"])
with dh.open(sys.argv[1]) as heap:
    heap.root["n"] = 6
    heap.commit()
    with dh.open(sys.argv[2], read_only=True) as snapshot:
        print(snapshot.root["n"])  # the file is the one that this process has open
"""
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-P", "-c", script, str(path), str(mounted)],
        capture_output=True, text=True,
    )  # fmt: skip
    if "not allowed" in done.stdout or "unshare" in done.stderr:
        pytest.skip("NOT TESTED: mounts are not allowed here")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "5\n6\n"
