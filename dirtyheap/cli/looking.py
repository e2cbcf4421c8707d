"""``info``, ``log``, ``diff``: what a heap is, its commits, and what changed between two of them.

``info`` and ``log`` read the index alone: a few rows, whatever the size of the heap, and beside a
writer too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from .. import heap as heaps
from ..environments import DATA_NAME
from ..index import Index
from ..results import Diff
from ..rows import PAGE_BYTES, Record, Tag
from ..snapshots import SnapshotStore
from ..writer_lock import LOCK_NAME
from .arguments import add_command, add_two_commits, count
from .exit_codes import FOUND, OK
from .output import Output, columns, moment, plural, printable, size

_CHANGES_MAX: Final = 1000
_KERNEL_LOCKS: Final = Path("/proc/locks")  # proc_locks(5)


def add_commands(commands: Any) -> None:
    """Declare the commands."""
    add_command(
        commands,
        "info",
        _info,
        "what a heap is: format, commits, sizes",
        "Show what a heap is. Reads the index only, also beside a writer.",
    )
    log = add_command(
        commands,
        "log",
        _log,
        "the commits that can be opened, newest first",
        "List the commits that are kept, newest first. Reads the index only, also beside a writer.",
    )
    log.add_argument("--limit", metavar="N", type=count, help="show the newest N only")

    diff = add_command(
        commands,
        "diff",
        _diff,
        "what changed between two commits",
        "Show what changed from commit A to commit B: containers, keys, elements, fields, bytes. "
        "Reads only, also beside a writer. Exit code 1 when anything changed, 0 when nothing did.",
    )
    add_two_commits(
        diff, f"list N changes, count the others (default: {_CHANGES_MAX})", _CHANGES_MAX
    )


Read = TypeVar("Read")

# --- the index ------------------------------------------------------------------------------------


def read_index(path: Path, read: Callable[[Index, dict[str, Any]], Read]) -> Read:
    """What ``read`` finds in the index of a heap as of now, and in its description."""
    return SnapshotStore(path.absolute()).look(read)


def _writer_of(path: Path) -> int | None:
    """The process that writes the heap, None: nobody that this one can see. Takes no lock, not for
    a moment: a writer that comes just then would be refused."""
    lock = path / LOCK_NAME
    try:
        holder, inode = lock.read_bytes()[:32].strip(), lock.stat().st_ino
        locks = _KERNEL_LOCKS.read_text()
    except OSError:
        return None
    if not holder.isdigit():
        return None
    for line in locks.splitlines():
        # 1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF
        _, kind, _, access, pid, place, *_ = line.replace("->", "").split()
        is_ours = place.rpartition(":")[2] == str(inode) and int(pid) == int(holder)
        if (kind, access) == ("FLOCK", "WRITE") and is_ours:
            return int(holder)
    return None


# --- info -----------------------------------------------------------------------------------------


def _info(options: argparse.Namespace, output: Output) -> int:
    document = read_index(options.heap, partial(_info_document, options.heap))
    output.show(document, _info_lines(document))
    return OK


def _info_document(path: Path, index: Index, meta: dict[str, Any]) -> dict[str, Any]:
    last = index.last()[0]
    kept, tags = index.kept_ids(), index.tags()
    names = _names_by_commit(tags.values())
    versions = index.extents(last.id) if last is not None else {}
    files = [extent for found in versions.values() for extent in found]
    return {
        "heap": str(path),
        "format": meta["format"],
        "uuid": meta["uuid"].hex(),
        "writer": _writer_of(path),
        "last_commit": None if last is None else _commit_document(last, names.get(last.id, [])),
        "commits": len(kept),
        "oldest_commit": kept[0] if kept else None,
        "tags": len(tags),
        "arena_bytes": 0 if last is None else last.hwm_pages * PAGE_BYTES,
        "unfolded_commits": 0 if last is None else last.id - last.fold,
        "unfolded_bytes": 0 if last is None else index.delta_bytes(last),
        "base_files": len(files),
        "base_bytes": sum(extent.file_bytes for extent in files),
        "index_bytes": (path / DATA_NAME).stat().st_size,
    }


def _info_lines(document: dict[str, Any]) -> list[str]:
    last = document["last_commit"]
    commits = plural(document["commits"], "commit")
    tags = plural(document["tags"], "tag")
    unfolded = plural(document["unfolded_commits"], "commit")
    files = plural(document["base_files"], "file")
    writer = document["writer"]
    return columns(
        [
            ("heap", document["heap"]),
            ("format", document["format"]),
            ("uuid", document["uuid"]),
            ("writer", "nobody" if writer is None else f"process {writer}"),
            ("last commit", "none" if last is None else _commit_text(last)),
            ("can be opened", f"{commits}, {tags}"),
            ("arena", size(document["arena_bytes"])),
            ("base", f"{files}, {size(document['base_bytes'])}"),
            ("not yet folded", f"{unfolded}, {size(document['unfolded_bytes'])}"),
            ("index", size(document["index_bytes"])),
        ]
    )


def _commit_document(record: Record, tags: list[str]) -> dict[str, Any]:
    return {
        "id": record.id,
        "parent": record.parent,
        "time": record.time,
        "note": record.note,
        "pages": record.pages,
        "bytes_changed": record.bytes_changed,
        "tags": tags,
    }


def _commit_text(commit: dict[str, Any]) -> str:
    note = f": {printable(commit['note'])}" if commit["note"] else ""
    return f"{commit['id']}, {moment(commit['time'])}{note}"


# --- log ------------------------------------------------------------------------------------------


def _log(options: argparse.Namespace, output: Output) -> int:
    commits, more = read_index(options.heap, partial(_newest_commits, options.limit))
    document = {"heap": str(options.heap), "commits": commits, "more": more}
    output.show(document, _log_lines(commits, more))
    return OK


def _newest_commits(
    limit: int | None, index: Index, _: dict[str, Any]
) -> tuple[list[dict[str, Any]], int]:
    """The commits to show, and how many there are besides."""
    kept = index.kept_ids()
    names = _names_by_commit(index.tags().values())
    shown = kept[::-1][:limit]
    commits = [_commit_document(index.record(number), names.get(number, [])) for number in shown]
    return commits, len(kept) - len(shown)


def _names_by_commit(tags: Iterable[Tag]) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for tag in tags:
        names.setdefault(tag.commit, []).append(tag.name)
    return names


def _log_lines(commits: list[dict[str, Any]], more: int) -> list[str]:
    if not commits:
        return ["no commits"]
    table = [
        (
            commit["id"],
            moment(commit["time"]),
            size(commit["bytes_changed"]),
            " ".join([*(f"[{name}]" for name in commit["tags"]), commit["note"]]),
        )
        for commit in commits
    ]
    lines = columns([("commit", "time", "changed", "tags, note"), *table], right=(0, 2))
    return lines + ([f"... {more} more"] if more else [])


# --- diff -----------------------------------------------------------------------------------------


def _diff(options: argparse.Namespace, output: Output) -> int:
    with heaps.open(options.heap, create=False, read_only=True) as heap:
        found = heap.diff(options.a, options.b, limit=options.limit)
    document = {
        "heap": str(options.heap),
        "before": found.before,
        "after": found.after,
        "pages": found.pages,
        "bytes": found.bytes,
        "changes": [
            {
                "kind": change.kind,
                "path": change.path,
                "before": change.before,
                "after": change.after,
            }
            for change in found.changes
        ],
        "more": found.more,
    }
    output.show(document, _diff_lines(found))
    return FOUND if found else OK


def _diff_lines(found: Diff) -> list[str]:
    lines = [printable(str(change)) for change in found.changes]
    if found.more:
        lines.append(f"... {found.more} more")
    changes = plural(len(found.changes) + found.more, "change") if found else "no changes"
    sizes = f"{plural(found.pages, 'page')}, {size(found.bytes)} differ"
    return [*lines, f"{changes} from commit {found.before} to {found.after}; {sizes}"]
