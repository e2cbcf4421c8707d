"""What the parsers of several commands share."""

from __future__ import annotations

import argparse
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

from .output import Run

_DURATION = re.compile(r"(\d+)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def add_command(
    commands: Any, name: str, run: Run, summary: str, description: str
) -> argparse.ArgumentParser:
    """One command on one heap; every one has --json."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=description
    )
    add_heap(parser, run)
    return parser


def add_heap(parser: argparse.ArgumentParser, run: Run) -> None:
    """The heap as the first argument, and what every command takes."""
    parser.add_argument("heap", metavar="HEAP", type=_directory, help="the heap's directory")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def _directory(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("an empty path is no heap")
    return Path(text)


def commit_or_tag(text: str) -> int | str:
    """A number is a commit's id; anything else a tag."""
    return int(text) if text.isascii() and text.isdigit() else text


def count(text: str) -> int:
    """A number from 1 on."""
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def keep(text: str) -> int | timedelta:
    """How much history: so many commits, or a duration such as 90m, 12h, 30d.

    >>> keep("12h")
    datetime.timedelta(seconds=43200)
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        return count(text)
    try:
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text!r} is too long a time") from None


def add_two_commits(parser: argparse.ArgumentParser, limit_help: str, limit: int) -> None:
    """What a command that compares takes: commits A and B, and how many lines are shown of it."""
    parser.add_argument("a", metavar="A", type=commit_or_tag, help="a commit's id, or a tag")
    parser.add_argument(
        "b", metavar="B", nargs="?", type=commit_or_tag, help="another; the newest if left out"
    )
    parser.add_argument("--limit", metavar="N", type=count, default=limit, help=limit_help)
