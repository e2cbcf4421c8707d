"""The application: a searchable index of Python sources.

These functions know nothing about persistence. They fill `heap.root` of a dirtyheap heap and a
plain dict alike, which is how the demo checks one against the other:

    index["files"]   file number -> facts about the file
    index["terms"]   term -> file number -> the numbers of the lines that hold it
"""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

Index = MutableMapping[str, Any]

WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{2,}")


def python_sources() -> list[Path]:
    """The sources of the running Python's standard library, always in the same order."""
    library = Path(sysconfig.get_path("stdlib"))
    installed_later = {"site-packages", "dist-packages", "__pycache__"}
    return sorted(
        path
        for path in library.rglob("*.py")
        if path.is_file() and not installed_later.intersection(path.relative_to(library).parts)
    )


def prepare(index: Index) -> int:
    """Make the two tables of a new index; return how many files an old one holds already."""
    index.setdefault("files", {})
    index.setdefault("terms", {})
    return len(index["files"])


def add_file(index: Index, number: int, path: Path) -> None:
    """Enter one file. Only mutations of ordinary containers: nobody is told what changed."""
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines()
    lines_of_term: dict[str, list[int]] = {}
    for line_number, line in enumerate(lines, start=1):
        for term in dict.fromkeys(word.lower() for word in WORD.findall(line)):
            lines_of_term.setdefault(term, []).append(line_number)

    terms = index["terms"]
    for term, line_numbers in lines_of_term.items():
        if term not in terms:
            terms[term] = {}
        terms[term][number] = line_numbers
    index["files"][number] = {
        "path": str(path),
        "characters": len(text),
        "lines": len(lines),
        "terms": len(lines_of_term),
        "functions": sum(line.lstrip().startswith("def ") for line in lines),
        "classes": sum(line.lstrip().startswith("class ") for line in lines),
    }


def search(index: Index, *words: str) -> Iterator[tuple[int, str, list[int]]]:
    """Files that hold all words, best first: (hits, path, line numbers of the first word)."""
    postings = [index["terms"].get(word.lower(), {}) for word in words]
    common = set(postings[0]).intersection(*postings[1:])
    ranked = sorted(
        ((sum(len(posting[number]) for posting in postings), number) for number in common),
        key=lambda hit: (-hit[0], hit[1]),
    )
    for hits, number in ranked:
        yield hits, index["files"][number]["path"], list(postings[0][number])
