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
from typing import Any

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


# --- into ndarrays of bytes that live in a heap ---------------------------------------------------


def array_by_index(array: Any, at: int, data: bytes) -> None:
    array[np.arange(at, at + len(data))] = list(data)


def array_by_slice(array: Any, at: int, data: bytes) -> None:
    array[at : at + len(data)] = np.frombuffer(data, "u1")


def array_by_mask(array: Any, at: int, data: bytes) -> None:
    mask = np.zeros(array.shape, bool)
    mask[at : at + len(data)] = True
    array[mask] = np.frombuffer(data, "u1")


def array_by_put(array: Any, at: int, data: bytes) -> None:
    np.put(array, np.arange(at, at + len(data)), np.frombuffer(data, "u1"))


def array_by_ufunc_out(array: Any, at: int, data: bytes) -> None:
    np.bitwise_xor(np.frombuffer(data, "u1"), 0, out=array[at : at + len(data)])


def array_by_ufunc_at(array: Any, at: int, data: bytes) -> None:
    """Unbuffered, element by element."""
    np.multiply.at(array, np.arange(at, at + len(data)), 0)
    np.add.at(array, np.arange(at, at + len(data)), np.frombuffer(data, "u1"))


def array_by_copyto(array: Any, at: int, data: bytes) -> None:
    """Backwards on both sides."""
    np.copyto(array[at : at + len(data)][::-1], np.frombuffer(data, "u1")[::-1])


def array_by_fill(array: Any, at: int, data: bytes) -> None:
    for i, byte in enumerate(data):
        array[at + i : at + i + 1].fill(byte)


def array_by_field(array: Any, at: int, data: bytes) -> None:
    """As structures of two bytes each, one field after the other."""
    even = len(data) // 2 * 2
    pairs = array[at : at + even].view([("a", "u1"), ("b", "u1")])
    pairs["a"], pairs["b"] = np.frombuffer(data[:even:2], "u1"), np.frombuffer(data[1:even:2], "u1")
    array[at + even : at + len(data)] = list(data[even:])


def array_by_readinto(array: Any, at: int, data: bytes) -> None:
    assert io.BytesIO(data).readinto(array[at : at + len(data)]) == len(data)


def array_by_memoryview(array: Any, at: int, data: bytes) -> None:
    with memoryview(array) as view:
        view[at : at + len(data)] = data


def array_by_frombuffer(array: Any, at: int, data: bytes) -> None:
    np.frombuffer(array, "V1", len(data), at)[:] = np.frombuffer(data, "V1")


def array_by_strides(array: Any, at: int, data: bytes) -> None:
    part = np.lib.stride_tricks.as_strided(array[at:], (len(data),), (1,))
    part[...] = np.frombuffer(data, "u1")


def array_by_memmove(array: Any, at: int, data: bytes) -> None:
    ctypes.memmove(array.ctypes.data + at, data, len(data))


def _named(prefix: str) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): route
        for name, route in list(globals().items())
        if name.startswith(prefix)
    }


ROUTES: dict[str, Route] = _named("by_")
ARRAY_ROUTES: dict[str, Callable[[Any, int, bytes], None]] = _named("array_by_")
