"""In every commit, data reaches the disk before the record that names it.

Killing a process proves nothing about power cuts: the kernel keeps what was written. So the calls
are recorded (recorder.c, by LD_PRELOAD) and checked against the order a power cut would need:

- LMDB's meta page is written only when everything written before it is synced: the pages of
  data.mdb, the base files, and the directories that name new files;
- when commit() returns, the meta page is synced too, and so is the directory entry of data.mdb.

The negative controls take syncs away and see the same check fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
META_PAGES_BYTES = 2 * 4096  # LMDB's two meta pages open data.mdb
LOCKS = {"lock.mdb", "writer.lock"}

pytestmark = pytest.mark.timeout(120)


@dataclass(frozen=True)
class Call:
    """One line of the record."""

    name: str
    path: Path
    offset: int
    size: int
    is_synchronous: bool

    @property
    def is_meta_write(self) -> bool:
        """A short write into one of the meta pages; making the file writes both, whole."""
        is_there = 0 <= self.offset < META_PAGES_BYTES and self.size < 4096
        return self.name == "write" and self.path.name == "data.mdb" and is_there


@pytest.fixture(scope="session")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    assert compiler, "a C compiler is needed, as for building the library"
    library = tmp_path_factory.mktemp("recorder") / "recorder.so"
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command = [compiler, *flags, "-o", str(library), str(HERE / "recorder.c"), "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return library


def record(recorder: Path, directory: Path, drop: str = "", **environment: str) -> list[Call]:
    """Run the writer under the recorder; the calls that concern its heap and marks, in order."""
    log, marks = directory / "log", directory / "marks"
    marks.mkdir()
    variables = {"RECORDER_LOG": str(log), "RECORDER_DROP": drop, "LD_PRELOAD": str(recorder)}
    command = [sys.executable, str(HERE / "sync_writer.py"), str(directory / "heap"), str(marks)]
    subprocess.run(command, env={**os.environ, **environment, **variables}, check=True)
    calls = []
    for line in log.read_text().splitlines():
        name, path, offset, size, mode = line.split("\t")
        if Path(path).is_relative_to(directory):
            calls.append(Call(name, Path(path), int(offset), int(size), mode == "sync"))
    return calls


class Disk:
    """What could be missing after a power cut now, and what is wrong with that."""

    def __init__(self) -> None:
        self.unsynced_files: dict[Path, int] = {}  # bytes written since the last sync
        self.unsynced_names: set[Path] = set()  # created or renamed, directory not synced since
        self.errors: list[str] = []
        self.meta_writes = 0

    def apply(self, call: Call) -> None:
        if call.path.name in LOCKS:
            return  # made again at each opening, no part of the state
        if call.is_meta_write:
            self.meta_writes += 1
            self._expect_synced("the meta page is written")
        if call.name == "write" and not call.is_synchronous:
            self.unsynced_files[call.path] = self.unsynced_files.get(call.path, 0) + call.size
        elif call.name in ("create", "rename"):
            self.unsynced_names.add(call.path)
        elif call.name == "unlink":
            self.unsynced_files.pop(call.path, None)
            self.unsynced_names.discard(call.path)
        elif call.name == "sync":
            self.unsynced_files.pop(call.path, None)
            self.unsynced_names = {p for p in self.unsynced_names if p.parent != call.path}

    def _expect_synced(self, moment: str, *, is_end: bool = False) -> None:
        for path, size in self.unsynced_files.items():
            self.errors.append(f"{moment} with {size} unsynced bytes in {path.name}")
        for path in self.unsynced_names:
            # The names of the heap and of data.mdb may wait until the first commit returns.
            if is_end or path.parent.name == "base":
                self.errors.append(f"{moment} with the name {path.name} not synced")

    def expect_commit_durable(self, commit: str) -> None:
        if self.meta_writes == 0:
            self.errors.append(f"commit {commit} wrote no meta page")
        self._expect_synced(f"commit {commit} returns", is_end=True)
        self.meta_writes = 0


def errors_of(calls: list[Call]) -> list[str]:
    """Walk through the record; an empty list means that any power cut is survived."""
    disk = Disk()
    for call in calls:
        if call.path.parent.name != "marks":
            disk.apply(call)
        elif call.name == "create" and call.path.stem == "begin":
            disk.meta_writes = 0
        elif call.name == "create" and call.path.stem == "end":
            disk.expect_commit_durable(call.path.suffix[1:])
    return disk.errors


def test_data_is_synced_before_the_record_that_names_it(recorder: Path, tmp_path: Path) -> None:
    calls = record(recorder, tmp_path)
    ends = [call for call in calls if call.path.stem == "end" and call.name == "create"]
    assert len(ends) > 20
    assert any(call.path.parent.name == "base" and call.name == "write" for call in calls), (
        "no base file was written: the order of base file and record was not exercised"
    )
    assert errors_of(calls) == []


def test_the_check_fails_when_the_library_does_not_sync(recorder: Path, tmp_path: Path) -> None:
    """Negative control: the library's own hook turns its syncs and the engine's off."""
    errors = errors_of(record(recorder, tmp_path, DIRTYHEAP_UNSAFE_NO_SYNC="1"))
    assert any("the meta page is written with" in error for error in errors)
    assert any("not synced" in error for error in errors)


@pytest.mark.parametrize(
    ("drop", "complaint"), [("files", "unsynced bytes"), ("directories", "not synced")]
)
def test_the_check_fails_when_syncs_are_dropped(
    recorder: Path, tmp_path: Path, drop: str, complaint: str
) -> None:
    """Negative control: syncs of one kind report success and do nothing."""
    errors = errors_of(record(recorder, tmp_path, drop=drop))
    assert any(complaint in error for error in errors)
