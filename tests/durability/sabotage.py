"""Negative controls: a record as a library with a mistake in it would have left it.

Each takes the events of the real library and returns those of one that leaves a step out, or does
two in the wrong order. Whoever checks records must find every one of them guilty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from recording import Event, Op

INDEX_NAME = "data.mdb"
BASE_DIRECTORY = "base"

Sabotage = Callable[[list[Event]], list[Event]]


def _directories(events: list[Event]) -> set[int]:
    return {event.inode for event in events if event.op is Op.CREATE_DIRECTORY}


def _is_base_file(event: Event) -> bool:
    return event.path.split("/")[-2:-1] == [BASE_DIRECTORY]


def no_base_sync(events: list[Event]) -> list[Event]:
    """Base files are not synced."""
    return [e for e in events if not (e.op is Op.SYNC and _is_base_file(e))]


def no_directory_sync(events: list[Event]) -> list[Event]:
    """Directories are not synced, the one above the heap neither."""
    directories = _directories(events)
    return [e for e in events if not (e.op is Op.SYNC and (not e.path or e.inode in directories))]


def no_index_sync(events: list[Event]) -> list[Event]:
    """The engine's data pages are not synced before its meta page is."""
    return [e for e in events if not (e.op is Op.SYNC and e.name == INDEX_NAME)]


def no_synchronous_meta(events: list[Event]) -> list[Event]:
    """The engine's meta page is written, and nobody waits for the disk."""
    return [replace(e, is_synchronous=False) for e in events]


def record_before_base(events: list[Event]) -> list[Event]:
    """The record that names base files is written first, then the files."""
    directories = _directories(events)
    result: list[Event] = []
    held: list[Event] = []
    for event in events:
        is_of_base = _is_base_file(event) and event.op in (Op.CREATE_FILE, Op.WRITE, Op.SYNC)
        is_sync = event.op is Op.SYNC and event.inode in directories
        if is_of_base or (held and is_sync and event.name == BASE_DIRECTORY):
            held.append(event)
            continue
        result.append(event)
        if held and event.is_synchronous and event.name == INDEX_NAME:
            result += held
            held = []
    return result + held


def acknowledged_early(events: list[Event]) -> list[Event]:
    """The caller is told that a commit is done before it is."""
    result: list[Event] = []
    for event in events:
        word, _, state = event.path.partition(" ")
        if event.op is Op.MARK and word == "done":
            continue
        result.append(event)
        if event.op is Op.MARK and word == "begin":
            result.append(replace(event, path=f"done {state}"))
    return result


SABOTAGES: dict[str, Sabotage] = {
    function.__name__: function
    for function in (
        no_base_sync,
        no_directory_sync,
        no_index_sync,
        no_synchronous_meta,
        record_before_base,
        acknowledged_early,
    )
}
