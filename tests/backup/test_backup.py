"""Backup: whole copies of closed, open and busy heaps, that share nothing with what they copy."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from golden import golden_heaps
from helpers import contents, fill, plain

import dirtyheap as dh
from dirtyheap import backup as backups
from dirtyheap.backup import backup
from dirtyheap.base_files import BaseFiles


@pytest.fixture
def filled(path: Path) -> Path:
    """A heap with base files and deltas, closed."""
    with dh.open(path) as heap:
        fill(heap)
        heap.commit("filled")
        heap.fold()
        heap.root["later"] = 1
        heap.commit("later")
    return path


def names(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


def test_a_closed_heap(filled: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    report = backup(filled, copy)
    assert (report.path, report.commit, report.base_files) == (copy, 2, 2)
    assert report.bytes == sum((copy / name).stat().st_size for name in names(copy))
    assert contents(copy) == contents(filled)
    assert not list(tmp_path.glob("*partial*"))


def test_the_copy_shares_no_file(filled: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    backup(filled, copy)
    inodes = [{(filled / n).stat().st_ino for n in names(filled)}, set[int]()]
    inodes[1] = {(copy / n).stat().st_ino for n in names(copy)}
    assert not inodes[0] & inodes[1]
    before = contents(copy)
    with dh.open(filled) as heap:
        heap.root.clear()
        heap.commit()
        heap.fold()
    assert contents(copy) == before
    with dh.open(copy) as heap:
        heap.root["only here"] = 1
        assert heap.commit().id == 3
        heap.fold()
    assert "only here" not in contents(filled)


def test_an_open_heap(filled: Path, tmp_path: Path) -> None:
    with dh.open(filled) as heap:
        heap.root["uncommitted"] = 1
        report = heap.backup(tmp_path / "copy")
        assert report.commit == heap.last_commit_id == 2
        with dh.open(tmp_path / "copy") as copy:  # side by side, in one process
            assert "uncommitted" not in copy.root
            assert heap.root["uncommitted"] == 1
        heap.commit()
    heap.close()
    with pytest.raises(dh.HeapClosedError):
        heap.backup(tmp_path / "another")


def test_history_and_tags_come_along(path: Path, tmp_path: Path) -> None:
    with dh.open(path, keep=5) as heap:
        for number in range(1, 4):
            heap.root["n"] = number
            heap.commit(f"commit {number}")
        heap.tag("two", 2)
        heap.backup(tmp_path / "copy")
        assert [c.note for c in heap.history()] == [f"commit {n}" for n in range(1, 4)]
    with dh.open(tmp_path / "copy", read_only=True, at="two") as copy:
        assert copy.root["n"] == 2
    with dh.open(tmp_path / "copy", keep=5) as copy:
        assert [c.note for c in copy.history()] == [f"commit {n}" for n in range(1, 4)]


def test_an_empty_heap(path: Path, tmp_path: Path) -> None:
    dh.open(path).close()
    assert backup(path, tmp_path / "copy").commit == 0
    assert contents(tmp_path / "copy") == {}


WRITER = """
import sys
import dirtyheap as dh
with dh.open(sys.argv[1]) as heap:
    print("open", flush=True)
    number = 0
    while not sys.stdin.closed:
        number += 1
        heap.root["first"] = number
        heap.root["rest"] = [number] * 2000
        heap.commit()
        heap.fold()
        if number == 1:
            print("working", flush=True)
        if number % 20 == 0 and heap.root["first"] and sys.stdin.readable():
            import select
            if select.select([sys.stdin], [], [], 0)[0]:
                break
"""


def test_beside_a_writer_that_folds_all_the_time(path: Path, tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-P", "-c", WRITER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert writer.stdout is not None
        assert [writer.stdout.readline() for _ in range(2)] == ["open\n", "working\n"]
        commits = []
        for number in range(5):
            copy = tmp_path / f"copy {number}"
            commits.append(backup(path, copy).commit)
            found = contents(copy)
            assert found["rest"] == [found["first"]] * 2000
        assert commits == sorted(commits)
    finally:
        writer.communicate("stop\n", timeout=60)
    assert writer.returncode == 0


def test_files_that_go_while_they_are_copied(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fold between the copy of the index and that of the first base file, each time."""
    rounds = []
    locate = BaseFiles.locate

    def fold_first(self: BaseFiles, extent: Any) -> int:
        if (
            self._directory == filled / "base"
            and len(rounds) < 3
            and threading.current_thread() is here
        ):
            rounds.append(extent.file_name)
            monkeypatch.setattr(BaseFiles, "locate", locate)
            heap.root["round"] = len(rounds)
            heap.commit()
            heap.fold()
            monkeypatch.setattr(BaseFiles, "locate", fold_first)
        return locate(self, extent)

    here = threading.current_thread()
    with dh.open(filled) as heap:
        monkeypatch.setattr(BaseFiles, "locate", fold_first)
        report = backup(filled, tmp_path / "copy")
        monkeypatch.undo()
    assert len(rounds) == 3 and report.commit == 5
    assert contents(tmp_path / "copy")["round"] == 3
    with dh.open(tmp_path / "copy") as copy:  # what a round had copied in vain is not left over
        assert len(os.listdir(copy.path / "base")) == report.base_files


