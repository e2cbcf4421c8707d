"""The trackers a heap may ask for, and the techniques of a write watch, by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from ._ffi import lib

TRACKERS: Final = {
    "auto": lib.DH_TRACKER_AUTO,
    "uffd": lib.DH_TRACKER_UFFD,
    "uffd-dev": lib.DH_TRACKER_UFFD_DEV,
    "compare": lib.DH_TRACKER_COMPARE,
}


def tracker_id(name: str) -> int:
    """The core's code for a tracker; ``DIRTYHEAP_TRACKER`` says what "auto" means.

    Raises:
        ValueError: there is none of that name.
    """
    if name == "auto":
        name = os.environ.get("DIRTYHEAP_TRACKER", "auto")
    try:
        return int(TRACKERS[name])
    except KeyError:
        raise ValueError(f"tracker {name!r}: must be one of {', '.join(TRACKERS)}") from None


TECHNIQUES: Final = {
    "auto": lib.DH_TRACKER_AUTO,
    "uffd": lib.DH_TRACKER_UFFD,
    "uffd-dev": lib.DH_TRACKER_UFFD_DEV,
    "compare": lib.DH_TRACKER_SHADOW,  # with a copy: there is no committed image
}


def technique_named(name: str, techniques: Mapping[str, int]) -> int:
    """The core's code for a technique; ``DIRTYHEAP_TRACKER`` says what "auto" means.

    Raises:
        ValueError: there is none of that name.
    """
    if name == "auto":
        name = os.environ.get("DIRTYHEAP_TRACKER", "auto")
    try:
        return int(techniques[name])
    except KeyError:
        raise ValueError(f"technique {name!r}: must be one of {', '.join(techniques)}") from None
