"""examples/gc_lab.py: every experiment ends with the graph that plain objects give."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "gc_lab.py"
NODES, STEPS, SEED = 300, 12, 7


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("gc_lab", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gc_lab", module)  # where annotations are looked up
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "OPS_PER_STEP", 100)
    yield module


class PlainNode:
    """What a record is to the program."""

    first = second = third = None
    count = 0

    def __init__(self, _: type, number: int, tags: dict[str, str]) -> None:
        self.number, self.tags = number, tags


def plain_digest(lab: Any) -> str:
    heap = SimpleNamespace(root={}, new=PlainNode)
    program = lab.Program(heap, NODES, SEED)
    for _ in range(STEPS):
        program.run(lab.OPS_PER_STEP)
    digest: str = program.digest()
    return digest


def test_every_way_of_collecting_ends_with_the_graph_of_plain_objects(
    lab: Any, tmp_path: Path
) -> None:
    results = [
        lab.run_experiment(experiment, tmp_path, NODES, STEPS, SEED)
        for experiment in lab.EXPERIMENTS
    ]
    assert {result.digest for result in results} == {plain_digest(lab)}
    by_name = {result.experiment: result.cycles for result in results}
    watched, blind = by_name["kernel watch"], by_name["every page"]
    assert [cycle.generation for cycle in watched] == [cycle.generation for cycle in blind]
    assert sum(c.generation == "full" for c in watched) == STEPS // lab.STEPS_PER_FULL
    assert all(cycle.freed_cells > 0 for cycle in watched)
    assert {cycle.generation for cycle in by_name["full only"]} == {"full"}
    assert any(cycle.done for cycle in by_name["full, in slices"])
    assert all(cycle.done for cycle in by_name["full, beside"])


def test_tables_and_files(
    lab: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib").use("svg")
    table, everything, picture = (tmp_path / name for name in ("a.csv", "a.json", "a.svg"))
    words = ["gc_lab.py", "--nodes", str(NODES), "--steps", "6", "--only", "kernel"]
    words += ["--csv", str(table), "--json", str(everything), "--plot", str(picture)]
    monkeypatch.setattr(sys, "argv", words)
    lab.main()
    said = capsys.readouterr().out
    assert "kernel watch" in said and "removed_percent" in said
    with table.open() as file:
        rows = list(csv.DictReader(file))
    found = json.loads(everything.read_text())
    assert len(rows) == 6 == len(found["experiments"][0]["cycles"])
    assert [row["generation"] for row in rows] == ["young"] * 5 + ["full"]
    assert [place["removed_percent"] for place in found["placements"]] == list(lab.REMOVED_PERCENT)
    assert picture.read_bytes().startswith(b"<?xml")
