"""examples/import_graph.py survives SIGKILL at random moments, and ends as if nothing had happened.

What is found after each kill must be the graph that as many visits give in plain objects: nodes,
edges in both directions, and what is still to be visited, in its order.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from helpers import seeded

import dirtyheap as dh

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "import_graph.py"
KILLS = 8

pytestmark = pytest.mark.timeout(120)


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("import_graph", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["import_graph"] = module  # where annotations of its record class are looked up
    spec.loader.exec_module(module)
    return module


class PlainModule:
    """What a record is to the application."""

    def __init__(self, _: type, name: str, path: str) -> None:
        self.name = name
        self.path = path
        self.lines = 0
        self.imports: set[Any] = set()
        self.imported_by: set[Any] = set()


def plain_graph(example: Any) -> Any:
    """The application over plain containers, which never were in a heap."""
    heap = SimpleNamespace(root={}, sorted_dict=dict, deque=deque, new=PlainModule)
    return example.Graph(heap)


def describe(graph: Any) -> dict[str, Any]:
    def names(modules: Any) -> list[str]:
        return sorted(module.name for module in modules)

    nodes = {
        name: (node.path, node.lines, names(node.imports), names(node.imported_by))
        for name, node in graph.modules.items()
    }
    return {"nodes": nodes, "frontier": [node.name for node in graph.frontier]}


def live(path: Path, life_s: float | None) -> tuple[int, int]:
    """Let the program run so long after its first sign of life, or to its end; (exit code, visits
    it said were committed)."""
    command = [sys.executable, str(SCRIPT), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        lines = [job.stdout.readline()]
        if life_s is not None:
            time.sleep(life_s)
            job.kill()
        lines += job.stdout.readlines()
        code = job.wait()
    said = [re.match(r"(\d+) visited, .* to go\n", line) for line in lines]
    return code, max((int(found[1]) for found in said if found), default=0)


def check(path: Path, example: Any, undisturbed: Any, acknowledged: int) -> int:
    """The heap shows the plain graph after as many visits as it says: not fewer than acknowledged,
    and not more than one commit beyond."""
    with dh.open(path) as heap:
        if "visits" not in heap.root:
            assert acknowledged == 0
            return 0
        visits: int = heap.root["visits"]
        assert acknowledged <= visits <= acknowledged + example.VISITS_PER_COMMIT
        while undisturbed.root["visits"] < visits:
            undisturbed.visit_next()
        graph = example.Graph(heap)
        assert describe(graph) == describe(undisturbed)
        assert list(graph.modules) == sorted(undisturbed.modules)
        assert heap.verify().ok
    return visits


def test_killed_at_random_moments_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    rng = seeded()
    example = load()
    undisturbed = plain_graph(example)
    path = tmp_path / "heap"
    seen = {0}
    acknowledged = kills = 0
    while kills < KILLS or len(seen) <= 2:  # on a slow machine some lives end before their kill
        code, said = live(path, rng.uniform(0, 0.4))
        acknowledged = check(path, example, undisturbed, max(acknowledged, said))
        if code == 0:
            shutil.rmtree(path)
            undisturbed, acknowledged = plain_graph(example), 0
            continue
        assert code == -signal.SIGKILL
        kills += 1
        seen.add(acknowledged)
    code, said = live(path, None)
    assert code == 0
    visits = check(path, example, undisturbed, max(acknowledged, said))
    assert not undisturbed.frontier and visits == len(undisturbed.modules) > 200
    with dh.open(path) as heap:
        way = example.Graph(heap).chain("http.server", "enum")
        assert way[0] == "http.server" and way[-1] == "enum"
        undisturbed_way = undisturbed.chain("http.server", "enum")
        assert len(way) == len(undisturbed_way) > 2
