"""The graph of imports in Python's standard library, kept in a heap as records with references.

    python examples/import_graph.py [DIRECTORY]

The program may be killed at any moment and started again: it goes on at its last commit. What is
still to be visited is part of the state, and so is every edge, in both directions.
"""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import dirtyheap as dh

LIBRARY = Path(sysconfig.get_path("stdlib"))
START = ("asyncio", "email", "http", "idlelib", "sqlite3", "unittest", "xml", "zipfile")
VISITS_PER_COMMIT = 10


@dh.record
class Module:
    """A node. Its edges lead to other modules by reference, not by name."""

    name: str
    path: str
    lines: int = 0
    imports: dh.Set = dh.field(default_factory=set)
    imported_by: dh.Set = dh.field(default_factory=set)


def source_of(name: str) -> Path | None:
    """The file of a module of the standard library; None for what is not written in Python."""
    stem = LIBRARY.joinpath(*name.split("."))
    candidates = (stem / "__init__.py", stem.with_suffix(".py"))
    return next((path for path in candidates if path.is_file()), None)


def imported_names(tree: ast.AST, package: str) -> Iterator[str]:
    """Modules that the source may import, also those that only `from x import y` can mean."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


class Graph:
    """The application. All its state is in the heap; nothing here says what has changed."""

    def __init__(self, heap: dh.Heap) -> None:
        self.heap = heap
        if "modules" not in heap.root:
            heap.root.update(modules=heap.sorted_dict(), frontier=heap.deque(), visits=0)
        self.root = heap.root
        self.modules = heap.root["modules"]
        self.frontier = heap.root["frontier"]
        for name in START:
            self.module(name)

    def module(self, name: str) -> Module | None:
        """The node of that name; a new one is queued for its visit."""
        found: Module | None = self.modules.get(name)
        path = source_of(name) if found is None else None
        if path is None:
            return found
        new = self.modules[name] = self.heap.new(Module, name, str(path))
        self.frontier.append(new)
        return new

    def visit_next(self) -> None:
        module = self.frontier.popleft()
        path = Path(module.path)
        text = path.read_text(encoding="utf-8", errors="replace")
        module.lines = text.count("\n")
        package = module.name if path.name == "__init__.py" else module.name.rpartition(".")[0]
        for name in imported_names(ast.parse(text), package):
            target = self.module(name)
            if target is not None and target is not module:
                module.imports.add(target)
                target.imported_by.add(module)
        self.root["visits"] += 1

    def chain(self, start: str, end: str) -> list[str]:
        """A shortest way from one module to another along imports; plain Python over the graph."""
        came_from = {start: ""}
        waiting = deque([self.modules[start]])
        while waiting and end not in came_from:
            module = waiting.popleft()
            for target in sorted(module.imports, key=lambda node: node.name):
                if target.name not in came_from:
                    came_from[target.name] = module.name
                    waiting.append(target)
        way = [end] if end in came_from else []
        while way and way[-1] != start:
            way.append(came_from[way[-1]])
        return way[::-1]


def main() -> None:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "imports.heap")
    with dh.open(directory) as heap:
        graph = Graph(heap)
        print(f"begins after {graph.root['visits']} visits", flush=True)
        while graph.frontier:
            for _ in range(min(VISITS_PER_COMMIT, len(graph.frontier))):
                graph.visit_next()
            heap.commit()
            print(f"{graph.root['visits']} visited, {len(graph.frontier)} to go", flush=True)
        ranked = sorted(graph.modules.values(), key=lambda m: len(m.imported_by), reverse=True)
        print("imported most: " + ", ".join(f"{m.name} ({len(m.imported_by)})" for m in ranked[:5]))
        print("from http.server to enum: " + " -> ".join(graph.chain("http.server", "enum")))


if __name__ == "__main__":
    main()
