"""``doctor``: what this kernel, container, user and file system do for heaps, and what to do."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..findings import Finding
from ..probe import Probe, probe
from .exit_codes import FOUND, OK
from .output import Output, plural, printable


def add_commands(commands: Any) -> None:
    """Declare the command."""
    doctor = commands.add_parser(
        "doctor",
        help="what this kernel, container and user can do",
        description="Try what heaps need of the kernel, the container, the user's limits and, with "
        "PATH, the file system. Changes nothing. Exit code 1 when something makes heaps slow, "
        "unsafe or impossible here; each such line is a warning and says what to do.",
    )
    doctor.add_argument(
        "path", metavar="PATH", nargs="?", type=Path, help="a heap, or where one is to be made"
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON document")
    doctor.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace, output: Output) -> int:
    found = probe(options.path)
    document = {
        "path": None if options.path is None else str(options.path),
        "ok": found.ok,
        "tracker": found.tracker,
        "trackers": [
            {"tracker": each.tracker, "works": each.works, "reason": each.reason} for each in found
        ],
        "findings": [
            {
                "group": each.group,
                "name": each.name,
                "verdict": str(each.verdict),
                "text": each.text,
                "remedy": each.remedy,
            }
            for each in found.findings
        ],
    }
    output.show(document, _lines(found))
    return OK if found.ok else FOUND


def _lines(found: Probe) -> list[str]:
    width = max(len(each.name) for each in found.findings)
    lines: list[str] = []
    group = ""
    for each in found.findings:
        if each.group != group:
            group = each.group
            lines += ["", group] if lines else [group]
        lines += _finding_lines(each, width)
    warnings = len(found.warnings)
    return [
        *lines,
        "",
        f"{plural(warnings, 'warning')}"
        if warnings
        else "nothing stands in the way of a heap here",
    ]


def _finding_lines(each: Finding, width: int) -> list[str]:
    lines = [f"  {each.name.ljust(width)}  {each.verdict:<10}  {printable(each.text)}"]
    if each.remedy:
        lines.append(f"  {'':{width}}  {'':10}  -> {printable(each.remedy)}")
    return lines
