"""Census, why and growth: the core's counts and paths as results.

The core does the counting; here its rows get the names that users know, and rows of one name become
one (a record class that changed between runs is several in the core).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

from . import standard_types
from ._ffi import check, ffi, lib
from .census import CellSize, Census, ContainerGrowth, Growth, Step, TypeCount, TypeGrowth, Why
from .rows import PAGE_BYTES

if TYPE_CHECKING:
    from .heap import Heap

_PACKED: Final = "packed"
# Types of packed values by their code; those from 64 on are a program's own (ext.h, scalars.py).
_PACKED_TYPES: Final = {
    0: "damaged value",
    standard_types.COMPLEX[0]: "complex",
    standard_types.DATETIME[0]: "datetime",
    standard_types.DATE[0]: "date",
    standard_types.TIME[0]: "time",
    standard_types.TIMEDELTA[0]: "timedelta",
    standard_types.DECIMAL[0]: "Decimal",
    standard_types.FRACTION[0]: "Fraction",
    standard_types.UUID_[0]: "UUID",
    standard_types.RANGE[0]: "range",
    standard_types.POSIX_PATH[0]: "PosixPath",
    standard_types.PURE_PATH[0]: "PurePosixPath",
    64: "registered",
    65: "enum member",
    66: "Pickled",
}


def _text(chars: Any) -> str:
    data: bytes = ffi.string(chars)
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:  # of a damaged heap
        return data.decode("utf-8", "backslashreplace")


# --- census ---------------------------------------------------------------------------------------


def census(heap_ptr: Any, commit: int) -> Census:
    """Count what an open heap holds; ``commit``: its last one."""
    with _taken(heap_ptr, 0) as taken:
        return _result(taken, commit)


@contextmanager
def _taken(heap_ptr: Any, flags: int) -> Iterator[Any]:
    out = ffi.new("dh_census **")
    check(lib.dh_census_take(heap_ptr, flags, out), heap_ptr)
    try:
        yield out[0]
    finally:
        lib.dh_census_free(out[0])


def _result(taken: Any, commit: int) -> Census:
    stats = ffi.new("dh_census_stats *")
    lib.dh_census_stats_read(taken, stats)
    return Census(
        commit=commit,
        types=tuple(_by_size(_rows(taken))),
        objects=stats.objects_count,
        cells=stats.cells_count,
        bytes=stats.bytes,
        held_cells=stats.held_cells_count,
        held_bytes=stats.held_bytes,
        unreachable_cells=stats.unreachable_cells_count,
        unreachable_bytes=stats.unreachable_bytes,
        free_cells=stats.free_cells_count,
        free_cell_bytes=stats.free_cells_bytes,
        rest_bytes=stats.rest_bytes,
        used_bytes=stats.used_pages_count * PAGE_BYTES,
        free_bytes=stats.free_pages_count * PAGE_BYTES,
        free_run_bytes=stats.free_run_pages_max * PAGE_BYTES,
        pinned_bytes=stats.pinned_pages_count * PAGE_BYTES,
        arena_bytes=stats.arena_pages * PAGE_BYTES,
        sizes=tuple(_sizes(taken)),
        broken=stats.broken_count,
        pause_ns=stats.stop_ns,
    )


def _rows(taken: Any) -> Iterator[TypeCount]:
    row, number = ffi.new("dh_census_row *"), 0
    while lib.dh_census_row_read(taken, number, row) == 0:
        number += 1
        kind = _text(row.kind)
        name = kind
        if kind == _PACKED:
            name = _PACKED_TYPES.get(row.code, f"extension {row.code}")
        elif row.name != ffi.NULL:
            name = _text(row.name)
        yield TypeCount(kind, name, row.objects_count, row.cells_count, row.bytes)


def _by_size(rows: Iterable[TypeCount]) -> list[TypeCount]:
    """One row for each name, most bytes first."""
    sums: dict[tuple[str, str], TypeCount] = {}
    for row in rows:
        before = sums.get((row.kind, row.type))
        if before is not None:
            row = TypeCount(
                row.kind,
                row.type,
                before.objects + row.objects,
                before.cells + row.cells,
                before.bytes + row.bytes,
            )
        sums[row.kind, row.type] = row
    return sorted(sums.values(), key=lambda row: (-row.bytes, row.kind, row.type))


def _sizes(taken: Any) -> Iterator[CellSize]:
    row, number = ffi.new("dh_census_size *"), 0
    while lib.dh_census_size_read(taken, number, row) == 0:
        number += 1
        yield CellSize(row.cell_bytes, row.pages_count, row.used_cells_count, row.free_cells_count)


# --- why ------------------------------------------------------------------------------------------


def why(heap_ptr: Any, reference: int) -> Why:
    """What keeps the container alive that the core's word leads to."""
    out = ffi.new("dh_path **")
    check(lib.dh_why(heap_ptr, reference, out), heap_ptr)
    try:
        return _why(out[0])
    finally:
        lib.dh_path_free(out[0])


