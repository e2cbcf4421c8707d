"""Every technique of write tracking over the same memory, in one run: the benchmark of the talk.

A C program (watch_techniques.c), built here from the sources of the core and the laboratory, keeps
one memory and lets the techniques watch it in turns. Two parts: what a first store, a look, and
scan and reset cost by share of written pages; and four emulated uses of GetWriteWatch, beside the
same work without a watch. The stores are made by C. Ratios are of one round; median and spread of
rounds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from common import (
    HERE,
    RESULTS,
    Row,
    arguments,
    compile_c,
    header,
    judge,
    print_table,
    read_csv,
    spread,
    work_directory,
    write_csv,
)

import dirtyheap as dh

SIZES_MB = "64,1024,8192"
PER_MILLION = 1_000_000
AIM_FIRST_STORE = 1 / 5  # of mprotect's
OURS, CLASSIC = "uffd", "mprotect"
SHARES_JUDGED = (10_000, 100_000)  # 1 and 10 %: enough pages, and scattered
COST_COLUMNS = [
    "MB",
    "written %",
    "technique",
    "first store ns",
    "least",
    "most",
    "look ns/page",
    "scan+reset ns/page",
    "least ",
    "most ",
    "of ours",
    "told",
    "mappings",
    "memory MB",
]
# What a use is, and how much memory it watches in MB.
USES = {
    "cards": ("a collector's cards: 2000 stores, mostly into 64 pages of 256 MB; trace them", 256),
    "game": ("a game's frame: 64 textures of 256 KB asked one by one, 8 written", 16),
    "code": ("64 MB of code, read all the time, a page patched in every tenth interval", 64),
    "checkpoint": ("a copy that follows 256 MB of which 1 % is written", 256),
}
WORK_COLUMNS = ["use", "technique", "cycle us", "least", "most", "of ours"]

Costs = dict[tuple[int, str, int], list[dict[str, float]]]  # (MB, technique, share): rounds
Works = dict[str, dict[str, list[float]]]  # use: technique: ns of a cycle, one a run
Refused = dict[str, list[str]]  # technique and reason: where


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default=SIZES_MB, help="MB, powers of two (default %(default)s)")
    parser.add_argument("--only", default="", help="techniques, with commas between")
    parser.add_argument("--redraw", action="store_true", help="the picture, of the last results")
    options = arguments(__doc__ or "", parser)
    if options.redraw:
        draw(read_csv("watch"), RESULTS / "watch.svg")
        return 0
    names = options.only.split(",") if options.only else [t.name for t in dh.lab.techniques()]
    facts = header("write tracking, technique by technique", ["matplotlib"])
    sizes = [16, 64] if options.quick else [int(size) for size in options.sizes.split(",")]
    refused: Refused = defaultdict(list)
    with work_directory(options.dir) as directory:
        program = build(directory / "watch_techniques")
        costs = {
            key: rounds
            for size in sizes
            for key, rounds in measure(program, size, options.quick, names, refused).items()
        }
        works = {use: emulate(program, use, options.quick, names, refused) for use in USES}
    rows = cost_rows(costs)
    print_table(rows, COST_COLUMNS)
    print(
        "first store: ns for one byte into each written page, the first time; told: pages reported"
    )
    print("of pages written (more than 1: a technique that lost count); ours: uffd\n")
    work_rows = [row for use in USES for row in use_rows(use, works[use])]
    print_table(work_rows, WORK_COLUMNS)
    for use, (text, _) in USES.items():
        print(f"{use}: {text}")
    for reason, places in refused.items():
        print(f"not measured ({', '.join(dict.fromkeys(places))}): {reason}")
    print()
    judge_first_store(costs)
    if not options.quick and not options.only:
        write_csv("watch", facts, rows + work_rows)
        draw(rows + work_rows, RESULTS / "watch.svg")
    return 0


def build(program: Path) -> Path:
    native = HERE.parent / "native"
    sources = [*sorted((native / "src").glob("*.c")), *sorted((native / "lab").glob("*.c"))]
    main_source = HERE / "watch_techniques.c"
    return compile_c(program, [main_source, *sources], "-D_GNU_SOURCE", "-pthread")


def lines_of(program: Path, words: list[Any], refused: Refused) -> list[list[str]]:
    """What the program prints, word by word; refusals go into `refused`."""
    command = [str(program), *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    lines = []
    for line in done.stdout.splitlines():
        kind, name, rest = line.split(maxsplit=2)
        if kind == "refused":
            refused[f"{name}: {rest}"].append(f"{words[0]} {words[1]} MB")
        else:
            lines.append([name, *rest.split()])
    return lines


def rounds_for(size_mb: int, is_quick: bool) -> int:
    if is_quick:
        return 3
    return 15 if size_mb <= 64 else 5 if size_mb <= 1024 else 3


def measure(
    program: Path, size_mb: int, is_quick: bool, names: list[str], refused: Refused
) -> Costs:
    columns = ("store", "plain", "get", "take", "told", "mappings", "memory", "arm")
    costs: Costs = defaultdict(list)
    words = ["cost", size_mb, rounds_for(size_mb, is_quick), *names]
    for name, _round, share, written, *figures in lines_of(program, words, refused):
        row = dict(zip(columns, map(float, figures), strict=True))
        row["written"] = float(written)
        costs[size_mb, name, int(share)].append(row)
    return costs


def emulate(
    program: Path, use: str, is_quick: bool, names: list[str], refused: Refused
) -> dict[str, list[float]]:
    runs, budget_ms = (1, 100) if is_quick else (5, 500)
    megabytes = 16 if is_quick else USES[use][1]
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(runs):
        words = [use, megabytes, budget_ms, "nothing", *names]
        for name, cycle_ns, *_ in lines_of(program, words, refused):
            found[name].append(float(cycle_ns))
    return found


# --- tables ---------------------------------------------------------------------------------------


def cost_rows(costs: Costs) -> list[Row]:
    rows: list[Row] = []
    for (size_mb, name, share), rounds in sorted(costs.items(), key=lambda entry: entry[0][::2]):
        pages = size_mb << 8
        ours = costs.get((size_mb, OURS, share))
        store, least, most = spread([r["store"] for r in rounds])
        take, take_least, take_most = spread([r["take"] / pages for r in rounds])
        row: Row = {
            "MB": size_mb,
            "written %": f"{share * 100 / PER_MILLION:g}",
            "technique": name,
            "look ns/page": spread([r["get"] / pages for r in rounds])[0],
            "scan+reset ns/page": take,
            "least ": take_least,
            "most ": take_most,
            "told": None,
            "mappings": int(max(r["mappings"] for r in rounds)),
            "memory MB": max(r["memory"] for r in rounds) / 1e6,
        }
        if ours is not None:
            row["of ours"] = spread(
                [r["take"] / o["take"] for r, o in zip(rounds, ours, strict=False)]
            )[0]
        if share > 0:
            row |= {"first store ns": store, "least": least, "most": most}
            row["told"] = max(r["told"] / r["written"] for r in rounds)
        rows.append(row)
    return rows


def use_rows(use: str, found: dict[str, list[float]]) -> list[Row]:
    rows: list[Row] = []
    for name, cycles in found.items():
        median, least, most = spread(cycles)
        row: Row = {
            "use": use,
            "technique": name,
            "cycle us": median / 1e3,
            "least": least / 1e3,
            "most": most / 1e3,
        }
        if OURS in found:
            row["of ours"] = ratio(cycles, found[OURS])
        rows.append(row)
    return rows


def ratio(cycles: list[float], others: list[float]) -> float:
    """Median of the ratios of the same run."""
    return spread([a / b for a, b in zip(cycles, others, strict=True)])[0]


def judge_first_store(costs: Costs) -> None:
    for size_mb in sorted({key[0] for key in costs}):
        for share in SHARES_JUDGED:
            ours, classic = costs.get((size_mb, OURS, share)), costs.get((size_mb, CLASSIC, share))
            if not ours or not classic:
                print(f"{OURS} or {CLASSIC} was not measured: nothing to judge")
                return
            if max(r["told"] / r["written"] for r in classic) > 1:
                print(f"{size_mb} MB, {share / 1e4:g} %: {CLASSIC} ran out of mappings and stopped")
                continue
            ratios = [o["store"] / c["store"] for o, c in zip(ours, classic, strict=True)]
            median, least, most = spread(ratios)
            what = f"{size_mb} MB, {share / 1e4:g} % written, {least:.2g} to {most:.2g}"
            judge(f"first store, {OURS} / {CLASSIC} ({what})", median, AIM_FIRST_STORE)


# --- the picture ----------------------------------------------------------------------------------


def draw(rows: list[Row], path: Path) -> None:
    """Of the rows as they are in the results' file, so that it can be drawn again from there."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "dirtyheap"
    from matplotlib import pyplot

    costs = [row for row in rows if row.get("MB")]
    sizes = {int(row["MB"]) for row in costs}
    size_mb = 1024 if 1024 in sizes else max(sizes)
    costs = [row for row in costs if int(row["MB"]) == size_mb]
    colours = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(r["technique"] for r in costs))}
    figure, axes = pyplot.subplots(1, 3, figsize=(14, 5), layout="constrained")
    share = f"{SHARES_JUDGED[0] * 100 / PER_MILLION:g}"
    draw_first_store(axes[0], [row for row in costs if row["written %"] == share], colours)
    axes[0].set_title(f"first store to a page ({size_mb} MB, {share} % written)", fontsize=10)
    draw_scan(axes[1], costs, colours)
    axes[1].set_title(f"scan and reset ({size_mb} MB)", fontsize=10)
    draw_uses(axes[2], [row for row in rows if row.get("use")], colours)
    axes[2].set_title("emulated uses of GetWriteWatch", fontsize=10)
    patches = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()]
    figure.legend(patches, colours, loc="outside lower center", ncols=len(colours), frameon=False)
    figure.suptitle(f"{len(colours)} techniques of write tracking; lower is better", fontsize=11)
    figure.savefig(path, metadata={"Date": None})
    print(f"written: {path.relative_to(HERE.parent)}", flush=True)


