"""A write watch where the kernel's tracking is refused: it compares, says why, misses nothing."""

from __future__ import annotations

import errno
import mmap

import pytest
import restrictions
from helpers import in_child, require_root, require_tracker, skip_kernel_test

import dirtyheap as dh

PAGE = 4096


@pytest.fixture(autouse=True)
def _needs_the_kernel() -> None:
    require_tracker("uffd")
    if not restrictions.is_known_machine():
        skip_kernel_test("the filter's system call numbers are not those of this machine")


def watched() -> tuple[str, str, list[int]]:
    """What auto takes here, why, and what it tells."""
    with dh.WriteWatch(mmap.mmap(-1, 100 * PAGE)) as watch:
        watch.buffer[3 * PAGE] = 1
        with open("/dev/urandom", "rb", buffering=0) as file:
            file.readinto(watch.buffer[7 * PAGE : 7 * PAGE + 100])
        return watch.technique, watch.reason, list(watch.get(reset=True).numbers())


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
@pytest.mark.parametrize("device_too", [False, True])
def test_auto_compares_where_userfaultfd_is_refused(error: int, device_too: bool) -> None:
    def child() -> tuple[tuple[str, str, list[int]], str]:
        restrictions.refuse_userfaultfd(error, device_too=device_too)
        try:
            dh.WriteWatch(PAGE, technique="uffd")
        except dh.TrackerError as refusal:
            return watched(), str(refusal)
        return watched(), "it is taken"

    (technique, reason, told), refusal = in_child(child)
    assert technique in (("compare",) if device_too else ("uffd-dev", "compare"))
    assert "userfaultfd system call" in reason
    assert "userfaultfd system call" in refusal
    assert told == [3, 7]


def test_a_watch_that_is_open_goes_on_when_the_rights_go() -> None:
    """Container runtimes and daemons drop them after start-up."""
    require_root("becoming another user")

    def child() -> list[int]:
        watch = dh.WriteWatch(10 * PAGE, technique="uffd")
        restrictions.refuse_userfaultfd(errno.EPERM, device_too=True)
        restrictions.become_nobody()
        watch.buffer[3 * PAGE] = 1
        return list(watch.get(reset=True).numbers())

    assert in_child(child) == [3]


def test_an_ordinary_user_has_the_kernels_tracking() -> None:
    require_root("becoming another user")

    def child() -> tuple[str, str, list[int]]:
        restrictions.become_nobody()
        return watched()

    assert in_child(child) == ("uffd", "", [3, 7])
