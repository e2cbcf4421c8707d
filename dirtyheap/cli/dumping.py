"""``dump``: contents of a heap, or of a part of it, as text or JSON."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

from .. import heap as heaps
from . import node_text, nodes, path
from .arguments import add_command, commit_or_tag
from .exit_codes import DAMAGED, OK
from .output import Output

DEPTH: Final = 4
ITEMS: Final = 20
TEXT: Final = 200
_ALL: Final = sys.maxsize


def add_commands(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "dump",
        _dump,
        "show contents, bounded; counts what is left out",
        "Show what a heap, or a part of it, holds. Reads only, also beside a writer. Nothing that "
        "the heap names is imported or executed: values of classes and enums are shown as stored, "
        "pickles are not read.",
    )
    parser.add_argument(
        "part",
        metavar="PART",
        nargs="?",
        type=path.parse,
        default=[],
        help="what to show, such as \"root['users'][3].name\"; the root if left out",
    )
    parser.add_argument(
        "--at", metavar="COMMIT", type=commit_or_tag, help="a commit's id, or a tag"
    )
    _add_limit(parser, "--depth", DEPTH, "levels of containers to show")
    _add_limit(parser, "--items", ITEMS, "entries to show of each container")
    _add_limit(parser, "--text", TEXT, "characters or bytes to show of each text")


def _add_limit(parser: argparse.ArgumentParser, name: str, default: int, what: str) -> None:
    parser.add_argument(
        name,
        metavar="N",
        type=_limit,
        default=default,
        help=f"{what}, or 'all' (default: {default})",
    )


def _limit(text: str) -> int:
    if text == "all":
        return _ALL
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'all'")
    return min(int(text), _ALL)


def _dump(options: argparse.Namespace, output: Output) -> int:
    name = "root" + "".join(map(str, options.part))
    limits = nodes.Limits(options.depth, options.items, options.text)
    with heaps.open(options.heap, create=False, read_only=True, at=options.at) as heap:
        walk = nodes.Walk(limits)
        node = walk.node(path.follow(heap.root, options.part), name)
        commit = heap.last_commit_id
    document = {
        "heap": str(options.heap),
        "commit": commit,
        "part": name,
        "unreadable": walk.damage_count,
        "value": node,
    }
    output.show(document, node_text.lines(node, f"{name}: "))
    return DAMAGED if walk.damage_count else OK
