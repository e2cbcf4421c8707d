"""The contract of a write watch, clause by clause, on every technique of the laboratory.

The clauses are those of ``dh.WriteWatch`` (tests/watch/contract.py). What a technique cannot do is
a row of CANNOT with the reason, and the clause must fail as the row says; docs/write-watch.md has
the same table for readers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contract import CANNOT as CANNOT_OF_SAFE
from contract import CLAUSES
from helpers import seeded

import dirtyheap as dh

LABORATORY = [technique for technique in dh.lab.techniques() if not technique.for_heaps]

pytestmark = pytest.mark.timeout(120)

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "write-watch.md"
Row = tuple[type[BaseException], str]

_BYTES: Row = (AssertionError, "it looks at bytes: a write that leaves them as they were is none")
_REFUSED: Row = (OSError, "the kernel's own store into a protected page fails: EFAULT")
_FAILS: Row = (AssertionError, "process_vm_writev into a protected page fails: EFAULT")
_UNSEEN: Row = (AssertionError, "it waits for stores through this mapping, and there is none")
_SHARED: Row = (dh.TrackerError, "shared memory (as mmap(-1) gives) has no older image in a child")
_SHARED_OPEN: Row = (BufferError, "the same; the mapping cannot be closed while the error is alive")
_WRITABLE_AGAIN: Row = (AssertionError, "whoever changes the protection takes the technique away")
_READ_ERROR: Row = (OSError, "/proc/pid/mem meets the protected page: EIO")
_TWO_CALLS: Row = (AssertionError, "a write between the reading of the bits and their clearing")

_OF_BYTES = ("the_same_bytes_written_again_are_told", "a_write_that_was_undone_is_told")
_OF_SYSTEM_CALLS = (
    "a_short_read_tells_what_it_brought",
    "a_read_is_told",
    "a_readv_is_told",
    "a_recv_is_told",
    "a_direct_read_is_told",
)
_OF_OTHER_WAYS = (
    "a_page_given_back_is_told",
    "a_write_through_another_mapping_is_told",
    "a_private_page_given_back_to_its_file_is_told",
    "a_write_to_the_file_of_a_private_mapping_is_told",
)

CANNOT: dict[str, dict[str, Row]] = {
    "hash": dict.fromkeys(_OF_BYTES, _BYTES),
    "soft-dirty": {
        **dict.fromkeys(_OF_OTHER_WAYS, _UNSEEN),
        "a_write_beside_a_get_with_reset_is_told": _TWO_CALLS,
    },
    "mprotect": {
        **dict.fromkeys(_OF_SYSTEM_CALLS, _REFUSED),
        **dict.fromkeys(_OF_OTHER_WAYS, _UNSEEN),
        "a_process_vm_writev_is_told": _FAILS,
        "a_debuggers_write_is_told": _UNSEEN,
        "protection_changes_are_no_writes": _WRITABLE_AGAIN,
    },
    "uffd-sync": {
        **dict.fromkeys(_OF_SYSTEM_CALLS, _REFUSED),
        **dict.fromkeys(_OF_OTHER_WAYS, _UNSEEN),
        "a_process_vm_writev_is_told": _FAILS,
        "a_debuggers_write_is_told": _READ_ERROR,
    },
    "fork": {
        **dict.fromkeys(_OF_BYTES, _BYTES),
        "a_new_region_has_no_written_pages": _SHARED,
        "watches_are_independent": _SHARED,
        "a_write_through_another_mapping_is_told": _SHARED_OPEN,
        "a_write_to_the_file_of_a_private_mapping_is_told": _UNSEEN,
    },
}


def opener(technique: str) -> Callable[[Any], dh.WriteWatch]:
    return lambda memory: dh.lab.watch(memory, technique)


@pytest.mark.parametrize("name", CLAUSES)
@pytest.mark.parametrize("technique", [t.name for t in LABORATORY if t.works])
def test_clause(name: str, technique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random.seed(seeded().random())
    monkeypatch.chdir(tmp_path)
    check = CLAUSES[name].check
    row = CANNOT[technique].get(name)
    if row is None:
        check(opener(technique))
        return
    with pytest.raises(row[0]):  # the row is true
        check(opener(technique))


def test_the_table_speaks_of_clauses_and_techniques_that_exist() -> None:
    assert set(CANNOT) == {technique.name for technique in LABORATORY}
    for rows in CANNOT.values():
        assert rows.keys() <= CLAUSES.keys()


# --- docs/write-watch.md --------------------------------------------------------------------------


def table_rows(head: str) -> list[list[str]]:
    """The cells of the table in docs/write-watch.md that begins so."""
    lines = iter(DOCUMENT.read_text(encoding="utf-8").splitlines())
    assert head in lines, "the table is gone"
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def test_the_document_says_what_the_techniques_say() -> None:
    expected = [
        [
            f"`{technique.name}`{'' if technique.for_heaps else ' (laboratory)'}",
            technique.idea,
            technique.cannot_see,
            technique.breaks,
        ]
        for technique in dh.lab.techniques()
    ]
    assert table_rows("| technique | how | cannot see | breaks |") == expected


def test_the_document_has_every_clause_that_a_technique_fails() -> None:
    names = [technique.name for technique in dh.lab.techniques()]
    failing = {(name, clause) for name, rows in CANNOT.items() for clause in rows}
    failing |= set(CANNOT_OF_SAFE)
    expected = []
    for clause in CLAUSES:
        losers = [f"`{name}`" for name in names if (name, clause) in failing]
        if losers:
            expected.append([CLAUSES[clause].text, ", ".join(losers)])
    assert table_rows("| clause | techniques that fail it |") == expected
