"""In every commit and fold, data reaches the disk before the record that names it.

What test_replay.py shows by example is shown here of every call in the record, by the order that a
power cut needs:

- LMDB's meta page is written only when everything written before it is synced: the pages of
  data.mdb, the base files, and the directories that name new files;
- when a verb returns, the meta page is synced too, and so is the directory entry of data.mdb.

Base files of a fold that runs beside commits may wait until a row of the index names them.

The negative controls see the same check fail.
"""

from __future__ import annotations

import pytest
from recording import Event, Op
from replaying import VOLATILE
from sabotage import BASE_DIRECTORY, INDEX_NAME, SABOTAGES
from stories import Story

META_PAGES_BYTES = 2 * 4096  # LMDB's two meta pages open data.mdb
# Made again at each opening, no part of the state.
LOCKS = VOLATILE | {"heap/writer.lock"}

pytestmark = pytest.mark.timeout(120)


def is_meta_write(event: Event) -> bool:
    """A short write into one of the meta pages; making the file writes both, whole."""
    is_there = event.offset < META_PAGES_BYTES and len(event.data) < 4096
    return event.op is Op.WRITE and event.name == INDEX_NAME and is_there


class Unsynced:
    """What could be missing after a power cut now, and what is wrong with that."""

    def __init__(self) -> None:
        self.bytes: dict[str, int] = {}  # of files: written since the last sync
        self.names: set[str] = set()  # created or renamed, directory not synced since
        self.named: set[str] = set()  # base files that stand in what was written to the index
        self.errors: list[str] = []
        self.meta_writes = 0

    def apply(self, event: Event) -> None:
        if event.path in LOCKS:
            return
        if event.op is Op.MARK:
            self.hear(event.path)
        if event.op is Op.WRITE and event.name == INDEX_NAME:
            self.named |= {path for path in self.base_files() if base_name(path) in event.data}
        if is_meta_write(event):
            self.meta_writes += 1
            self.expect_none("the meta page is written")
        if event.op in (Op.WRITE, Op.TRUNCATE) and not event.is_synchronous:
            self.bytes[event.path] = self.bytes.get(event.path, 0) + len(event.data)
        elif event.op in (Op.CREATE_FILE, Op.CREATE_DIRECTORY):
            self.names.add(event.path)
        elif event.op is Op.RENAME:
            self.names.add(event.other_path)
        elif event.op is Op.UNLINK:
            self.bytes.pop(event.path, None)
            self.names.discard(event.path)
        elif event.op is Op.SYNC:
            self.bytes.pop(event.path, None)
            self.names = {name for name in self.names if parent(name) != event.path}

    def base_files(self) -> set[str]:
        """Of which something is missing."""
        paths = self.bytes.keys() | self.names
        return {path for path in paths if parent(path).endswith(BASE_DIRECTORY)}

    def hear(self, mark: str) -> None:
        word, _, state = mark.partition(" ")
        if word == "begin":
            self.meta_writes = 0
        elif word == "done":
            if self.meta_writes == 0:
                self.errors.append(f"{state} wrote no meta page")
            self.expect_none(f"{state} is acknowledged", is_end=True)

    def expect_none(self, moment: str, *, is_end: bool = False) -> None:
        waiting = self.base_files() - self.named
        for path, size in self.bytes.items():
            if path in waiting:
                continue
            self.errors.append(f"{moment} with {size} unsynced bytes in {path}")
        for path in self.names - waiting:
            # The names of the heap and of data.mdb may wait until the first commit returns.
            if is_end or parent(path).endswith(BASE_DIRECTORY):
                self.errors.append(f"{moment} with the name {path} not synced")


def parent(path: str) -> str:
    return path.rpartition("/")[0]


def base_name(path: str) -> bytes:
    return path.rpartition("/")[2].encode()


def errors_of(events: list[Event]) -> list[str]:
    """Walk through the record; an empty list means that any power cut is survived."""
    unsynced = Unsynced()
    for event in events:
        unsynced.apply(event)
    return unsynced.errors


def test_data_is_synced_before_the_record_that_names_it(story: Story) -> None:
    assert errors_of(story.events) == []


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("no_base_sync", "unsynced bytes in heap/base/"),
        ("no_directory_sync", "not synced"),
        ("no_index_sync", "unsynced bytes in heap/data.mdb"),
        ("no_synchronous_meta", "is acknowledged with"),
        ("acknowledged_early", "wrote no meta page"),
    ],
)
def test_the_check_fails_when_the_library_has_a_mistake(
    story: Story, name: str, complaint: str
) -> None:
    errors = errors_of(SABOTAGES[name](story.events))
    assert any(complaint in error for error in errors), errors
