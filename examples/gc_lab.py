"""A laboratory of garbage collection: one program, collected in many ways.

    python examples/gc_lab.py [--nodes N] [--steps N] [--csv FILE] [--json FILE] [--plot FILE.svg]

The program is a graph of records that changes all the time: numbers are counted up, edges bent,
nodes replaced, chains made and dropped. Each experiment runs it in a heap of its own, with one
source of written pages and one policy, and must end with the same graph. There is a row for every
cycle, and a second table on where the allocator puts new cells: what is good for commits may not be
good for young collections. docs/gc.md explains what is seen here.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dirtyheap as dh

EDGES = ("first", "second", "third")
OPS_PER_STEP = 1000
STEPS_PER_FULL = 6
STEPS_PER_COMMIT = 3
SLICE_MS = 1.0
CHAIN_NODES = 5
REMOVED_PERCENT = (0, 10, 20, 30, 50)


# --- the program ----------------------------------------------------------------------------------


@dh.record(name="LabNode")
class Node:
    number: int
    count: int = 0
    tags: dh.Dict = dh.field(default_factory=dict)
    first: Any = None
    second: Any = None
    third: Any = None


class Program:
    """Nodes in a list, edges between them: the same seed gives the same graph, whoever collects."""

    def __init__(
        self, heap: dh.Heap, nodes: int, seed: int, edges: tuple[str, ...] = EDGES
    ) -> None:
        self.heap = heap
        self.random = random.Random(seed)
        self.edges = edges
        self.made = 0
        heap.root["nodes"] = []
        self.nodes = heap.root["nodes"]
        for _ in range(nodes):
            self.nodes.append(self.new())
        for node in self.nodes:
            for edge in edges:
                setattr(node, edge, self.any_node())

    def new(self) -> Node:
        self.made += 1
        return self.heap.new(Node, self.made, tags={"made": f"as number {self.made}"})

    def any_node(self) -> Node:
        node: Node = self.nodes[self.random.randrange(len(self.nodes))]
        return node

    def run(self, ops: int) -> None:
        for _ in range(ops):
            self.operate(self.random.randrange(8))

    def operate(self, what: int) -> None:
        if what < 4:
            self.any_node().count += 1
        elif what < 6:
            setattr(self.any_node(), self.random.choice(self.edges), self.any_node())
        elif what < 7:
            self.replace()
        else:
            self.make_chain()

    def replace(self) -> None:
        """The old node lets go of the others, or it would keep every node it ever knew."""
        place = self.random.randrange(len(self.nodes))
        before = self.nodes[place]
        self.nodes[place] = self.new()
        for edge in self.edges:
            setattr(self.nodes[place], edge, self.any_node())
            setattr(before, edge, None)

    def make_chain(self) -> None:
        last = None
        for _ in range(CHAIN_NODES):
            node = self.new()
            node.first = last
            last = node

    def remove(self, percent: int) -> None:
        """Nodes here and there become garbage, with nothing in their place."""
        kept = round(len(self.nodes) * (1 - percent / 100))
        self.nodes[:] = self.random.sample(list(self.nodes), kept)

    def digest(self) -> str:
        """Of all numbers and edges: whoever lost a node, or mixed two up, ends with another one."""
        text = hashlib.sha256()
        for node in self.nodes:
            ends = [getattr(node, edge) for edge in self.edges]
            numbers = [None if end is None else end.number for end in ends]
            line = (node.number, node.count, node.tags["made"], numbers)
            text.update(repr(line).encode())
        return text.hexdigest()


# --- experiments ----------------------------------------------------------------------------------

Collected = list[dh.CollectStats]
Policy = Callable[[dh.Heap, int], Collected]  # what is collected after step number so-and-so


def is_full_due(step: int) -> bool:
    return step % STEPS_PER_FULL == STEPS_PER_FULL - 1


def young_and_full(heap: dh.Heap, step: int) -> Collected:
    return [heap.collect("full" if is_full_due(step) else "young")]


def full_only(heap: dh.Heap, step: int) -> Collected:
    return [heap.collect()] if is_full_due(step) else []


def in_slices(heap: dh.Heap, step: int) -> Collected:
    """A full cycle that is never longer at work than a slice; the program goes on in between."""
    return [heap.collect(budget_ms=SLICE_MS)]


def by_itself(heap: dh.Heap, step: int) -> Collected:
    """The heap collects when it wants to; told by its callbacks."""
    return []


@dataclass(frozen=True)
class Experiment:
    name: str
    policy: Policy
    tracker: str = "auto"
    source: str = "watch"
    is_beside: bool = False  # full cycles in a thread, beside the program
    is_automatic: bool = False


EXPERIMENTS = (
    Experiment("kernel watch", young_and_full),
    Experiment("compare", young_and_full, tracker="compare"),
    Experiment("every page", young_and_full, source="everything"),
    Experiment("full only", full_only),
    Experiment("full, in slices", in_slices),
    Experiment("full, beside", full_only, is_beside=True),
    Experiment("automatic", by_itself, is_automatic=True),
)


@dataclass(frozen=True)
class Cycle:
    """One collection, or a slice of one. faults: of the process, in the step before it."""

    experiment: str
    step: int
    generation: str
    done: bool
    roots: int
    dirty_pages: int
    rescanned_cells: int
    marked_cells: int
    freed_cells: int
    freed_bytes: int
    rounds: int
    stops: int
    longest_stop_us: float
    total_us: float
    faults: int


@dataclass
class Result:
    experiment: str
    tracker: str
    cycles: list[Cycle]
    ops_per_s: float
    arena_bytes: int
    digest: str


class Laboratory:
    """One experiment under way: runs the program step by step and notes every cycle."""

    def __init__(self, experiment: Experiment, heap: dh.Heap, nodes: int, seed: int) -> None:
        self.experiment = experiment
        self.heap = heap
        self.cycles: list[Cycle] = []
        self.step = self.faults = 0
        heap.collector.automatic = False
        heap.collector.source = experiment.source
        self.program = Program(heap, nodes, seed)
        heap.commit()
        heap.collect()  # everything is old now
        if experiment.is_automatic:
            heap.collector.young_bytes = 64 * OPS_PER_STEP
            heap.collector.callbacks.append(self.hear)
            heap.collector.automatic = True

    def hear(self, phase: str, stats: dh.CollectStats | None) -> None:
        if phase == "stop" and stats is not None:
            self.note(stats)

    def note(self, stats: dh.CollectStats) -> None:
        self.cycles.append(
            Cycle(
                experiment=self.experiment.name,
                step=self.step,
                generation=stats.generation,
                done=stats.done,
                roots=stats.roots,
                dirty_pages=stats.dirty_pages,
                rescanned_cells=stats.rescanned_cells,
                marked_cells=stats.marked_cells,
                freed_cells=stats.freed_cells,
                freed_bytes=stats.freed_bytes,
                rounds=stats.rounds,
                stops=len(stats.stops_ns),
                longest_stop_us=stats.pause_ns / 1e3,
                total_us=stats.total_ns / 1e3,
                faults=self.faults,
            )
        )

    def run(self, steps: int) -> Result:
        began = time.perf_counter()
        for self.step in range(steps):
            faults_before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            with self.cycle_beside():
                self.program.run(OPS_PER_STEP)
            self.faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults_before
            if not self.experiment.is_beside:
                for stats in self.experiment.policy(self.heap, self.step):
                    self.note(stats)
            if self.step % STEPS_PER_COMMIT == STEPS_PER_COMMIT - 1:
                self.heap.commit()
        took_s = time.perf_counter() - began
        self.heap.collector.automatic = False
        return Result(
            experiment=self.experiment.name,
            tracker=self.heap.stats().tracker,
            cycles=self.cycles,
            ops_per_s=steps * OPS_PER_STEP / took_s,
            arena_bytes=self.heap.stats().arena_bytes,
            digest=self.program.digest(),
        )

    @contextmanager
    def cycle_beside(self) -> Iterator[None]:
        """A full cycle in another thread while the program goes on."""
        found: list[dh.CollectStats] = []

        def collect() -> None:
            found.append(self.heap.collect(concurrent=True))

        thread = None
        if self.experiment.is_beside and is_full_due(self.step):
            thread = threading.Thread(target=collect)
            thread.start()
        yield
        if thread is not None:
            thread.join()
            self.note(found[0])


def run_experiment(
    experiment: Experiment, directory: Path, nodes: int, steps: int, seed: int
) -> Result:
    path = directory / f"{experiment.name.replace(' ', '-')}.heap"
    with dh.open(path, tracker=experiment.tracker) as heap:
        result = Laboratory(experiment, heap, nodes, seed).run(steps)
        problems = heap.verify().problems
    assert not problems, problems[0]
    return result


# --- where new cells go ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Placement:
    """A heap with holes. New cells go to fresh pages, and to holes once a quarter is free."""

    removed_percent: int
    pages_per_commit: float
    rescanned_pages: float  # per young collection
    rescanned_cells: float
    grown_pages: int


def place_new_cells(removed: int, directory: Path, nodes: int, steps: int, seed: int) -> Placement:
    commits, youngs = [], []
    with dh.open(directory / f"holes-{removed}.heap") as heap:
        heap.collector.automatic = False
        program = Program(heap, nodes, seed, edges=())  # nothing but the list holds a node
        program.remove(removed)
        heap.collect()
        heap.commit()
        heap.collect()
        before_bytes = heap.stats().arena_bytes
        for step in range(steps):
            for _ in range(OPS_PER_STEP // 4):
                program.replace()
            youngs.append(heap.collect("young"))
            if step % STEPS_PER_COMMIT == STEPS_PER_COMMIT - 1:
                commits.append(heap.commit())
        grown_bytes = heap.stats().arena_bytes - before_bytes
    return Placement(
        removed_percent=removed,
        pages_per_commit=statistics.mean(commit.pages for commit in commits),
        rescanned_pages=statistics.mean(stats.dirty_pages for stats in youngs),
        rescanned_cells=statistics.mean(stats.rescanned_cells for stats in youngs),
        grown_pages=grown_bytes // 4096,
    )


# --- tables, files, plot --------------------------------------------------------------------------


def print_table(rows: list[dict[str, Any]]) -> None:
    cells = [
        [f"{v:,.1f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows
    ]
    lines = [list(rows[0]), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(rows[0]))]
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    print()


def summary(result: Result) -> list[dict[str, Any]]:
    """A row for each generation that was collected; counts are of one cycle, on average."""
    rows = []
    for generation in ("young", "full"):
        cycles = [cycle for cycle in result.cycles if cycle.generation == generation]
        if not cycles:
            continue
        stops = [cycle.longest_stop_us for cycle in cycles]
        rows.append(
            {
                "experiment": result.experiment,
                "generation": generation,
                "cycles": sum(cycle.done for cycle in cycles),
                "dirty pages": statistics.mean(cycle.dirty_pages for cycle in cycles),
                "rescanned": statistics.mean(cycle.rescanned_cells for cycle in cycles),
                "marked": statistics.mean(cycle.marked_cells for cycle in cycles),
                "freed": statistics.mean(cycle.freed_cells for cycle in cycles),
                "stop us": statistics.median(stops),
                "longest": max(stops),
                "total us": statistics.mean(cycle.total_us for cycle in cycles),
                "faults": statistics.mean(cycle.faults for cycle in cycles),
                "ops/s": f"{result.ops_per_s:,.0f}",
            }
        )
    return rows


def write_csv(path: Path, results: list[Result]) -> None:
    rows = [asdict(cycle) for result in results for cycle in result.cycles]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, results: list[Result], placements: list[Placement]) -> None:
    found = {
        "experiments": [asdict(result) for result in results],
        "placements": [asdict(placement) for placement in placements],
    }
    path.write_text(json.dumps(found, indent=1))


def plot(path: Path, results: list[Result], placements: list[Placement]) -> bool:
    """False where matplotlib is not installed."""
    try:
        from matplotlib import pyplot
    except ImportError:
        return False
    figure, (stops, work, places) = pyplot.subplots(1, 3, figsize=(14, 4), layout="constrained")
    for result in results:
        cycles = result.cycles
        stops.plot([c.step for c in cycles], [c.longest_stop_us for c in cycles], ".-")
        looked_at = [c.rescanned_cells + c.marked_cells for c in cycles]
        work.plot(looked_at, [c.total_us for c in cycles], ".")
    stops.set(yscale="log", xlabel="step", ylabel="us", title="longest stop of each cycle")
    stops.legend([result.experiment for result in results], fontsize=7)
    work.set(xscale="log", yscale="log", xlabel="cells marked or looked at again", ylabel="us")
    work.set_title("what a cycle costs in all")
    removed = [placement.removed_percent for placement in placements]
    places.plot(removed, [p.pages_per_commit for p in placements], "o-", label="pages per commit")
    places.plot(
        removed, [p.rescanned_pages for p in placements], "o-", label="pages per young collection"
    )
    places.set(xlabel="% of nodes removed before", title="where new cells go")
    places.legend(fontsize=7)
    figure.savefig(path)
    pyplot.close(figure)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="experiments whose name holds this")
    parser.add_argument("--csv", type=Path, help="a row for each cycle")
    parser.add_argument("--json", type=Path, help="everything")
    parser.add_argument("--plot", type=Path, help="a picture, with matplotlib")
    options = parser.parse_args()
    chosen = [e for e in EXPERIMENTS if options.only is None or options.only in e.name]
    with tempfile.TemporaryDirectory(prefix="gc-lab-") as folder:
        sizes = (Path(folder), options.nodes, options.steps, options.seed)
        results = [run_experiment(experiment, *sizes) for experiment in chosen]
        placements = [place_new_cells(removed, *sizes) for removed in REMOVED_PERCENT]
    assert len({result.digest for result in results}) == 1, "two experiments end differently"
    print(f"{options.nodes:,} nodes; {OPS_PER_STEP} operations to a step, {options.steps} steps")
    print_table([row for result in results for row in summary(result)])
    print(f"heaps with holes: {OPS_PER_STEP // 4} nodes replaced to a step; on average")
    print_table([asdict(placement) for placement in placements])
    if options.csv is not None:
        write_csv(options.csv, results)
    if options.json is not None:
        write_json(options.json, results, placements)
    if options.plot is not None and not plot(options.plot, results, placements):
        print("no plot: matplotlib is not installed")


if __name__ == "__main__":
    main()
