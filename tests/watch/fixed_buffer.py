"""io_uring with a fixed buffer, by raw system calls: memory that the kernel writes past the page
tables (io_uring(7), io_uring_register(2)).

Registering pins the pages. What a READ_FIXED brings arrives through the kernel's own mapping of
them, so no write-protection is met, and no watch that works by page tables hears of it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from types import TracebackType
from typing import Final

_SETUP, _ENTER, _REGISTER = 425, 426, 427
_REGISTER_BUFFERS: Final = 0
_ENTER_GETEVENTS: Final = 1
_READ_FIXED: Final = 4
_OFFSET_SQ_RING, _OFFSET_CQ_RING, _OFFSET_SQES = 0, 0x8000000, 0x10000000
_ENTRIES: Final = 4
_SQE_BYTES, _CQE_BYTES = 64, 16

_libc = ctypes.CDLL(None, use_errno=True)


class _SqOffsets(ctypes.Structure):
    _fields_ = (
        ("head", ctypes.c_uint32),
        ("tail", ctypes.c_uint32),
        ("ring_mask", ctypes.c_uint32),
        ("ring_entries", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("dropped", ctypes.c_uint32),
        ("array", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("user_address", ctypes.c_uint64),
    )


class _CqOffsets(ctypes.Structure):
    _fields_ = (
        ("head", ctypes.c_uint32),
        ("tail", ctypes.c_uint32),
        ("ring_mask", ctypes.c_uint32),
        ("ring_entries", ctypes.c_uint32),
        ("overflow", ctypes.c_uint32),
        ("cqes", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("user_address", ctypes.c_uint64),
    )


class _Params(ctypes.Structure):
    _fields_ = (
        ("sq_entries", ctypes.c_uint32),
        ("cq_entries", ctypes.c_uint32),
        ("flags", ctypes.c_uint32 * 8),
        ("sq_off", _SqOffsets),
        ("cq_off", _CqOffsets),
    )


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


assert ctypes.sizeof(_Params) == 120


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"io_uring: {os.strerror(ctypes.get_errno())}")
    return result


class FixedBuffer:
    """One registered buffer; pinned until closed.

    Raises:
        OSError: io_uring is not there, or forbidden.
    """

    def __init__(self, address: int, size: int) -> None:
        params = _Params()
        self._fd = _call(_SETUP, ctypes.c_uint(_ENTRIES), ctypes.byref(params))
        self._params, self._address = params, address
        try:
            vector = _IoVec(address, size)
            _call(
                _REGISTER,
                ctypes.c_int(self._fd),
                ctypes.c_uint(_REGISTER_BUFFERS),
                ctypes.byref(vector),
                ctypes.c_uint(1),
            )
            sq_bytes = params.sq_off.array + params.sq_entries * 4
            cq_bytes = params.cq_off.cqes + params.cq_entries * _CQE_BYTES
            self._sq = mmap.mmap(self._fd, sq_bytes, offset=_OFFSET_SQ_RING)
            self._cq = mmap.mmap(self._fd, cq_bytes, offset=_OFFSET_CQ_RING)
            self._sqes = mmap.mmap(self._fd, params.sq_entries * _SQE_BYTES, offset=_OFFSET_SQES)
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> FixedBuffer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for ring in (self._sq, self._cq, self._sqes):
            ring.close()
        os.close(self._fd)

    def read(self, fd: int, at: int, size: int) -> None:
        """Let the kernel put the first bytes of a file at this place of the buffer."""
        sq_off, cq_off = self._params.sq_off, self._params.cq_off
        (tail,) = struct.unpack_from("<I", self._sq, sq_off.tail)
        slot = tail % self._params.sq_entries
        # opcode, flags, ioprio, fd, off, addr, len, rw_flags, user_data, buf_index
        entry = struct.pack(
            "<BBHiQQIIQH", _READ_FIXED, 0, 0, fd, 0, self._address + at, size, 0, 1, 0
        )
        self._sqes[slot * _SQE_BYTES : (slot + 1) * _SQE_BYTES] = entry.ljust(_SQE_BYTES, b"\0")
        struct.pack_into("<I", self._sq, sq_off.array + slot * 4, slot)
        struct.pack_into("<I", self._sq, sq_off.tail, tail + 1)
        _call(
            _ENTER,
            ctypes.c_int(self._fd),
            ctypes.c_uint(1),
            ctypes.c_uint(1),
            ctypes.c_uint(_ENTER_GETEVENTS),
            None,
            ctypes.c_size_t(0),
        )
        (head,) = struct.unpack_from("<I", self._cq, cq_off.head)
        place = cq_off.cqes + head % self._params.cq_entries * _CQE_BYTES
        _, result, _ = struct.unpack_from("<QiI", self._cq, place)
        struct.pack_into("<I", self._cq, cq_off.head, head + 1)
        if result != size:
            raise OSError(-result if result < 0 else 5, f"READ_FIXED gave {result}")
