"""``verify``, ``fold``, ``upgrade``, ``backup``: keeping a heap sound, small, current and safe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .. import backup as backups
from .. import heap as heaps
from .. import upgrade as upgrades
from .. import verifier
from ..results import VerifyReport
from .arguments import add_command, keep
from .exit_codes import FOUND, OK
from .output import Output, plural, printable, size
from .tagging import KEEP_ALL


def add_commands(commands: Any) -> None:
    """Declare the commands."""
    add_command(
        commands,
        "verify",
        _verify,
        "check everything: files, pages, containers",
        "Check every file, page, record and container. Changes nothing. Exit code 1 when there "
        "are problems, each of which is named.",
    )
    fold = add_command(
        commands,
        "fold",
        _fold,
        "merge deltas into base files",
        "Merge all deltas into base files: the next open is quicker, the index gives space back. "
        "The heap must not be open for writing.",
    )
    fold.add_argument(
        "--keep",
        metavar="HISTORY",
        type=keep,
        default=KEEP_ALL,
        help="give up older commits without a tag: keep the newest N, or those younger than a "
        "duration such as 12h or 30d (default: keep all that are there)",
    )
    upgrade = add_command(
        commands,
        "upgrade",
        _upgrade,
        "bring a heap of an older format to this one's",
        "Bring a heap of an older format to the format of this version: all of it or, when killed "
        "half-way, nothing. There is no way back: make a backup first. The heap must not be open "
        "for writing.",
    )
    upgrade.add_argument("--dry-run", action="store_true", help="check everything, write nothing")
    backup = add_command(
        commands,
        "backup",
        _backup,
        "copy a heap, also beside a writer",
        "Copy a heap as of its last commit, with history and tags; also while it is written to.",
    )
    backup.add_argument("target", metavar="TARGET", type=Path, help="a new directory")


def _verify(options: argparse.Namespace, output: Output) -> int:
    bar = output.progress("verifying")

    def tell(step: str, done: int, total: int) -> None:
        bar(done, total, step)

    report = verifier.verify(options.heap, progress=tell)
    document = {
        "heap": str(options.heap),
        "ok": report.ok,
        "problems": [
            {"path": problem.path, "what": problem.what, "where": problem.where}
            for problem in report.problems
        ],
        "problems_count": report.problems_count,
        "containers": report.containers,
        "cells": report.cells,
        "unreachable_cells": report.unreachable_cells,
        "unreachable_bytes": report.unreachable_bytes,
        "pages": report.pages,
        "commits": report.commits,
        "bytes": report.bytes,
    }
    output.show(document, _verify_lines(report))
    return OK if report.ok else FOUND


def _verify_lines(report: VerifyReport) -> list[str]:
    lines = [printable(str(problem)) for problem in report.problems]
    more = report.problems_count - len(lines)
    if more > 0:
        lines.append(f"... {more} more")
    found = plural(report.problems_count, "problem") if report.problems_count else "no problems"
    looked_at = [
        plural(report.commits, "commit"),
        plural(report.containers, "container"),
        plural(report.cells, "cell"),
        plural(report.pages, "page"),
        f"{size(report.bytes)} of files",
    ]
    return [*lines, f"{found}; looked at {', '.join(looked_at)}"]


def _fold(options: argparse.Namespace, output: Output) -> int:
    with heaps.open(options.heap, create=False, keep=options.keep) as heap:
        extents = heap.fold()
        commit = heap.last_commit_id
    document = {"heap": str(options.heap), "commit": commit, "extents": extents}
    output.show(document, [f"commit {commit}: {plural(extents, 'extent')} written anew"])
    return OK


def _upgrade(options: argparse.Namespace, output: Output) -> int:
    report = upgrades.upgrade(options.heap, dry_run=options.dry_run)
    document = {
        "heap": str(options.heap),
        "format_before": report.format_before,
        "format_after": report.format_after,
        "commits": report.commits,
        "base_files": report.base_files,
        "is_done": report.is_done,
    }
    output.show(document, [_upgrade_text(report)])
    return OK


def _upgrade_text(report: upgrades.UpgradeReport) -> str:
    before, after = report.format_before, report.format_after
    if before == after:
        return f"format {after}: nothing to do"
    what = f"{plural(report.commits, 'commit')}, {plural(report.base_files, 'base file')}"
    if report.is_done:
        return f"format {before} to {after}: {what}"
    return f"format {before} to {after} would take: {what}; nothing was written"


def _backup(options: argparse.Namespace, output: Output) -> int:
    report = backups.backup(options.heap, options.target, progress=output.progress("copying"))
    document = {
        "heap": str(options.heap),
        "target": str(options.target),
        "commit": report.commit,
        "base_files": report.base_files,
        "bytes": report.bytes,
    }
    text = f"commit {report.commit}, {plural(report.base_files, 'base file')}, {size(report.bytes)}"
    output.show(document, [text])
    return OK
