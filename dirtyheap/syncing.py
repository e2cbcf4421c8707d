"""Durability of files and directories, in one place.

``DIRTYHEAP_UNSAFE_NO_SYNC=1`` turns every sync off. It exists so that the durability tests can show
that they would notice; a heap written that way does not survive a power failure.
"""

from __future__ import annotations

import os
from pathlib import Path


def is_sync_enabled() -> bool:
    """False only under the test hook."""
    return os.environ.get("DIRTYHEAP_UNSAFE_NO_SYNC") != "1"


def sync_file(fd: int) -> None:
    """Content and size of an open file are on the device when this returns."""
    if is_sync_enabled():
        os.fsync(fd)


def sync_directory(path: Path) -> None:
    """Names in a directory are on the device when this returns."""
    if not is_sync_enabled():
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