def draw_first_store(axis: Any, rows: list[Row], colours: dict[str, str]) -> None:
    """A bar for each technique from the top, its median written behind it."""
    for place, row in enumerate(rows):
        median, least, most = (float(row[c]) for c in ("first store ns", "least", "most"))
        error = [[median - least], [most - median]]
        axis.barh(place, median, xerr=error, color=colours[row["technique"]], ecolor="dimgrey")
        axis.annotate(
            f"{median:,.0f}", (most, place), (5, 0), textcoords="offset points", va="center"
        )
    axis.set(xscale="log", xlabel="ns, median and range of the rounds")
    axis.set_xlim(10, 8 * axis.get_xlim()[1])  # room for the last figure
    axis.set_yticks(range(len(rows)), [row["technique"] for row in rows])
    axis.invert_yaxis()


def draw_scan(axis: Any, rows: list[Row], colours: dict[str, str]) -> None:
    """A line for each technique; the shares stand at equal distances, as 0 is one of them."""
    shares = sorted({str(row["written %"]) for row in rows}, key=float)
    for name, colour in colours.items():
        by_share = {
            row["written %"]: float(row["scan+reset ns/page"])
            for row in rows
            if row["technique"] == name
        }
        axis.plot([by_share.get(share) for share in shares], "o-", color=colour)
    axis.set(yscale="log", xlabel="pages written, %", ylabel="ns per page watched")
    axis.set_xticks(range(len(shares)), shares)


def draw_uses(axis: Any, rows: list[Row], colours: dict[str, str]) -> None:
    """A column of points for each use: bars would need a zero, which this scale has not."""
    uses = list(dict.fromkeys(row["use"] for row in rows))
    names = ["nothing", *colours]
    for row in rows:
        place = uses.index(row["use"]) + 0.07 * (names.index(row["technique"]) - len(names) / 2)
        marker, colour = ("x", "black") if row["technique"] == "nothing" else ("o", None)
        axis.plot(place, float(row["of ours"]), marker, color=colour or colours[row["technique"]])
    axis.axhline(1, color="grey", linewidth=0.8)
    axis.set(yscale="log", ylabel=f"time of a cycle, {OURS} = 1 (x: without a watch)")
    axis.set_xticks(range(len(uses)), uses)
    axis.set_xlim(-0.5, len(uses) - 0.5)


if __name__ == "__main__":
    sys.exit(main())
