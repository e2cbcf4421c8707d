"""From arguments to an exit code: the parser, and errors as one line on stderr.

Exit codes are a promise to scripts (docs/cli.md). No command prints its own errors: it raises what
the library raises, and here the class decides.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, Final

from .. import __version__
from ..errors import HeapCorruptError, HeapError, HeapLockedError
from . import counting, doctoring, dumping, keeping, looking, tagging
from .exit_codes import DAMAGED, FAILED, FOUND, INTERRUPTED, LOCKED, PIPE_CLOSED
from .output import Output, printable

_EPILOG: Final = (
    "exit codes: 0 done, 1 a problem or difference was found, 2 wrong usage, 3 the heap is open "
    "for writing elsewhere, 4 the heap is damaged, 5 anything else that failed. "
    "Each command has --help and --json."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. ``arguments``: those of the process if None."""
    _make_streams_total()
    options = _parser().parse_args(arguments)
    if sys.stdout is None:  # closed by whoever called
        return _complain("standard output is closed")
    output = Output(is_json=options.json)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            code = int(options.run(options, output))
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            # Whoever read had enough. What is left in the buffer must not be tried again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return PIPE_CLOSED
        except KeyboardInterrupt:
            _complain("interrupted")
            return INTERRUPTED
        except Exception as error:
            return _fail(error)
        finally:
            output.close()


def _make_streams_total() -> None:
    """Whatever the locale: no character of a heap can make printing fail."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dirtyheap", description="Look after persistent heaps.", epilog=_EPILOG
    )
    parser.add_argument("--version", action="version", version=f"dirtyheap {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for group in (looking, counting, dumping, tagging, keeping, doctoring):
        group.add_commands(commands)
    return parser


def _fail(error: Exception) -> int:
    if os.environ.get("DIRTYHEAP_TRACEBACK") == "1":
        traceback.print_exception(error)
    if isinstance(error, HeapLockedError):
        return _complain(error, LOCKED)
    if isinstance(error, HeapCorruptError):
        return _complain(
            f"damaged: {error}. See what is left with `dirtyheap verify`, and go back to a backup",
            DAMAGED,
        )
    if isinstance(error, (HeapError, OSError, ImportError, ValueError)):
        return _complain(error, FAILED)
    if isinstance(error, LookupError):
        return _complain(error.args[0] if error.args else error, FOUND)
    if isinstance(error, MemoryError):
        return _complain("out of memory", FAILED)
    return _complain(
        f"this is a mistake in dirtyheap: {type(error).__name__}: {error} "
        "(DIRTYHEAP_TRACEBACK=1 shows where)",
        FAILED,
    )


def _complain(what: object, code: int = FAILED) -> int:
    text = " ".join(printable(str(what)).split())
    with contextlib.suppress(OSError):  # where nobody can be told, the code says it
        print(f"dirtyheap: {text}", file=sys.stderr)
    return code


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    _complain(f"warning: {message}")
