"""The trackers a heap may ask for, and the techniques of a write watch, by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from ._ffi import ffi, lib

TRACKERS: Final = {
    "auto": lib.DH_TRACKER_AUTO,
    "uffd": lib.DH_TRACKER_UFFD,
    "uffd-dev": lib.DH_TRACKER_UFFD_DEV,
    "compare": lib.DH_TRACKER_COMPARE,
}


def laboratory() -> dict[str, int]:
    """The techniques that heaps must not use (:mod:`dirtyheap.lab`), and the core's codes."""
    found = {}
    for i in range(lib.dh_lab_techniques_count()):
        technique = lib.dh_lab_technique_at(i)
        if not technique.is_for_heaps:
            found[ffi.string(technique.name).decode()] = int(lib.dh_lab_technique_tracker(i))
    return found


def tracker_id(name: str) -> int:
    """The core's code for a tracker; ``DIRTYHEAP_TRACKER`` says what "auto" means.

    Raises:
        ValueError: there is none of that name, or it is one of the laboratory.
    """
    if name == "auto":
        name = os.environ.get("DIRTYHEAP_TRACKER", "auto")
    try:
        return int(TRACKERS[name])
    except KeyError:
        choice = f"must be one of {', '.join(TRACKERS)}"
        if name in laboratory():
            raise ValueError(
                f"tracker {name!r} is one of the laboratory, and never for a heap: it would lose "
                f"writes or break system calls (dh.lab.techniques() says how); {choice}"
            ) from None
        raise ValueError(f"tracker {name!r}: {choice}") from None


TECHNIQUES: Final = {
    "auto": lib.DH_TRACKER_AUTO,
    "uffd": lib.DH_TRACKER_UFFD,
    "uffd-dev": lib.DH_TRACKER_UFFD_DEV,
    "compare": lib.DH_TRACKER_SHADOW,  # with a copy: there is no committed image
}


def technique_named(name: str, techniques: Mapping[str, int]) -> int:
    """The core's code for a technique; ``DIRTYHEAP_TRACKER`` says what "auto" means.

    Raises:
        ValueError: there is none of that name, or it is one of the laboratory.
    """
    if name == "auto":
        name = os.environ.get("DIRTYHEAP_TRACKER", "auto")
    try:
        return int(techniques[name])
    except KeyError:
        choice = f"must be one of {', '.join(techniques)}"
        if name in laboratory():
            raise ValueError(
                f"technique {name!r} is one of the laboratory: dh.lab.watch(buffer_or_size, "
                f"{name!r}) takes it, and dh.lab.techniques() says what it cannot see; {choice}"
            ) from None
        raise ValueError(f"technique {name!r}: {choice}") from None
