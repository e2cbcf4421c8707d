"""dh.pagemap.scan where /proc is closed or away: who is to blame, and what to do."""

from __future__ import annotations

import ctypes
import os

import pytest
import restrictions
from helpers import in_child, require_root, require_tracker, skip_test

import dirtyheap as dh
from dirtyheap import pagemap

PAGE = 4096
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(autouse=True)
def _needs_the_kernel() -> None:
    require_tracker("uffd")


def test_ones_own_page_map_may_be_closed() -> None:
    require_root("becoming another user")

    def child() -> list[str]:
        pagemap.categories()
        restrictions.become_nobody()
        restrictions.set_dumpable(False)
        found = []
        for pid in (None, os.getpid()):
            try:
                pagemap.scan(0x10000, PAGE, pid=pid)
            except PermissionError as error:
                found.append(str(error))
        return found

    found = in_child(child)
    assert len(found) == 2 and all("it is not dumpable" in text for text in found), found


def test_without_proc_no_process_is_blamed() -> None:
    require_root("a namespace of mounts")

    def child() -> list[str]:
        pagemap.categories()
        if libc.unshare(0x20000) != 0:  # CLONE_NEWNS
            return []
        # MS_REC | MS_PRIVATE: nobody else loses it.
        assert libc.mount(b"none", b"/", None, ctypes.c_ulong(0x44000), None) == 0
        assert libc.umount2(b"/proc", 2) == 0  # MNT_DETACH
        found = []
        for pid in (None, 1):
            try:
                pagemap.scan(0x10000, PAGE, pid=pid)
            except dh.TrackerError as error:
                found.append(str(error))
        return found

    found = in_child(child)
    if not found:
        skip_test("a namespace of mounts is refused here")
    assert len(found) == 2 and all("/proc must be mounted" in text for text in found), found
