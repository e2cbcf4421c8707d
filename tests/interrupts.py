"""Interrupts at every place where CPython would deliver a signal, one place at a time."""

from __future__ import annotations

import sys
from typing import Any


class InterruptAt:
    """Raises KeyboardInterrupt at the n-th place where CPython looks for signals: when a Python
    function is entered, and when a C function has returned."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.where = ""

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        if event not in ("call", "c_return"):
            return
        if frame.f_code is InterruptAt.__exit__.__code__ or argument is sys.setprofile:
            return
        self.left -= 1
        if self.left == 0:
            sys.setprofile(None)
            name = getattr(argument, "__name__", "") if event == "c_return" else "entry"
            self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno} {name}"
            raise KeyboardInterrupt(self.where)

    def __enter__(self) -> InterruptAt:
        sys.setprofile(self)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)
