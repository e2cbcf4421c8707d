"""``census`` and ``growth``: what takes the memory of a heap, and what takes more than before."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any, Final

from .. import heap as heaps
from .arguments import add_command, add_two_commits, commit_or_tag
from .exit_codes import FOUND, OK
from .output import Output, printable

_CONTAINERS_MAX: Final = 20


def add_commands(commands: Any) -> None:
    """Declare the commands."""
    census = add_command(
        commands,
        "census",
        _census,
        "what lives in a heap, by type; garbage and free room",
        "Count what lives in a heap, by type, and the room between it. Reads only, also beside a "
        "writer.",
    )
    census.add_argument(
        "--at", metavar="COMMIT", type=commit_or_tag, help="of an older commit, by id or tag"
    )
    growth = add_command(
        commands,
        "growth",
        _growth,
        "which types and containers grew between two commits",
        "Show which types and which containers grew from commit A to commit B. Reads only, also "
        "beside a writer. Exit code 1 when more lives in B than in A, 0 otherwise.",
    )
    add_two_commits(growth, f"show N containers (default: {_CONTAINERS_MAX})", _CONTAINERS_MAX)


def _census(options: argparse.Namespace, output: Output) -> int:
    with heaps.open(options.heap, create=False, read_only=True, at=options.at) as heap:
        census = heap.census()
    document = {"heap": str(options.heap), **asdict(census)}
    document["fragmentation"] = census.fragmentation
    # Of a snapshot: nobody waits for it, and Python holds nothing.
    for name in ("pause_ns", "held_cells", "held_bytes"):
        del document[name]
    output.show(document, [*str(census).splitlines(), f"commit {census.commit}"])
    return OK


def _growth(options: argparse.Namespace, output: Output) -> int:
    with heaps.open(options.heap, create=False, read_only=True) as heap:
        growth = heap.growth(options.a, options.b, limit=options.limit)
    document = {"heap": str(options.heap), **asdict(growth)}
    output.show(document, map(printable, str(growth).splitlines()))
    return FOUND if growth.bytes > 0 else OK