def _why(path: Any) -> Why:
    info = ffi.new("dh_path_info *")
    text, type_ = ffi.new("const char **"), ffi.new("const char **")
    lib.dh_path_read(path, info)
    steps = []
    for number in range(info.steps_count):
        check(lib.dh_path_step(path, number, text, type_))
        steps.append(Step(_text(text[0]), _text(type_[0])))
    held_by: Literal["root", "container", "python"] = "container" if steps else "python"
    return Why(
        held_by="root" if info.is_from_root else held_by,
        origin=_text(info.origin),
        steps=tuple(steps),
        omitted=info.omitted_count,
    )


# --- growth ---------------------------------------------------------------------------------------


def growth(old: Heap, new: Heap, limit: int) -> Growth:
    """Hold two snapshots of one store against each other; at most ``limit`` containers are told.
    Nobody else has these heap objects, so the application goes on meanwhile."""
    flags = lib.DH_CENSUS_CONTAINERS | lib.DH_CENSUS_PRIVATE
    with _taken(old._ptr, flags) as before, _taken(new._ptr, flags) as after:
        containers = tuple(_containers(before, after, limit))
        then, now = _result(before, old.last_commit_id), _result(after, new.last_commit_id)
    return Growth(
        before=then.commit,
        after=now.commit,
        objects=now.objects - then.objects,
        cells=now.cells - then.cells,
        bytes=now.bytes - then.bytes,
        unreachable_bytes=now.unreachable_bytes - then.unreachable_bytes,
        arena_bytes=now.arena_bytes - then.arena_bytes,
        types=tuple(_types(then, now)),
        containers=containers,
    )


def _types(then: Census, now: Census) -> list[TypeGrowth]:
    before = {(row.kind, row.type): row for row in then.types}
    after = {(row.kind, row.type): row for row in now.types}
    grown = []
    for kind, name in before.keys() | after.keys():
        none = TypeCount(kind, name, 0, 0, 0)
        old, new = before.get((kind, name), none), after.get((kind, name), none)
        if (old.objects, old.cells, old.bytes) != (new.objects, new.cells, new.bytes):
            grown.append(
                TypeGrowth(
                    kind=kind,
                    type=name,
                    objects=new.objects - old.objects,
                    cells=new.cells - old.cells,
                    bytes=new.bytes - old.bytes,
                    objects_after=new.objects,
                    bytes_after=new.bytes,
                )
            )
    return sorted(grown, key=lambda row: (-row.bytes, row.kind, row.type))


def _containers(before: Any, after: Any, limit: int) -> Iterator[ContainerGrowth]:
    out = ffi.new("dh_growth **")
    check(lib.dh_growth_new(before, after, limit, out))
    row, path = ffi.new("dh_growth_row *"), ffi.new("const dh_path **")
    type_, number = ffi.new("const char **"), 0
    try:
        while lib.dh_growth_read(out[0], number, row, path, type_) == 0:
            number += 1
            yield ContainerGrowth(
                path=_why(path[0]).path,
                type=_text(type_[0]),
                bytes=row.bytes,
                own_bytes=row.own_bytes,
                objects=row.objects,
            )
    finally:
        lib.dh_growth_free(out[0])
