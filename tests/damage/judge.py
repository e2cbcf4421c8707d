"""What comes of a damaged heap: opened, read in every way, verified, changed, committed, reopened.

Runs in a process of its own, which may die; the words it returns are the outcomes that the tests
count. See :data:`OUTCOMES`.
"""

from __future__ import annotations

import fcntl
import os
import random
from pathlib import Path

from specimens import Specimen, change_contents
from walk import ALLOWED, fingerprint, read_all

import dirtyheap as dh

OUTCOMES = {
    "right": "opened, and everything is there and can be changed",
    "error": "refused, or the reading met an error; verify knows why",
    "older": "the state of an earlier commit, whole",
    "wrong, found": "something else was read, and verify finds it",
    "wrong": "something else was read and nobody noticed",
    "silent": "refused, and verify finds nothing",
    "leak": "refused, and the lock or a descriptor is left behind",
    "bad error": "an exception that is none of dirtyheap's",
}


CAPACITY_BYTES = 64 << 20  # address space costs a child time to reserve and to give back


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _is_locked(directory: Path) -> bool:
    try:
        fd = os.open(directory / "writer.lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def use(directory: Path, specimen: Specimen, seed: int) -> tuple[str, str]:
    """The outcome, and what was said."""
    before = _descriptors()
    try:
        outcome, text = _use(directory, specimen, seed)
    except (*ALLOWED, FileNotFoundError) as error:  # the last: the index itself was lost
        outcome, text = "error", f"{type(error).__name__}: {error}"
        del error
    except Exception as error:
        return "bad error", f"{type(error).__name__}: {error}"
    if outcome == "error":
        if _is_locked(directory) or _descriptors() > before:
            return "leak", text
        if dh.verify(directory).ok:
            return "silent", text
    return outcome, text


def _use(directory: Path, specimen: Specimen, seed: int) -> tuple[str, str]:
    report = dh.verify(directory) if seed % 4 == 0 else None  # also before anybody has opened it
    with dh.open(directory, create=False, capacity=CAPACITY_BYTES) as heap:
        found = fingerprint(heap.root)
        errors = read_all(heap.root)
        if errors:
            raise errors[0]
        if heap.census().broken and heap.verify().ok:
            return "wrong", "a census that counts broken references"
        if found != specimen.states[-1]:
            if found in specimen.states:
                return "older", ""
            return ("wrong", "") if heap.verify().ok else ("wrong, found", "")
        text = (report or heap.verify()).first_problem
        change_contents(heap, random.Random(seed))
        heap.commit("after the damage")
        expected = fingerprint(heap.root)
    with dh.open(directory, create=False, capacity=CAPACITY_BYTES) as heap:
        if fingerprint(heap.root) != expected:
            return "wrong", "after a commit"
    return "right", text
