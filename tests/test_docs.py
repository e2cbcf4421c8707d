"""Every example in README.md, docs/ and the docstrings of the package runs and says what it shows.

Each document or module is run in an empty directory of its own. Docstring examples find the names
`dh`, `dirtyheap`, `numpy` and `heap`: an open heap, new for each docstring, whose root holds a list
`log` and a buffer `data`.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

import dirtyheap as dh

REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules() -> list[str]:
    found = pkgutil.walk_packages(dh.__path__, "dirtyheap.")
    return ["dirtyheap", *(module.name for module in found if not module.name.endswith("__main__"))]


def docstrings() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    seen = set()
    for name in modules():
        module = importlib.import_module(name)
        for test in finder.find(module, name):
            if test.examples and test.name not in seen:
                seen.add(test.name)
                yield test


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_examples_of_document(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parser = doctest.DocTestParser()
    text = document.read_text(encoding="utf-8")
    run(parser.get_doctest(text, {}, document.name, str(document), 0))


@pytest.mark.parametrize("test", list(docstrings()), ids=lambda test: test.name)
def test_examples_of_docstring(
    test: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    heap = dh.open(tmp_path / "doctest.heap")
    heap.root.update({"log": [], "data": heap.buffer(64), "tags": set()})
    names: dict[str, Any] = {"dh": dh, "dirtyheap": dh, "heap": heap, "numpy": numpy}
    test.globs = {**test.globs, **names}
    with contextlib.closing(heap):
        run(test)


def run(test: doctest.DocTest) -> None:
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)


def test_readme_has_examples() -> None:
    """So that a README whose examples lost their prompt does not pass for want of any."""
    text = DOCUMENTS[0].read_text(encoding="utf-8")
    assert len(doctest.DocTestParser().get_examples(text)) > 10
