"""What containers and administrators take away from a process, taken away here: system calls by a
seccomp filter, capabilities by becoming another user, memory by limits.

Each function restricts the process that calls it, for good; made for children. Filters are written
for x86-64 and arm64 (seccomp(2), linux/filter.h, linux/audit.h).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import struct
from pathlib import Path
from typing import Final

NOBODY: Final = 65534
_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS = 4, 8, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_CAPABILITY_VERSION_3, _CAP_DAC_READ_SEARCH = 0x20080522, 2
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_DATA_NUMBER, _DATA_ARGUMENTS = 0, 16  # offsets in struct seccomp_data
# userfaultfd, ioctl
_NUMBERS: Final = {"x86_64": (323, 16), "aarch64": (282, 29)}
_IOC_NEW: Final = 0xAA00  # USERFAULTFD_IOC_NEW
_PAGEMAP_SCAN: Final = 0xC0606610
_MCL_FUTURE: Final = 2
_MCL_ONFAULT: Final = 4

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("count", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _install(instructions: list[bytes]) -> None:
    """For this thread and what comes of it; so before there are others."""
    code = b"".join(instructions)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(instructions), ctypes.addressof(buffer))
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _checked(
        _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0), "seccomp"
    )


def is_known_machine() -> bool:
    """Whether the filters' system call numbers are those of this machine."""
    return platform.machine() in _NUMBERS


def refuse_userfaultfd(error: int, *, device_too: bool) -> None:
    """As container profiles do; with ``device_too`` the device node makes no descriptors either."""
    call, ioctl = _NUMBERS[platform.machine()]
    refused = _instruction(_RETURN, _ERRNO | error)
    allowed = _instruction(_RETURN, _ALLOW)
    program = [
        _instruction(_LOAD, _DATA_NUMBER),
        _instruction(_JUMP_EQUAL, call, 0, 1),
        refused,
    ]
    if device_too:
        program += _refuse_ioctl(ioctl, _IOC_NEW, errno.EPERM)
    _install([*program, allowed])


def refuse_pagemap_scan() -> None:
    """As a kernel before 6.7 does: it does not know the ioctl."""
    _, ioctl = _NUMBERS[platform.machine()]
    program = [
        _instruction(_LOAD, _DATA_NUMBER),
        *_refuse_ioctl(ioctl, _PAGEMAP_SCAN, errno.ENOTTY),
    ]
    _install([*program, _instruction(_RETURN, _ALLOW)])


def _refuse_ioctl(ioctl: int, request: int, error: int) -> list[bytes]:
    """With the system call's number loaded: the second argument decides."""
    return [
        _instruction(_JUMP_EQUAL, ioctl, 0, 3),
        _instruction(_LOAD, _DATA_ARGUMENTS + 8),
        _instruction(_JUMP_EQUAL, request, 0, 1),
        _instruction(_RETURN, _ERRNO | error),
    ]


def become_nobody() -> None:
    """An ordinary user without groups or capabilities, who may be looked at as after an exec."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    set_dumpable(True)


def become_reader() -> None:
    """The same with one capability, that of reading files, kept over an exec: for tests that stand
    in a directory of root's (capabilities(7))."""
    _checked(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0), "keepcaps")
    become_nobody()
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    reading = 1 << _CAP_DAC_READ_SEARCH
    sets = struct.pack("<6I", reading, reading, reading, 0, 0, 0)
    _checked(_libc.capset(header, sets), "capset")
    _checked(
        _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_READ_SEARCH, 0, 0), "ambient"
    )


def may_everybody_read(*paths: Path) -> bool:
    """Whether each path, and every directory above it, is open to everybody."""
    for path in paths:
        for each in (path.resolve(), *path.resolve().parents):
            mode = each.stat().st_mode
            if not mode & stat.S_IXOTH or not mode & stat.S_IROTH:
                return False
    return True


def set_dumpable(is_dumpable: bool) -> None:
    """PR_SET_DUMPABLE: who is not may not read what /proc says of its own memory."""
    _checked(_libc.prctl(_PR_SET_DUMPABLE, int(is_dumpable), 0, 0, 0), "dumpable")


def lock_future_memory(*, on_fault: bool = False) -> None:
    """mlockall(MCL_FUTURE)."""
    _checked(_libc.mlockall(_MCL_FUTURE | (_MCL_ONFAULT if on_fault else 0)), "mlockall")
