"""Proof mode: whether a heap hashes every page at every commit (native/src/proof.h does it)."""

from __future__ import annotations

import os
from typing import Final

VARIABLE: Final = "DIRTYHEAP_PROOF"
_MEANINGS: Final = {"": False, "0": False, "1": True}


def is_wanted(proof: bool | None) -> bool:
    """What ``dh.open(proof=...)`` asks for; None leaves it to the environment.

    Raises:
        ValueError: the environment variable is neither 0 nor 1.
    """
    if proof is not None:
        return bool(proof)
    value = os.environ.get(VARIABLE, "")
    try:
        return _MEANINGS[value]
    except KeyError:
        raise ValueError(f"{VARIABLE}={value!r}: must be 0 or 1") from None
