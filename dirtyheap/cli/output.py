"""What commands print: lines or one JSON document on stdout, progress on stderr if that is a tty.

Notes, names and strings of a heap may come from anybody: on a terminal, escape sequences could do
anything, so :func:`printable` (``tables.py``) is on the way of every one of them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from ..tables import columns, printable, size

__all__ = [
    "Output",
    "Progress",
    "Run",
    "columns",
    "moment",
    "plural",
    "printable",
    "size",
]

_PROGRESS_SECONDS: Final = 0.1
_BAR_CHARACTERS: Final = 30


class Output:
    """Where one command writes to."""

    def __init__(self, *, is_json: bool) -> None:
        self.is_json = is_json
        self._progress: Progress | None = None

    def show(self, document: dict[str, Any], lines: Iterable[str]) -> None:
        """The result: the document for programs, or the lines for people."""
        self.close()
        if self.is_json:
            json.dump(document, sys.stdout, allow_nan=False)
            print()
            return
        for line in lines:
            print(line)

    def progress(self, what: str) -> Progress:
        """A bar on stderr, or nothing where stderr is no terminal."""
        self.close()
        self._progress = Progress(what, sys.stderr)
        return self._progress

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.close()
            self._progress = None


class Progress:
    """One line that is written again and again: call it with (done, total)."""

    def __init__(self, what: str, stream: TextIO) -> None:
        self._what = what
        self._stream = stream if stream.isatty() else None
        self._next = 0.0
        self._is_shown = False

    def __call__(self, done: int, total: int, step: str = "") -> None:
        now = time.monotonic()
        if self._stream is None or (now < self._next and done < total):
            return
        self._next = now + _PROGRESS_SECONDS
        share = done / total if total else 1.0
        bar = "#" * int(share * _BAR_CHARACTERS)
        self._write(f"\r{self._what} [{bar:<{_BAR_CHARACTERS}}] {share:4.0%} {step}\x1b[K")
        self._is_shown = True

    def _write(self, text: str) -> None:
        assert self._stream is not None
        self._stream.write(text)
        self._stream.flush()

    def close(self) -> None:
        """Leave an empty line behind."""
        if self._is_shown:
            self._write("\r\x1b[K")
            self._is_shown = False


def moment(seconds: float) -> str:
    """A time for people, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def plural(count: int, word: str, words: str = "") -> str:
    """1 commit, 2 commits."""
    return f"{count} {word if count == 1 else words or word + 's'}"


Run = Callable[[Any, Output], int]
