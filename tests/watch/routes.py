"""Every way to store bytes through the memory of a Buffer, from item stores to the kernel's own.

A route is called with a writable memoryview, an offset and the bytes; it writes them there.
"""

from __future__ import annotations

import ctypes
import io
import os
import socket
import struct
import tempfile
from collections.abc import Callable

import numpy as np

import dirtyheap as dh

Route = Callable[[dh.Buffer, int, bytes], None]

_libc = ctypes.CDLL(None, use_errno=True)


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


def address_of(buffer: dh.Buffer) -> int:
    """Where a buffer's first byte is in this process."""
    with memoryview(buffer) as view:
        part = (ctypes.c_char * len(buffer)).from_buffer(view)
        address = ctypes.addressof(part)
        del part
    return address


def by_items(buffer: dh.Buffer, at: int, data: bytes) -> None:
    for i, byte in enumerate(data):
        buffer[at + i] = byte


def by_slice(buffer: dh.Buffer, at: int, data: bytes) -> None:
    buffer[at : at + len(data)] = data


def by_view(buffer: dh.Buffer, at: int, data: bytes) -> None:
    with memoryview(buffer) as view:
        view[at : at + len(data)] = data


def by_pack_into(buffer: dh.Buffer, at: int, data: bytes) -> None:
    struct.pack_into(f"{len(data)}s", buffer, at, data)


def by_raw_readinto(buffer: dh.Buffer, at: int, data: bytes) -> None:
    """The kernel copies from a file."""
    with tempfile.TemporaryFile(buffering=0) as file, memoryview(buffer) as view:
        file.write(data)
        file.seek(0)
        assert file.readinto(view[at : at + len(data)]) == len(data)


def by_buffered_readinto(buffer: dh.Buffer, at: int, data: bytes) -> None:
    """The interpreter copies out of its own buffer."""
    with memoryview(buffer) as view:
        assert io.BufferedReader(io.BytesIO(data)).readinto(view[at : at + len(data)]) == len(data)


def by_preadv(buffer: dh.Buffer, at: int, data: bytes) -> None:
    """One call into two parts."""
    half = len(data) // 2
    with tempfile.TemporaryFile(buffering=0) as file, memoryview(buffer) as view:
        file.write(data)
        parts = [view[at : at + half], view[at + half : at + len(data)]]
        assert os.preadv(file.fileno(), parts, 0) == len(data)
        for part in parts:
            part.release()


def by_recv_into(buffer: dh.Buffer, at: int, data: bytes) -> None:
    left, right = socket.socketpair()
    with left, right, memoryview(buffer) as view:
        done = 0
        while done < len(data):
            left.sendall(data[done : done + 4096])
            part = view[at + done : at + min(done + 4096, len(data))]
            while part:
                got = right.recv_into(part)
                done += got
                part = part[got:]


def by_numpy_put(buffer: dh.Buffer, at: int, data: bytes) -> None:
    array = np.frombuffer(buffer, dtype=np.uint8)
    np.put(array, np.arange(at, at + len(data)), np.frombuffer(data, dtype=np.uint8))


def by_numpy_ufunc(buffer: dh.Buffer, at: int, data: bytes) -> None:
    """In place, with the old content as an operand."""
    array = np.frombuffer(buffer, dtype=np.uint8)[at : at + len(data)]
    difference = np.frombuffer(data, dtype=np.uint8) - array
    np.add(array, difference, out=array)


def by_memmove(buffer: dh.Buffer, at: int, data: bytes) -> None:
    ctypes.memmove(address_of(buffer) + at, data, len(data))


def by_process_vm_writev(buffer: dh.Buffer, at: int, data: bytes) -> None:
    """The kernel writes through pinned pages, as another process would make it."""
    source = ctypes.create_string_buffer(data, len(data))
    local = _IoVec(ctypes.addressof(source), len(data))
    remote = _IoVec(address_of(buffer) + at, len(data))
    written = _libc.process_vm_writev(
        os.getpid(), ctypes.byref(local), 1, ctypes.byref(remote), 1, 0
    )
    if written != len(data):
        raise OSError(ctypes.get_errno(), "process_vm_writev")


def by_proc_mem(buffer: dh.Buffer, at: int, data: bytes) -> None:
    """As a debugger writes."""
    fd = os.open("/proc/self/mem", os.O_RDWR)
    try:
        assert os.pwrite(fd, data, address_of(buffer) + at) == len(data)
    finally:
        os.close(fd)


ROUTES: dict[str, Route] = {
    name.removeprefix("by_"): route
    for name, route in list(globals().items())
    if name.startswith("by_")
}
