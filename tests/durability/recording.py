"""Recordings of what a process does to the files of a heap: builds the preload library, runs
programs under it, reads the record.

LD_PRELOAD and not strace: it gives the bytes that were written as they are, takes microseconds
where ptrace takes a stop of the process, works where ptrace is forbidden, and the same library
makes the n-th call fail. What it cannot see (stores to shared mappings, calls made inside the C
library) must therefore be shown not to matter: the record says which files were mapped, and what
the record rebuilds must equal the real directory byte for byte (test_replay.py).
"""

from __future__ import annotations

import enum
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
_HEAD = struct.Struct("<IIIIIIQQq")
_MAGIC = 0x43524844
_FLAG_SYNCHRONOUS = 1


class Op(enum.IntEnum):
    """What an entry says; the numbers of preload.h."""

    CREATE_FILE = 1
    CREATE_DIRECTORY = 2
    WRITE = 3
    TRUNCATE = 4
    SYNC = 5
    RENAME = 6
    UNLINK = 7
    REMOVE_DIRECTORY = 8
    MARK = 9
    MAP_SHARED = 10
    UNMODELLED = 11


@dataclass(frozen=True, slots=True)
class Event:
    """One call, or a mark; paths are relative to the recorded directory."""

    op: Op
    path: str = ""
    other_path: str = ""
    inode: int = 0
    offset: int = 0
    data: bytes = b""
    is_synchronous: bool = False

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


def build_library(directory: Path) -> Path:
    """Compile the preload library."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    assert compiler, "a C compiler is needed, as for building the library"
    library = directory / "preload.so"
    # Without built-ins: gcc would turn our malloc and memset into calls of one another.
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-fno-builtin", "-shared", "-fPIC"]
    sources = sorted(map(str, (HERE / "preload").glob("*.c")))
    subprocess.run([compiler, *flags, "-o", str(library), *sources, "-lpthread"], check=True)
    return library


def preload_environment(library: Path, root: Path, log: Path | None = None) -> dict[str, str]:
    """The variables under which a process is watched: its files below ``root``."""
    variables = {"LD_PRELOAD": str(library), "RECORDER_ROOT": str(root)}
    return variables | ({} if log is None else {"RECORDER_LOG": str(log)})


def run_recorded(
    library: Path, root: Path, log: Path, arguments: list[str], **environment: str
) -> int:
    """Run a Python program to its end; the record is appended to ``log``. Returns the exit code,
    which is 0 or -SIGKILL."""
    variables = os.environ | environment | preload_environment(library, root, log)
    done = subprocess.run(
        [sys.executable, *arguments], env=variables, capture_output=True, text=True
    )
    assert done.returncode in (0, -signal.SIGKILL), f"{done.stdout}\n{done.stderr}"
    return done.returncode


def read_log(log: Path) -> list[Event]:
    """All entries in order."""
    return list(_parse(log.read_bytes()))


def _parse(raw: bytes) -> Iterator[Event]:
    at = 0
    while at < len(raw):
        magic, op, flags, path_bytes, other_bytes, _, inode, data_bytes, offset = _HEAD.unpack_from(
            raw, at
        )
        assert magic == _MAGIC, f"the record is damaged at byte {at}"
        at += _HEAD.size
        path = raw[at : at + path_bytes].decode()
        at += path_bytes
        other = raw[at : at + other_bytes].decode()
        at += other_bytes
        data = raw[at : at + data_bytes]
        assert len(data) == data_bytes, "the record is cut off"
        at += data_bytes
        is_synchronous = bool(flags & _FLAG_SYNCHRONOUS)
        yield Event(Op(op), path, other, inode, offset, data, is_synchronous)
