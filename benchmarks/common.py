"""What every benchmark shares: the header, fresh processes, statistics, tables, csv files.

The rules (docs and README quote only figures made under them): same work, same run; ratios before
bare seconds; bytes by the kernel's count and by file growth, memory as PSS, stops from outside.
"""

from __future__ import annotations

import argparse
import csv
import gc
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"

Row = dict[str, Any]


# --- command line and environment -----------------------------------------------------------------


def arguments(doc: str, parser: argparse.ArgumentParser | None = None) -> argparse.Namespace:
    """The options every benchmark has."""
    parser = parser or argparse.ArgumentParser()
    parser.description = doc
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="small sizes, seconds, rough figures")
    parser.add_argument("--dir", type=Path, help="where heaps and files go (default: temporary)")
    # A benchmark starts itself again with this to run one part in a clean process.
    parser.add_argument("--part", help=argparse.SUPPRESS)
    return parser.parse_args()


def header(title: str, packages: Sequence[str] = ()) -> Row:
    """Print and return where the figures come from."""
    import dirtyheap as dh

    versions = {name: importlib.metadata.version(name) for name in ("dirtyheap", *packages)}
    facts = {
        "benchmark": title,
        "kernel": platform.release(),
        "cpu": f"{os.cpu_count()} x {_cpu_name()}",
        "python": platform.python_version(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "tracker": next((probed.tracker for probed in dh.probe() if probed.works), "compare"),
    }
    print(f"\n## {title}")
    for name, value in list(facts.items())[1:]:
        print(f"{name:9}{value}")
    print(flush=True)
    return facts


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


@contextmanager
def work_directory(parent: Path | None) -> Iterator[Path]:
    """A directory on a disk where there is one: in memory, as /tmp may be, a sync costs nothing."""
    if parent is None and _is_memory(Path(tempfile.gettempdir())):
        parent = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="dirtyheap-bench-", dir=parent) as directory:
        yield Path(directory)


def _is_memory(path: Path) -> bool:
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    under = [(mount, kind) for mount, kind in mounts if path.resolve().is_relative_to(mount)]
    return max(under, key=lambda entry: len(entry[0]))[1] == "tmpfs"


def in_fresh_process(script: str, part: Row, timeout_s: float = 1800.0) -> Any:
    """Run one part of a benchmark in a new interpreter; returns what it passed to `hand_back`."""
    command = [sys.executable, script, "--part", json.dumps(part)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=timeout_s)
    if done.returncode != 0:
        raise RuntimeError(f"{Path(script).name} failed on {part}")
    return json.loads(done.stdout.splitlines()[-1])


def hand_back(result: Any) -> None:
    """The end of a part: its result is the last line it prints."""
    print(json.dumps(result), flush=True)


# --- measuring from outside -----------------------------------------------------------------------


def wchar_bytes() -> int:
    """Bytes this process has passed to write calls, by the kernel's count."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    raise RuntimeError("/proc/self/io has no wchar line")


def pss_bytes() -> int:
    """This process's share of physical memory."""
    gc.collect()
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/smaps_rollup has no Pss line")


def peak_rss_reset() -> int:
    """Forget the peak of resident memory; returns what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status_bytes("VmRSS")


def peak_rss_bytes() -> int:
    return _status_bytes("VmHWM")


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name} line")


def disk_bytes(path: Path) -> int:
    """Blocks that the file, or all files below the directory, occupy."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(p.stat().st_blocks * 512 for p in files)


# --- C helpers, compiled when a benchmark starts --------------------------------------------------


def compile_c(output: Path, sources: Iterable[Path], *flags: str) -> Path:
    """Build a helper with the C compiler the library itself was built with."""
    command = [_compiler(), "-std=gnu11", "-O2", "-o", output, *sources, *flags]
    subprocess.run([str(word) for word in command], check=True)
    return output


def has_header(name: str, *flags: str) -> bool:
    """Whether the C compiler finds a header: of a library that not everybody has."""
    command = [_compiler(), *flags, "-E", "-x", "c", "-include", name, "/dev/null"]
    return subprocess.run(command, capture_output=True).returncode == 0


def _compiler() -> str:
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise SystemExit("a C compiler is needed for this benchmark (gcc or cc)")
    return compiler


# --- results --------------------------------------------------------------------------------------


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """(median, smallest, largest)."""
    return statistics.median(values), min(values), max(values)


def print_table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Columns aligned, numbers to the right; a column that no row has is left out."""
    shown = [column for column in columns if any(row.get(column) is not None for row in rows)]
    cells = [[_cell(row.get(column)) for column in shown] for row in rows]
    widths = [max(len(c), *(len(line[i]) for line in cells)) for i, c in enumerate(shown)]
    print("  ".join(f"{column:>{width}}" for column, width in zip(shown, widths, strict=True)))
    for line in cells:
        print("  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)))
    print(flush=True)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 10 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def write_csv(name: str, facts: Row, rows: Sequence[Row]) -> Path:
    """benchmarks/results/<name>.csv: the header's facts as comments, then the rows."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", newline="") as file:
        for fact, value in facts.items():
            file.write(f"# {fact}: {value}\n")
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    print(f"written: {path.relative_to(HERE.parent)}", flush=True)
    return path


def read_csv(name: str) -> list[Row]:
    """The rows that write_csv wrote, as text; None where a row has no such column."""
    with (RESULTS / f"{name}.csv").open(newline="") as file:
        table = csv.DictReader(line for line in file if not line.startswith("#"))
        return [{column: cell or None for column, cell in row.items()} for row in table]


def mb(count: float) -> float:
    """Bytes as 10^6 bytes."""
    return count / 1e6


def judge(what: str, ratio: float, aim: float) -> None:
    """One line that compares a measured ratio with the aim of docs/design.md."""
    verdict = "meets" if ratio <= aim else "MISSES"
    print(f"{what}: {ratio:.3g} ({verdict} the aim, <= {aim:.3g})", flush=True)
