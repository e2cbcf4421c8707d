"""When two classes are one that was defined again: by a notebook's cell, a reload, or a module that
is also the script. Must never import anything."""

from __future__ import annotations

import sys

__all__ = ["is_same_definition"]


def _source(cls: type) -> object:
    return getattr(sys.modules.get(cls.__module__), "__file__", None) or cls.__module__


def is_same_definition(cls: type, other: type) -> bool:
    """Do both come from the same statement, as far as one can tell?"""
    return cls.__qualname__ == other.__qualname__ and _source(cls) == _source(other)
