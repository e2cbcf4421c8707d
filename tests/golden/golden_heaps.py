"""The golden heaps, for the tests: their names, copies to work on, what must be found in them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).resolve().parent
NAMES = sorted(path.name.removesuffix(".tar.xz") for path in DIRECTORY.glob("format*.tar.xz"))


def unpack(name: str, directory: Path) -> Path:
    """A copy of the heap in the directory."""
    with tarfile.open(DIRECTORY / f"{name}.tar.xz") as archive:
        archive.extractall(directory, filter="data")
    return directory / name


def expected(name: str) -> dict[str, Any]:
    """``commits`` and ``root``, as described.py has it."""
    found: dict[str, Any] = json.loads((DIRECTORY / f"{name}.json").read_text(encoding="utf-8"))
    return found


def format_of(name: str) -> int:
    """The format's number."""
    return int(name.removeprefix("format"))
