"""``tag list``, ``tag add``, ``tag remove``: names that keep commits."""

from __future__ import annotations

import argparse
from typing import Any, Final

from .. import heap as heaps
from ..index import Index
from .arguments import add_command, commit_or_tag
from .exit_codes import OK
from .looking import read_index
from .output import Output, columns, moment, plural

# Opening a heap must not make its owner's history shorter, whatever `keep` the owner has.
KEEP_ALL: Final = 1 << 62


def add_commands(commands: Any) -> None:
    """Declare the commands."""
    parser = commands.add_parser(
        "tag",
        help="list, add and remove names of commits",
        description="List, add and remove tags: a commit that has one is kept.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    add_command(verbs, "list", _list, "list all tags", "List all tags.")
    add = add_command(
        verbs,
        "add",
        _add,
        "name a commit",
        "Give a commit a name, or move the name to it. The heap must not be open for writing.",
    )
    add.add_argument("name", metavar="NAME", help="not a number, at most 200 characters")
    add.add_argument(
        "commit", metavar="COMMIT", nargs="?", type=commit_or_tag, help="the newest if left out"
    )
    remove = add_command(
        verbs,
        "remove",
        _remove,
        "remove a name",
        "Remove a tag. The commit goes with it, for good, unless something else keeps it. The "
        "heap must not be open for writing.",
    )
    remove.add_argument("name", metavar="NAME", help="the tag")


def _list(options: argparse.Namespace, output: Output) -> int:
    tags = read_index(options.heap, _tag_documents)
    rows = [(tag["name"], tag["commit"], moment(tag["time"])) for tag in tags]
    lines = columns([("tag", "commit", "time"), *rows], right=(1,)) if rows else ["no tags"]
    output.show({"heap": str(options.heap), "tags": tags}, lines)
    return OK


def _tag_documents(index: Index, _: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": tag.name, "commit": tag.commit, "time": index.record(tag.commit).time}
        for tag in index.tags().values()
    ]


def _add(options: argparse.Namespace, output: Output) -> int:
    with heaps.open(options.heap, create=False, keep=KEEP_ALL) as heap:
        commit = heap.tag(options.name, options.commit)
    document = {"heap": str(options.heap), "tag": options.name, "commit": commit.id}
    output.show(document, [f"{options.name}: commit {commit.id}, {moment(commit.time)}"])
    return OK


def _remove(options: argparse.Namespace, output: Output) -> int:
    with heaps.open(options.heap, create=False, keep=KEEP_ALL) as heap:
        commit = heap.tags().get(options.name)
        if commit is None:
            names = plural(len(heap.tags()), "tag")
            raise LookupError(f"there is no tag {options.name!r} among {names}")
        heap.untag(options.name)
    document = {"heap": str(options.heap), "tag": options.name, "commit": commit.id}
    output.show(document, [f"{options.name}: removed from commit {commit.id}"])
    return OK
