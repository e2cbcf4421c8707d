"""What Heap.census(), why() and growth() return: frozen records, which print as tables.

Nothing here imports the compiled module; :mod:`dirtyheap.surveys` makes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .tables import columns, size

__all__ = [
    "CellSize",
    "Census",
    "ContainerGrowth",
    "Growth",
    "Step",
    "TypeCount",
    "TypeGrowth",
    "Why",
]


def _type_text(kind: str, type: str) -> str:
    return f"record {type}" if kind == "record" and type != "record" else type


# --- census ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TypeCount:
    """Objects of one type.

    Attributes:
        kind: ``"dict"``, ``"list"``, ``"set"``, ``"deque"``, ``"sorted_dict"``, ``"buffer"``,
            ``"array"``, ``"record"``; of values, which belong to one slot each, ``"str"``,
            ``"bytes"``, ``"int"``, ``"float"``, ``"tuple"``, ``"frozenset"``, ``"packed"``; of what
            the heap keeps for itself ``"shape"`` (keys that dicts share), ``"record_class"``,
            ``"heap_table"``; their texts are counted as ``"str"``.
        type: the same, but of a record the name of its class, and of a packed value its type
            (``"datetime"``, ``"Decimal"``, ...; ``"registered"`` for classes of a program).
        objects: how many.
        cells: pieces of memory that they consist of. A container's are its head and all that it
            finds its slots with, not the values in the slots.
        bytes: room of these cells, with what is not used of it.
    """

    kind: str
    type: str
    objects: int
    cells: int
    bytes: int


@dataclass(frozen=True, slots=True)
class CellSize:
    """Pages whose cells have ``bytes`` bytes each: how many, and what of their cells is used."""

    bytes: int
    pages: int
    used_cells: int
    free_cells: int


@dataclass(frozen=True, slots=True)
class Census:
    """What a heap's memory is used for, by type. ``print`` shows it as a table.

    Ints of 63 bits, texts of up to 7 bytes, most floats, None and bools stand in the slots
    themselves and take no cells: they are not counted.

    Attributes:
        commit: id of the last commit before; changes made since are counted too.
        types: what is alive, by type, most bytes first.
        objects, cells, bytes: of all types together.
        held_cells, held_bytes: of these, what only Python's references keep: no path from the root.
        unreachable_cells, unreachable_bytes: garbage: what a full collection would free.
        free_cells, free_cell_bytes: free, in pages that hold something else.
        rest_bytes: ends of pages, too short for a cell.
        used_bytes: pages that hold something: the sum of ``bytes``, ``unreachable_bytes``,
            ``free_cell_bytes`` and ``rest_bytes``.
        free_bytes: pages that hold nothing, below the high-water mark.
        free_run_bytes: the longest run of these.
        pinned_bytes: pages of nobody that exported views may still write to.
        arena_bytes: address space used so far: used, free and pinned pages, and page 0.
        sizes: pages by the size of their cells, ascending; larger objects have pages of their own.
        broken: references that lead nowhere: not 0 in a damaged heap, see :meth:`Heap.verify`.
        pause_ns: how long the application was stopped.
    """

    commit: int
    types: tuple[TypeCount, ...]
    objects: int
    cells: int
    bytes: int
    held_cells: int
    held_bytes: int
    unreachable_cells: int
    unreachable_bytes: int
    free_cells: int
    free_cell_bytes: int
    rest_bytes: int
    used_bytes: int
    free_bytes: int
    free_run_bytes: int
    pinned_bytes: int
    arena_bytes: int
    sizes: tuple[CellSize, ...]
    broken: int
    pause_ns: int

    @property
    def fragmentation(self) -> float:
        """The share of pages in use that no object has: free cells and ends of pages, 0.0 to 1.0.
        Free pages are not in it: anything can use them."""
        if self.used_bytes == 0:
            return 0.0
        return (self.free_cell_bytes + self.rest_bytes) / self.used_bytes

    def of(self, type: str) -> TypeCount:
        """The count of one type by its ``type``; zeros where there is none."""
        for count in self.types:
            if count.type == type:
                return count
        return TypeCount(kind="", type=type, objects=0, cells=0, bytes=0)

    def __str__(self) -> str:
        """The table, on several lines."""
        rows: list[tuple[object, ...]] = [("type", "objects", "cells", "bytes")]
        rows += [
            (_type_text(count.kind, count.type), count.objects, count.cells, size(count.bytes))
            for count in self.types
        ]
        rows.append(("all that lives", self.objects, self.cells, size(self.bytes)))
        if self.held_cells:
            held = ("  kept by Python alone", "", self.held_cells, size(self.held_bytes))
            rows.append(held)
        rows += [
            ("garbage", "", self.unreachable_cells, size(self.unreachable_bytes)),
            ("free cells", "", self.free_cells, size(self.free_cell_bytes)),
            ("ends of pages", "", "", size(self.rest_bytes)),
            ("pages in use", "", "", size(self.used_bytes)),
            ("free pages", "", "", size(self.free_bytes)),
            ("  longest run of them", "", "", size(self.free_run_bytes)),
            ("arena", "", "", size(self.arena_bytes)),
        ]
        lines = columns(rows, right=(1, 2, 3))
        lines.append(f"fragmentation: {self.fragmentation:.1%} of the pages in use")
        if self.broken:
            lines.append(f"{self.broken} references lead nowhere: the heap is damaged, verify it")
        return "\n".join(lines)


# --- why ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a path: its text (``['users']``, ``[17]``, ``.name``), and the type of what it
    leads to (``"list"``; of a record the name of its class)."""

    text: str
    type: str


