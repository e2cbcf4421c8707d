"""One writing process per heap: an advisory lock that dies with its holder.

The file ``writer.lock`` holds the writer's pid for the message to the second opener; the kernel's
flock, not the pid, is the truth. A forked child must close its inherited descriptor (the core's
fork guard does): the lock belongs to the open file description and would outlive its owner.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ._ffi import ffi, lib
from .errors import HeapLockedError

LOCK_NAME = "writer.lock"
_PID_DIGITS = 10


class WriterLock:
    """Held from construction to :meth:`release`, or until nobody refers to it: an interrupt while
    a heap is opened or closed must not leave it locked for the rest of the process."""

    def __init__(self, directory: Path) -> None:
        """Take the lock, or raise HeapLockedError with the holder's pid."""
        # Closed by C code in one step, also when this object goes: a release written in Python
        # could itself be interrupted, between forgetting the descriptor and closing it.
        owned = ffi.new("dh_owned_fd *", (-1, os.getpid()))
        self._owned = ffi.gc(owned, lib.dh_owned_fd_close)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._owned.fd = os.open(directory / LOCK_NAME, flags, 0o644)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self.fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            self.release()
            raise HeapLockedError(
                f"{directory} is open for writing in process {holder}: close it there first"
            ) from None
        # Of one length: to truncate a file that holds something makes the file system wait.
        text = f"{os.getpid():<{_PID_DIGITS}}\n".encode()
        if os.fstat(self.fd).st_size > len(text):
            os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, text, 0)

    def release(self) -> None:
        """Let the next writer in; harmless when done before, and in a forked child."""
        lib.dh_owned_fd_close(self._owned)

    @property
    def fd(self) -> int:
        """The descriptor, for the fork guard."""
        return int(self._owned.fd)
