"""Limits and settings of process, container and kernel that a heap lives under.

Where a setting can be tried it is tried (address space is reserved, memory mapped); a setting that
is only read is a fact.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import resource
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .findings import Finding, Verdict
from .sizes import CAPACITY_BYTES, CAPACITY_BYTES_MIN

_PAGE_BYTES: Final = 4096
_PR_GET_DUMPABLE: Final = 3
_MAPS_USUAL: Final = 65530
# A heap that was stored to has two mappings for each extent of 4 MiB.
_BYTES_PER_MAPPING: Final = 2 << 20
# A heap holds six: the lock, three of the engine, two of the watch. To open it takes two more for a
# moment, and a fold some.
_DESCRIPTORS_NEEDED: Final = 16
_LOCK_TRIAL_BYTES: Final = 1 << 20
_MAP_NORESERVE: Final = 0x4000  # the mmap module has no name for it before Python 3.13
_DEVICE: Final = Path("/dev/userfaultfd")
_CONTAINER_MARKS: Final = {
    "/.dockerenv": "Docker",
    "/run/.containerenv": "Podman",
    "/run/systemd/container": "systemd-nspawn or LXC",
    "/var/run/secrets/kubernetes.io": "Kubernetes",
}
_SECCOMP_MODES: Final = {"0": "no seccomp filter", "1": "strict seccomp", "2": "a seccomp filter"}


def findings() -> Iterator[Finding]:
    """All of them."""
    yield Finding("kernel", "release", Verdict.FACT, f"{platform.release()} {platform.machine()}")
    yield from _process()
    yield from _memory()


def read_text(path: str) -> str:
    """The content of a small file without its last newline; empty when it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def is_shortage_of_files(error: OSError) -> bool:
    """Whether file descriptors have run out, which says nothing of what was tried."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def _setting(path: str) -> str:
    """The same in words."""
    return read_text(path) or ("it cannot be read" if os.path.exists(path) else "not there")


def _status(field: str) -> str:
    for line in read_text("/proc/self/status").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return value.strip()
    return ""


# --- process --------------------------------------------------------------------------------------


def _process() -> Iterator[Finding]:
    yield _user()
    yield _container()
    yield _seccomp()
    yield _device_node()
    sysctl = _setting("/proc/sys/vm/unprivileged_userfaultfd")
    yield Finding(
        "process",
        "vm.unprivileged_userfaultfd",
        Verdict.FACT,
        f"{sysctl}; not needed: heaps ask for faults of user mode only",
    )
    yield _dumpable()
    yield _descriptors()


def _user() -> Finding:
    capabilities = _status("CapEff") or "unknown"
    return Finding(
        "process",
        "user",
        Verdict.FACT,
        f"uid {os.geteuid()}, capabilities {capabilities}; heaps need none",
    )


def _container() -> Finding:
    names = [name for mark, name in _CONTAINER_MARKS.items() if os.path.exists(mark)]
    text = f"looks like {' in '.join(names)}" if names else "no sign of a container"
    return Finding("process", "container", Verdict.FACT, text)


def _seccomp() -> Finding:
    mode = _SECCOMP_MODES.get(_status("Seccomp"), "unknown")
    return Finding(
        "process",
        "seccomp",
        Verdict.FACT,
        mode,
        "whether it lets userfaultfd pass is answered by uffd-syscall" if "filter" in mode else "",
    )


def _device_node() -> Finding:
    try:
        found = _DEVICE.stat()
    except OSError as error:
        return Finding("process", "device-node", Verdict.FACT, f"{_DEVICE}: {error.strerror}")
    kind = "device" if stat.S_ISCHR(found.st_mode) else "no device"
    mode = stat.filemode(found.st_mode)
    return Finding(
        "process",
        "device-node",
        Verdict.FACT,
        f"{_DEVICE}: {kind}, {mode}, owner {found.st_uid}:{found.st_gid}",
    )


def _dumpable() -> Finding:
    is_dumpable = ctypes.CDLL(None, use_errno=True).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) == 1
    if is_dumpable:
        return Finding("process", "dumpable", Verdict.YES, "the process may read its own pagemap")
    return Finding(
        "process",
        "dumpable",
        Verdict.WARNING if os.geteuid() != 0 else Verdict.NO,
        "the process is not dumpable: a user other than root cannot open its pagemap",
        "open heaps before PR_SET_DUMPABLE is set to 0: what is open stays open",
    )


def _descriptors() -> Finding:
    """Counted, not tried: whoever else opens a file just then would be refused."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        taken = [number for name in os.listdir("/proc/self/fd") if (number := int(name)) < soft]
        free = soft - len(taken) + 1  # one was for looking
    except OSError as error:
        if not is_shortage_of_files(error):
            return Finding("process", "ulimit -n", Verdict.UNTESTED, f"{soft}; {error.strerror}")
        if error.errno == errno.ENFILE:
            return Finding(
                "process",
                "ulimit -n",
                Verdict.WARNING,
                f"{soft}; the whole system has no open file left",
                "raise the sysctl fs.file-max",
            )
        free = 0
    if free >= _DESCRIPTORS_NEEDED:
        return Finding("process", "ulimit -n", Verdict.YES, f"{soft}, of which {free} are free")
    return Finding(
        "process",
        "ulimit -n",
        Verdict.WARNING,
        f"{soft}, of which {free} are free: an open heap takes 6 and a WriteWatch 2, some more "
        "while they are opened",
        "raise ulimit -n, or close files",
    )


