"""Golden heaps: what an older version stored is found again, exactly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from golden import described, golden_heaps

import dirtyheap as dh
from dirtyheap import upgrade
from dirtyheap.rows import FORMAT


def current(name: str, directory: Path) -> Path:
    """A copy of the heap in the format of today."""
    path = golden_heaps.unpack(name, directory)
    if golden_heaps.format_of(name) < FORMAT:
        upgrade.upgrade(path)
    return path


def contents(path: Path) -> Any:
    """Read by a process that has defined none of the classes."""
    done = subprocess.run(
        [sys.executable, "-P", described.__file__, path],
        check=True,
        stdout=subprocess.PIPE,
        cwd=path.parent,
        env=dict(os.environ, PYTHONPATH=str(golden_heaps.DIRECTORY)),
    )
    return json.loads(done.stdout)


def test_there_is_one_of_each_format() -> None:
    assert [golden_heaps.format_of(name) for name in golden_heaps.NAMES] == list(
        range(1, FORMAT + 1)
    )


@pytest.mark.parametrize("name", golden_heaps.NAMES)
def test_a_golden_heap_holds_what_was_stored(name: str, tmp_path: Path) -> None:
    path = current(name, tmp_path)
    expected = golden_heaps.expected(name)
    assert contents(path) == expected["root"]
    with dh.open(path, create=False) as heap:
        report = heap.verify()
        assert report.ok, report
        assert heap.last_commit_id == expected["commits"][-1]["id"]


def test_history_and_tags(tmp_path: Path) -> None:
    path = golden_heaps.unpack("format2", tmp_path)
    expected = golden_heaps.expected("format2")
    with dh.open(path, read_only=True) as heap:
        fields = ("id", "parent", "note", "time")
        found = [{name: getattr(commit, name) for name in fields} for commit in heap.history()]
        assert found == expected["commits"]
        assert {name: commit.id for name, commit in heap.tags().items()} == expected["tags"]
    with dh.open(path, read_only=True, at="before the fold") as heap:
        assert "dict of 3" not in heap.root and heap.root["tuples"][1] == (1,)


@pytest.mark.parametrize("name", golden_heaps.NAMES)
def test_a_golden_heap_can_be_written(name: str, tmp_path: Path) -> None:
    """Every container goes on from where the older version left it."""
    path = current(name, tmp_path)
    with dh.open(path) as heap:
        root = heap.root
        root["dict of 4200"].update({f"more {i}": i for i in range(600)})
        root["list of 5200"].insert(2600, "inserted")
        root["set of 4200"] |= {"more", 5}
        root["sorted of 900"]["key"] = 1
        root["items"][3].name = "renamed"
        root["shaped"].append(dh.to_python(root["shaped"][0]))
        root["field"][1] = 8
        root["bounded"].extend("abcdef")
        heap.collect()
        assert heap.verify().ok
        number = heap.commit("by a newer version").id
        heap.fold()
    with dh.open(path) as heap:
        assert heap.last_commit_id == number == len(golden_heaps.expected(name)["commits"]) + 1
        assert heap.root["list of 5200"][2600] == "inserted"
        assert list(heap.root["bounded"]) == list("cdef")
        assert heap.verify().ok
