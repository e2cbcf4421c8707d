"""System calls that store into memory they are given: each writes `data` to `buffer[at:]`.

By read, readv, recv, a read with O_DIRECT, process_vm_writev and /proc/self/mem. Where the kernel
refuses, they raise OSError, process_vm_writev AssertionError; O_DIRECT needs whole pages.
"""

from __future__ import annotations

import ctypes
import os
import socket
import tempfile
from collections.abc import Callable
from itertools import pairwise

from helpers import skip_test

Writer = Callable[[memoryview, int, bytes], None]

libc = ctypes.CDLL(None, use_errno=True)


def address_of(buffer: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def by_read(buffer: memoryview, at: int, data: bytes) -> None:
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(data)
        file.seek(0)
        assert file.readinto(buffer[at : at + len(data)]) == len(data)


def by_readv(buffer: memoryview, at: int, data: bytes) -> None:
    """Into three pieces that lie side by side."""
    edges = (at, at + 7, at + len(data) // 2, at + len(data))
    parts = [buffer[low:high] for low, high in pairwise(edges)]
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(data)
        assert os.preadv(file.fileno(), parts, 0) == len(data)


def by_recv(buffer: memoryview, at: int, data: bytes) -> None:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(data)
        assert right.recv_into(buffer[at:], len(data), socket.MSG_WAITALL) == len(data)


def by_direct_read(buffer: memoryview, at: int, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=".") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        try:
            fd = os.open(file.name, os.O_RDONLY | os.O_DIRECT)
        except OSError as error:
            skip_test(f"O_DIRECT is refused by this file system: {error}")
        try:
            assert os.preadv(fd, [buffer[at : at + len(data)]], 0) == len(data)
        finally:
            os.close(fd)


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


def by_process_vm_writev(buffer: memoryview, at: int, data: bytes) -> None:
    source = ctypes.create_string_buffer(data, len(data))
    local = _IoVec(ctypes.addressof(source), len(data))
    remote = _IoVec(address_of(buffer) + at, len(data))
    written = libc.process_vm_writev(
        os.getpid(), ctypes.byref(local), 1, ctypes.byref(remote), 1, 0
    )
    assert written == len(data)


def by_debugger(buffer: memoryview, at: int, data: bytes) -> None:
    fd = os.open("/proc/self/mem", os.O_RDWR)
    try:
        assert os.pwrite(fd, data, address_of(buffer) + at) == len(data)
    finally:
        os.close(fd)


WRITERS: tuple[Writer, ...] = (
    by_read,
    by_readv,
    by_recv,
    by_process_vm_writev,
    by_debugger,
    by_direct_read,  # last: where it cannot be had, the others were tried
)