# --- memory ---------------------------------------------------------------------------------------


def _memory() -> Iterator[Finding]:
    yield _page_size()
    locking = _locking()
    yield locking
    yield _limit("ulimit -l", resource.RLIMIT_MEMLOCK)
    yield _address_space(is_locked=locking.verdict is not Verdict.YES)
    yield _limit("ulimit -v", resource.RLIMIT_AS)
    overcommit = _setting("/proc/sys/vm/overcommit_memory")
    yield Finding(
        "memory",
        "vm.overcommit_memory",
        Verdict.FACT,
        overcommit + (": reservations count as memory" if overcommit == "2" else ""),
    )
    yield _mappings()
    yield from _huge_pages()


def _page_size() -> Finding:
    size = os.sysconf("SC_PAGE_SIZE")
    if size == _PAGE_BYTES:
        return Finding("memory", "page-size", Verdict.YES, f"{size} bytes")
    return Finding(
        "memory",
        "page-size",
        Verdict.WARNING,
        f"{size} bytes: heaps are made of pages of {_PAGE_BYTES}",
        f"a kernel with pages of {_PAGE_BYTES} bytes",
    )


def _limit(name: str, number: int) -> Finding:
    soft, _ = resource.getrlimit(number)
    text = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft} bytes"
    return Finding("memory", name, Verdict.FACT, text)


def can_reserve(size: int) -> bool:
    """Whether so much address space is to be had now."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    try:
        mmap.mmap(-1, size, flags=flags).close()
    except OSError as error:
        if error.errno in (errno.ENOMEM, errno.EAGAIN):
            return False
        raise
    return True


def _address_space(*, is_locked: bool) -> Finding:
    if is_locked:
        return Finding(
            "memory",
            "address-space",
            Verdict.UNTESTED,
            "what is reserved might be filled and locked, see mlockall",
        )
    size = CAPACITY_BYTES
    while size >= CAPACITY_BYTES_MIN and not can_reserve(size):
        size //= 2
    if size == CAPACITY_BYTES:
        return Finding(
            "memory", "address-space", Verdict.YES, f"{size >> 30} GiB can be reserved, the default"
        )
    return Finding(
        "memory",
        "address-space",
        Verdict.WARNING,
        f"no more than {size >> 20} MiB can be reserved, the default is {CAPACITY_BYTES >> 30} GiB",
        "raise ulimit -v, set vm.overcommit_memory to 0 or 1, or open heaps with a smaller "
        "capacity=",
    )


def _locking() -> Finding:
    """mlockall(MCL_FUTURE) fills and locks whatever is mapped: a heap's whole reservation."""
    before = _locked_kb()
    if before is None:
        return Finding(
            "memory",
            "mlockall",
            Verdict.UNTESTED,
            "/proc/self/status, which says what is locked, cannot be read",
        )
    try:
        with mmap.mmap(-1, _LOCK_TRIAL_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
            is_locked = (_locked_kb() or 0) > before
    except OSError as error:
        is_locked = error.errno == errno.EAGAIN  # beyond ulimit -l, as a heap would be
    if not is_locked:
        return Finding("memory", "mlockall", Verdict.YES, "new memory is not locked")
    return Finding(
        "memory",
        "mlockall",
        Verdict.WARNING,
        "new memory is locked at once (mlockall with MCL_FUTURE): a heap would take all of its "
        "capacity, or be refused by ulimit -l",
        "open heaps before mlockall, or lock with MCL_CURRENT only",
    )


def _locked_kb() -> int | None:
    words = _status("VmLck").split()
    return int(words[0]) if words else None


def _mappings() -> Finding:
    text = _setting("/proc/sys/vm/max_map_count")
    if not text.isdigit():
        return Finding("memory", "vm.max_map_count", Verdict.UNTESTED, text)
    count = int(text)
    reach = f"{count}: enough for about {count * _BYTES_PER_MAPPING >> 30} GiB of heap"
    if count >= _MAPS_USUAL:
        return Finding("memory", "vm.max_map_count", Verdict.YES, reach)
    return Finding(
        "memory",
        "vm.max_map_count",
        Verdict.WARNING,
        f"{reach}, less than usual; base files beyond it are copied into memory",
        f"sysctl vm.max_map_count={_MAPS_USUAL} or more",
    )


def _huge_pages() -> Iterator[Finding]:
    places = {
        "thp": ("enabled", "heaps ask for small pages"),
        "thp-shared": ("shmem_enabled", "heaps use no shared memory"),
    }
    for name, (file_name, note) in places.items():
        text = _setting(f"/sys/kernel/mm/transparent_hugepage/{file_name}")
        chosen = text.partition("[")[2].partition("]")[0] or text
        yield Finding("memory", name, Verdict.FACT, f"{chosen}; {note}")
