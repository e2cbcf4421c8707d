"""What the verbs of a heap return: plain frozen records, with units in the names or below.

Nothing here computes; nothing here imports the compiled module.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Commit:
    """One durable state of a heap.

    Attributes:
        id: dense, from 1; 0 is the empty heap before its first commit.
        parent: id of the commit before.
        time: seconds since the epoch when the commit was made.
        note: the text given to :meth:`Heap.commit`.
        pages: page entries stored, pages of the allocation table included.
        bytes_changed: bytes that differ from the commit before, in whole 8-byte words.
        bytes_written: bytes handed to the operating system.
        pause_ns: how long every thread of the application was stopped.
        total_ns: from the call to the return.
        tags: its names, when the commit comes from the heap's history.

    Bytes written and times are those of the call that made the commit; in the history they are 0.
    """

    id: int
    parent: int
    time: float
    note: str
    pages: int = 0
    bytes_changed: int = 0
    bytes_written: int = 0
    pause_ns: int = 0
    total_ns: int = 0
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two commits.

    Attributes:
        kind: ``"added"``, ``"removed"``, ``"changed"`` or ``"moved"``.
        path: where, as one would write it: ``root['users'][17].name``; the element of a set in
            braces; bytes of a buffer as a slice. In the older commit for what was removed or moved,
            else in the newer.
        before, after: short texts of what was there and what is; of a move, ``after`` is the new
            path; empty where there was, or is, nothing.
    """

    kind: str
    path: str
    before: str
    after: str

    def __str__(self) -> str:
        """On one line."""
        if self.kind == "added":
            return f"added {self.path}: {self.after}"
        if self.kind == "removed":
            return f"removed {self.path}: {self.before}"
        if self.kind == "moved":
            return f"moved {self.path} -> {self.after}"
        return f"changed {self.path}: {self.before} -> {self.after}"


@dataclass(frozen=True, slots=True)
class Diff:
    """What differs between two commits.

    Attributes:
        before, after: ids of the commits; 0: the empty heap.
        pages: pages of the arena whose committed bytes differ.
        bytes: of these, bytes that differ, in whole 8-byte words.
        changes: what differs in containers, at most as many as were asked for.
        more: how many changes are not listed.
    """

    before: int
    after: int
    pages: int
    bytes: int
    changes: tuple[Change, ...]
    more: int

    def __bool__(self) -> bool:
        """Whether any container differs."""
        return bool(self.changes) or self.more > 0


@dataclass(frozen=True, slots=True)
class Pending:
    """What a commit would store now: ``pages`` that differ, ``bytes`` in whole 8-byte words."""

    pages: int
    bytes: int


@dataclass(frozen=True, slots=True)
class CollectStats:
    """One collection: what it kept, what it freed, how long it stopped the application.

    Attributes:
        live_cells: that a full collection left; a young one does not count what was old.
        freed_pages: pages that hold nothing any more.
        released_pages: of such, given back to the kernel.
        roots: the root and live Python references.
        pause_ns: the longest of ``stops_ns``.
        generation: "young" or "full".
        done: False while ``collect(budget_ms=...)`` has more to do; the counts are those so far.
        dirty_pages: written since the last collection, and, of one in steps, during it.
        rescanned_cells: marked cells on these, looked through for what is not marked yet.
        marked_cells: for a young collection only what was new.
        rounds: of re-marking from written pages, beside the application.
        stops_ns: how long the application was stopped, each time.
        total_ns: from beginning to end.
    """

    live_cells: int
    freed_cells: int
    freed_bytes: int
    freed_pages: int
    released_pages: int
    roots: int
    pause_ns: int
    generation: str
    done: bool
    dirty_pages: int
    rescanned_cells: int
    marked_cells: int
    rounds: int
    stops_ns: tuple[int, ...]
    total_ns: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong with a heap.

    Attributes:
        path: what is damaged: by how it is reached from the root (``root['users'][17]['name']``),
            or a file or row of the heap's directory (``base/...``, ``deltas[12]``).
        what: in a few words.
        where: page and offset, chunk, or extent.
    """

    path: str
    what: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.what}" + (f" ({self.where})" if self.where else "")


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What :meth:`Heap.verify` or :func:`verify` found.

    Attributes:
        problems: the first of them; empty in a sound heap.
        problems_count: all of them.
        containers, cells: reached from the root and from containers that Python holds.
        unreachable_cells, unreachable_bytes: allocated and not reached: no problem, a collection
            frees them.
        pages: that hold something.
        commits: that can be opened.
        bytes: of files and deltas that were read and held against their checksums.
        duration_ns: how long it took.
    """

    problems: tuple[Problem, ...]
    problems_count: int
    containers: int
    cells: int
    unreachable_cells: int
    unreachable_bytes: int
    pages: int
    commits: int
    bytes: int
    duration_ns: int

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return self.problems_count == 0

    @property
    def first_problem(self) -> str:
        """The first problem in one line; empty when there is none."""
        return str(self.problems[0]) if self.problems else ""


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of a heap that was made.

    Attributes:
        path: the copy's directory.
        commit: its newest commit, 0 if there is none.
        base_files: files copied beside the index.
        bytes: of all files.
    """

    path: Path
    commit: int
    base_files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class HeapStats:
    """The state of an open heap.

    Attributes:
        tracker: name of the mechanism that finds written pages.
        tracker_reason: why a better one was passed over; empty when none is better.
        proof: whether every commit hashes every page (``dh.open(proof=True)``).
        capacity_bytes: address space reserved.
        arena_bytes: address space used so far (high-water mark).
        free_bytes: of these, in pages that hold nothing.
        allocated_bytes: handed out to objects.
        handles: containers that Python holds.
        exported_views: memoryviews and arrays over buffers.
        overlay_pages, overlay_bytes: committed pages newer than their base file, and the memory
            their images take.
        base_bytes: in mapped base files (page cache, not private memory).
        delta_bytes: of deltas in the store that a fold would merge.
        private_bytes: memory of the heap's own: pages of the arena that some commit found written
            since they were last in a base file, and ``overlay_bytes``. The rest of the arena is
            the page cache's, or was never touched.
        commit: id of the last commit.
    """

    tracker: str
    tracker_reason: str
    proof: bool
    capacity_bytes: int
    arena_bytes: int
    free_bytes: int
    allocated_bytes: int
    handles: int
    exported_views: int
    overlay_pages: int
    overlay_bytes: int
    base_bytes: int
    delta_bytes: int
    private_bytes: int
    commit: int