@dataclass(frozen=True, slots=True)
class Why:
    """What keeps a container alive. True when the root leads to it.

    Attributes:
        held_by: ``"root"``: a path leads from the heap's root, so it is in the next commit.
            ``"container"``: none does, but another container that Python holds leads to it.
            ``"python"``: nothing in the heap leads to it, only Python's references to itself.
        origin: what the path begins with: ``"root"``, or the type of what Python holds.
        steps: one of the shortest ways from there, counted in containers and tuples; of one with
            more than 1000 steps the first 500 and the last.
        omitted: steps that are left out in the middle.
    """

    held_by: Literal["root", "container", "python"]
    origin: str
    steps: tuple[Step, ...]
    omitted: int

    def __bool__(self) -> bool:
        return self.held_by == "root"

    @property
    def path(self) -> str:
        """As one would write it: ``root['users'][17]``; ``<list held by Python>[0]``."""
        begin = "root" if self.held_by == "root" else f"<{self.origin} held by Python>"
        texts = [step.text for step in self.steps]
        if self.omitted:
            texts.insert(len(texts) // 2, f" ..({self.omitted} more).. ")
        return begin + "".join(texts)

    def __str__(self) -> str:
        """The answer in one line."""
        if self.held_by == "python":
            return f"only Python's references keep this {self.origin}: nothing leads to it"
        return self.path


# --- growth ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TypeGrowth:
    """What became of one type, see :class:`TypeCount`: ``objects``, ``cells`` and ``bytes`` are
    differences; ``objects_after`` and ``bytes_after`` what there is now."""

    kind: str
    type: str
    objects: int
    cells: int
    bytes: int
    objects_after: int
    bytes_after: int


@dataclass(frozen=True, slots=True)
class ContainerGrowth:
    """A container that is in both commits and grew.

    Attributes:
        path: one of the shortest from the root, in the newer commit.
        type: ``"list"``, ...; of a record the name of its class.
        bytes: that it grew by, with all that is below it.
        own_bytes: of these, itself and what came to it (less what went), without other containers
            below it that are in both commits. Over all containers that is what the heap grew by.
        objects: containers and tuples that came to be below it, less those that went.
    """

    path: str
    type: str
    bytes: int
    own_bytes: int
    objects: int


@dataclass(frozen=True, slots=True)
class Growth:
    """What grew from one commit to another. ``print`` shows it as two tables.

    Attributes:
        before, after: ids of the commits.
        objects, cells, bytes: differences of what is alive.
        unreachable_bytes, arena_bytes: differences of garbage, and of address space used.
        types: those of which there is more or less, what grew most first.
        containers: those that grew most. Left out are those whose growth is, but for a hundredth,
            that of one container below them, for that one tells it; and those that grew by less
            than a hundredth of the first, for whoever holds many of them tells it.
    """

    before: int
    after: int
    objects: int
    cells: int
    bytes: int
    unreachable_bytes: int
    arena_bytes: int
    types: tuple[TypeGrowth, ...]
    containers: tuple[ContainerGrowth, ...]

    def __bool__(self) -> bool:
        """Whether there is more or less of any type."""
        return bool(self.types)

    def __str__(self) -> str:
        """Both tables, on several lines."""
        rows: list[tuple[object, ...]] = [("type", "objects", "bytes", "bytes now")]
        rows += [
            (
                _type_text(t.kind, t.type),
                f"{t.objects:+}",
                signed_size(t.bytes),
                size(t.bytes_after),
            )
            for t in self.types
        ]
        rows.append(("all that lives", f"{self.objects:+}", signed_size(self.bytes), ""))
        lines = columns(rows, right=(1, 2, 3))
        if self.containers:
            table: list[tuple[object, ...]] = [("bytes", "own", "objects", "container", "type")]
            table += [
                (signed_size(c.bytes), signed_size(c.own_bytes), f"{c.objects:+}", c.path, c.type)
                for c in self.containers
            ]
            lines += ["", *columns(table, right=(0, 1, 2))]
        lines.append(f"from commit {self.before} to {self.after}")
        return "\n".join(lines)


def signed_size(count: int) -> str:
    """A difference in bytes for people.

    >>> signed_size(1500), signed_size(-40), signed_size(0)
    ('+1.5 kB', '-40 B', '0 B')
    """
    if count == 0:
        return size(0)
    return ("+" if count > 0 else "-") + size(abs(count))
