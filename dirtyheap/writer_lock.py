"""One writing process per heap: an advisory lock that dies with its holder.

The file ``writer.lock`` holds the writer's pid for the message to the second opener; the kernel's
flock, not the pid, is the truth. A forked child must close its inherited descriptor (the core's
fork guard does): the lock belongs to the open file description and would outlive its owner.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from .errors import HeapLockedError

LOCK_NAME = "writer.lock"


class WriterLock:
    """Held from construction to :meth:`release`."""

    def __init__(self, directory: Path) -> None:
        """Take the lock, or raise HeapLockedError with the holder's pid."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self.fd = os.open(directory / LOCK_NAME, flags, 0o644)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self.fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self.fd)
            raise HeapLockedError(
                f"{directory} is open for writing in process {holder}: close it there first"
            ) from None
        except BaseException:
            os.close(self.fd)
            raise
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next writer in."""
        os.close(self.fd)
