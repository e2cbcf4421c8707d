"""Deleting the records and deltas that no kept commit needs: in bunches, with later commits.

Not when they are given up, and not with every commit. What one transaction frees is one entry of
the engine's free list; whoever takes pages from a large entry, or from one of many small ones,
writes more of that list than of what he came to store. Bunches of this size keep it to one page.
Oldest first; must never delete what retention.py says is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import rows
from .retention import Needs

if TYPE_CHECKING:
    import lmdb

    from .index import Databases

# Of so many commits one deletes so many others, whatever they hold: no fewer go than come.
_BUNCH: Final = 64
# A commit of more than this deletes at once: its own pages outweigh those of the list.
_LARGE_BYTES: Final = 64 << 10
_STEPS_MAX: Final = 16 * _BUNCH  # past what a tag keeps


def is_due(commit: int, written_bytes: int) -> bool:
    """Whether this commit deletes a bunch."""
    return commit % _BUNCH == 0 or written_bytes > _LARGE_BYTES


def delete_some(txn: lmdb.Transaction, databases: Databases, needs: Needs, first: int) -> int:
    """Delete a bunch of commits that are not needed, from ``first`` on; returns where to go on:
    ``needs.first_of_last`` when nothing is left."""
    cursor = txn.cursor(db=databases.commits)
    more, deleted, end = cursor.set_range(rows.commit_key(first)), 0, needs.first_of_last
    commit = first
    for _ in range(_STEPS_MAX):
        commit = rows.commit_of_key(bytes(cursor.key())) if more else end
        if commit >= end:
            return end
        if deleted == _BUNCH:
            return commit
        if needs.has_record(commit):
            more = cursor.next()
            continue
        delete_chunks(txn, databases, commit)
        deleted += 1
        # Goes on to the next one; behind the last it has no key.
        more = cursor.delete() and cursor.key() != b""
    return commit + 1


def delete_chunks(txn: lmdb.Transaction, databases: Databases, commit: int) -> None:
    """Delete the chunks of one commit."""
    cursor = txn.cursor(db=databases.deltas)
    more = cursor.set_range(rows.delta_key(commit, 0))
    while more and rows.commit_of_delta_key(bytes(cursor.key())) == commit:
        more = cursor.delete() and cursor.key() != b""
