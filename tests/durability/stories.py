"""Recorded runs of workload.py: the events, and what the directory really was after each life."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recording import HERE, Event, read_log, run_recorded
from replaying import HEAP_NAME


@dataclass(frozen=True, slots=True)
class Life:
    """One process's share of a story."""

    name: str
    exit_code: int
    events_end: int  # how many of the story's events had happened when it ended
    files: dict[str, bytes | None]  # below the recorded directory; None: a directory


@dataclass(frozen=True, slots=True)
class Story:
    """All events in order, and the lives they belong to."""

    events: list[Event]
    lives: list[Life]


def record_story(
    library: Path, directory: Path, lives: list[list[str]], **environment: str
) -> Story:
    """Run the lives one after the other on one heap."""
    root, log = directory / "root", directory / "log"
    root.mkdir()
    told: list[Life] = []
    for life in lives:
        arguments = [str(HERE / "workload.py"), str(root / HEAP_NAME), *life]
        code = run_recorded(library, root, log, arguments, **environment)
        told.append(Life(" ".join(life), code, len(read_log(log)), files_below(root)))
    return Story(read_log(log), told)


def files_below(root: Path) -> dict[str, bytes | None]:
    """Every file and directory with its bytes."""
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes()
        for path in sorted(root.rglob("*"))
    }