def test_a_writer_that_is_always_faster(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backups._Copying, "_copy_base", lambda *_: "0" * 8)
    with pytest.raises(dh.HeapError, match="was folded 100 times while it was copied"):
        backup(filled, tmp_path / "copy")
    assert os.listdir(tmp_path) == ["heap"]


# --- files ------------------------------------------------------------------------------------


def test_holes_stay_holes(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backups, "_share_blocks", lambda *_: False)
    with dh.open(path) as heap:
        heap.root["between"] = heap.buffer(2 << 20)
        heap.root["behind"] = heap.buffer(b"x" * 4096)
        heap.commit()
        del heap.root["between"]
        heap.collect()
        heap.commit()
        heap.fold()
        before = plain(heap)
    backup(path, tmp_path / "copy")
    for name in os.listdir(path / "base"):
        blocks = [(where / "base" / name).stat().st_blocks for where in (path, tmp_path / "copy")]
        assert blocks[1] <= blocks[0]
    assert contents(tmp_path / "copy") == before


@pytest.mark.parametrize("number", backups._CANNOT_COPY_IN_KERNEL, ids=errno.errorcode.get)
def test_where_the_kernel_cannot_copy(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(backups, "_share_blocks", lambda *_: False)
    monkeypatch.setattr(os, "copy_file_range", fail)
    backup(filled, tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(filled)


def test_progress(filled: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = backup(filled, tmp_path / "copy", progress=lambda *call: calls.append(call))
    assert calls == sorted(calls) and calls[-1] == (report.bytes, report.bytes)
    assert len(calls) == report.base_files + 1


def test_an_older_format(tmp_path: Path) -> None:
    """The copy to make before an upgrade."""
    path = golden_heaps.unpack("format1", tmp_path)
    report = backup(path, tmp_path / "copy")
    assert report.commit == 6 and report.base_files == 2
    for name in os.listdir(path / "base"):
        assert (path / "base" / name).read_bytes() == (tmp_path / "copy/base" / name).read_bytes()
    with pytest.raises(dh.HeapError, match="upgrade"):
        dh.open(tmp_path / "copy")


# --- what is refused --------------------------------------------------------------------------


def test_places_that_will_not_do(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "way in").symlink_to(filled)
    for place in ("there", "link", "heap"):
        with pytest.raises(FileExistsError, match="exists already"):
            backup(filled, tmp_path / place)
    with pytest.raises(FileNotFoundError, match="is no directory: make it first"):
        backup(filled, tmp_path / "no" / "such")
    for inside in (filled / "copy", filled / "base" / "copy", tmp_path / "way in" / "copy"):
        with pytest.raises(dh.HeapError, match="inside the heap itself"):
            backup(filled, inside)
    assert sorted(os.listdir(tmp_path)) == ["heap", "link", "there", "way in"]


def test_no_heap(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no heap at"):
            backup(path, tmp_path / "copy")
    assert os.listdir(tmp_path) == []


def lose(path: Path) -> None:
    path.unlink()


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [(lose, "is missing"), (shorten, "has a wrong size"), (link, "symbolic link")],
)
def test_a_damaged_heap(
    filled: Path, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(sorted((filled / "base").iterdir())[0])
    with pytest.raises(dh.HeapCorruptError, match=words):
        backup(filled, tmp_path / "copy")
    assert os.listdir(tmp_path) == ["heap"]


@pytest.mark.parametrize("name", ["fsync", "pwrite", "rename", "ftruncate"])
def test_a_failure_leaves_nothing(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(backups, "_share_blocks", lambda *_: False)
    monkeypatch.setattr(os, "copy_file_range", lambda *_: os.pwrite(-1, b"", 0))
    monkeypatch.setattr(os, name, fail)
    with pytest.raises(OSError):
        backup(filled, tmp_path / "copy")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["heap"]


def test_killed_half_way(filled: Path, tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from dirtyheap import backup
backup.sync_directory = lambda path: os.kill(os.getpid(), 9)
backup.backup(sys.argv[1], sys.argv[2])
"""
    done = subprocess.run([sys.executable, "-P", "-c", script, filled, tmp_path / "copy"])
    assert done.returncode == -9
    assert not (tmp_path / "copy").exists()
    assert backup(filled, tmp_path / "copy").commit == 2
