"""LMDB data files for tests: how to make them, where their B-tree pages are, how to damage them.

The reader here is a second, naive one: it trusts the file, which was made by the engine a moment
ago, and knows only what a mutation needs. Layout: native/src/index_guard.h.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import lmdb

PAGE = 4096
BRANCH, LEAF, OVERFLOW, META = 1, 2, 4, 8
BIGDATA, SUBDATA = 1, 2
NONE = (1 << 64) - 1
FREE_DB, MAIN_DB, LAST_PGNO, TXNID = 40, 88, 136, 144
DB_FIELDS = ((0, 4), (4, 2), (6, 2), (8, 8), (16, 8), (24, 8), (32, 8), (40, 8))
META_FIELDS = (
    *((0, 8), (10, 2), (16, 4), (20, 4), (24, 8), (32, 8), (LAST_PGNO, 8), (TXNID, 8)),
    *((FREE_DB + at, size) for at, size in DB_FIELDS),
    *((MAIN_DB + at, size) for at, size in DB_FIELDS),
)

Field = tuple[int, int]  # offset in the file, size
Mutation = Callable[["Specimen", random.Random], bytearray]


def number(data: bytes | bytearray, at: int, size: int) -> int:
    """Read a little-endian number."""
    return int.from_bytes(data[at : at + size], "little")


@dataclass
class Layout:
    """Where things are in a data file: pages of the newest commit."""

    trees: list[int] = field(default_factory=list)  # branch and leaf pages
    values: list[int] = field(default_factory=list)  # first pages of values
    free: list[int] = field(default_factory=list)  # offsets of numbers of free pages
    fields: list[Field] = field(default_factory=list)  # every number that means something


@dataclass
class Specimen:
    """A sound data file, what is where in it, and the commits before it."""

    name: str
    data: bytes
    older: list[bytes]
    layout: Layout

    @property
    def pages(self) -> list[int]:
        """Pages that the engine reads as structure."""
        return [0, 1, *self.layout.trees]


def newest_meta(data: bytes) -> int:
    """Offset of the meta page that counts."""
    return PAGE if number(data, TXNID, 8) < number(data, PAGE + TXNID, 8) else 0


def survey(data: bytes) -> Layout:
    """Find the pages and fields reachable from the newest commit."""
    layout = Layout()
    meta = newest_meta(data)
    for at in (0, PAGE):
        layout.fields += [(at + offset, size) for offset, size in META_FIELDS]
    for at, is_free in ((meta + FREE_DB, True), (meta + MAIN_DB, False)):
        root = number(data, at + 40, 8)
        if root != NONE:
            _survey_page(data, root, layout, is_free)
    return layout


def _survey_page(data: bytes, pgno: int, layout: Layout, is_free: bool) -> None:
    base = pgno * PAGE
    layout.trees.append(pgno)
    layout.fields += [(base, 8), (base + 10, 2), (base + 12, 2), (base + 14, 2)]
    is_leaf = number(data, base + 10, 2) == LEAF
    for i in range((number(data, base + 12, 2) - 16) // 2):
        pointer = base + 16 + 2 * i
        node = base + number(data, pointer, 2)
        layout.fields += [(pointer, 2), (node, 4), (node + 4, 2), (node + 6, 2)]
        if is_leaf:
            _survey_value(data, node, layout, is_free)
        else:
            child = number(data, node, 4) | number(data, node + 4, 2) << 32
            _survey_page(data, child, layout, is_free)


def _survey_value(data: bytes, node: int, layout: Layout, is_free: bool) -> None:
    flags = number(data, node + 4, 2)
    value = node + 8 + number(data, node + 6, 2)
    if flags == SUBDATA:
        layout.fields += [(value + at, size) for at, size in DB_FIELDS]
        if (root := number(data, value + 40, 8)) != NONE:
            _survey_page(data, root, layout, is_free=False)
    elif flags == BIGDATA:
        pgno = number(data, value, 8)
        layout.values.append(pgno)
        page = pgno * PAGE
        layout.fields += [(value, 8), (page, 8), (page + 10, 2), (page + 12, 4)]
        value = page + 16
    if is_free:
        ids = range(value + 8, value + 8 + 8 * number(data, value, 8), 8)
        layout.free += ids
        layout.fields += [(value, 8), *((at, 8) for at in ids)]


# --- making files --------------------------------------------------------------------------------


def open_env(directory: Path) -> lmdb.Environment:
    """Open as the store does, but without syncing: no test here cuts the power."""
    return lmdb.open(str(directory), map_size=1 << 30, max_dbs=16, sync=False, readahead=False)


@dataclass
class Workload:
    """Random transactions over the main tree and some named ones."""

    rng: random.Random
    keys: int = 2000
    key_bytes: int = 8
    value_bytes: tuple[int, ...] = (1, 60, 700, 2030, 5000, 50_000)
    operations: int = 60
    trees: int = 4
    run_keys: int = 12

    def handles(self, env: lmdb.Environment) -> list[object]:
        """The main tree, then the named ones."""
        return [None, *(env.open_db(b"tree%d" % i) for i in range(self.trees))]

    def key(self) -> bytes:
        """A key that is likely to exist."""
        return (b"%07d." % self.rng.randrange(self.keys)).ljust(self.key_bytes, b"k")

    def value(self) -> bytes:
        """A value whose pages are not all alike."""
        size = self.rng.choice(self.value_bytes)
        return bytes([self.rng.randrange(256)]) * max(1, size - self.rng.randrange(20))

    def commit(self, env: lmdb.Environment, handles: list[object]) -> None:
        """One transaction; now and then it ends in an abort."""
        with env.begin(write=True) as txn:
            for _ in range(self.rng.randrange(self.operations)):
                self.operate(txn, self.rng.choice(handles))
            if self.rng.random() < 0.03 and len(handles) > 1:
                txn.drop(self.rng.choice(handles[1:]), delete=False)
            if self.rng.random() < 0.05:
                txn.abort()

    def operate(self, txn: lmdb.Transaction, tree: object) -> None:
        """Put, overwrite, delete one, delete a run."""
        what = self.rng.random()
        if what < 0.5:
            txn.put(self.key(), self.value(), db=tree)
        elif what < 0.6:  # twice in one transaction: a value may shrink in its pages
            key = self.key()
            txn.put(key, self.value(), db=tree)
            txn.put(key, self.value(), db=tree)
        elif what < 0.85:
            txn.delete(self.key(), db=tree)
        else:
            self.delete_run(txn.cursor(tree))

    def delete_run(self, cursor: lmdb.Cursor) -> None:
        """Delete neighbours, so that pages become empty and merge."""
        if cursor.set_range(self.key()):
            for _ in range(self.rng.randrange(self.run_keys)):
                if cursor.key().startswith(b"tree") or not cursor.delete():
                    break


def run(
    directory: Path, workload: Workload, commits: int
) -> Iterator[tuple[lmdb.Environment, bytes]]:
    """Run a workload; after every commit give the file as a kill at that moment would leave it."""
    env = open_env(directory)
    handles = workload.handles(env)
    for _ in range(commits):
        workload.commit(env, handles)
        yield env, (directory / "data.mdb").read_bytes()
    env.close()


# Name, workload, commits: each makes another shape of file.
SHAPES: dict[str, tuple[dict[str, object], int]] = {
    "small keys": ({"trees": 0, "keys": 4000, "value_bytes": (1, 8, 30), "operations": 900}, 8),
    "free pages": ({"trees": 2, "operations": 120, "value_bytes": (700, 2030, 9000)}, 40),
    "named": ({"trees": 6, "keys": 40, "operations": 40, "value_bytes": (1, 300)}, 12),
    "large values": ({"trees": 2, "keys": 60, "value_bytes": (2100, 9000, 60_000)}, 10),
    "deep": ({"trees": 2, "keys": 900, "key_bytes": 480, "operations": 900, "run_keys": 4}, 6),
    "few": ({"trees": 1, "keys": 3, "operations": 4, "value_bytes": (1, 2030, 9000)}, 5),
}


def make_specimen(directory: Path, name: str, rng: random.Random) -> Specimen:
    """Make a file of one shape, keeping the commits before the last."""
    settings, commits = SHAPES[name]
    workload = Workload(rng, **settings)  # type: ignore[arg-type]
    images = [image for _, image in run(directory, workload, commits)]
    return Specimen(name, images[-1], images[-4:-1], survey(images[-1]))


# --- damage --------------------------------------------------------------------------------------


def flip(specimen: Specimen, rng: random.Random) -> bytearray:
    """One bit of a structure page."""
    data = bytearray(specimen.data)
    data[rng.choice(specimen.pages) * PAGE + rng.randrange(PAGE)] ^= 1 << rng.randrange(8)
    return data


def flip_field(specimen: Specimen, rng: random.Random) -> bytearray:
    """One bit of a number that means something."""
    data = bytearray(specimen.data)
    at, size = rng.choice(specimen.layout.fields)
    data[at + rng.randrange(size)] ^= 1 << rng.randrange(8)
    return data


def set_field(specimen: Specimen, rng: random.Random) -> bytearray:
    """A number replaced by one that is likely to hurt."""
    data = bytearray(specimen.data)
    _set_field(data, specimen, rng)
    return data


def set_fields(specimen: Specimen, rng: random.Random) -> bytearray:
    """Several of these: one may hide another."""
    data = bytearray(specimen.data)
    for _ in range(rng.randrange(2, 5)):
        _set_field(data, specimen, rng)
    return data


def _set_field(data: bytearray, specimen: Specimen, rng: random.Random) -> None:
    at, size = rng.choice(specimen.layout.fields)
    old = number(data, at, size)
    other_at, other_size = rng.choice(specimen.layout.fields)
    value = rng.choice(
        (
            *(0, 1, 2, 8, 16, PAGE, old + 1, old - 1, old + 2, old - 2, old * 2),
            *(rng.choice(specimen.pages), rng.choice([2, *specimen.layout.values])),
            *(number(data, other_at, other_size), rng.getrandbits(64), NONE, NONE >> 1),
        )
    )
    data[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def zero_page(specimen: Specimen, rng: random.Random) -> bytearray:
    """A page that was never written."""
    data = bytearray(specimen.data)
    at = rng.choice(specimen.pages) * PAGE
    data[at : at + PAGE] = bytes(PAGE)
    return data


def zero_sector(specimen: Specimen, rng: random.Random) -> bytearray:
    """A part of a page that was never written."""
    data = bytearray(specimen.data)
    at = rng.choice([*specimen.pages, *specimen.layout.values]) * PAGE + 512 * rng.randrange(8)
    data[at : at + 512] = bytes(512)
    return data


def noise(specimen: Specimen, rng: random.Random) -> bytearray:
    """Random bytes over a part of a page."""
    data = bytearray(specimen.data)
    at = rng.choice(specimen.pages) * PAGE + rng.randrange(PAGE)
    size = min(rng.choice((2, 8, 64, 1000)), PAGE - at % PAGE)
    data[at : at + size] = rng.randbytes(size)
    return data


def swap_pages(specimen: Specimen, rng: random.Random) -> bytearray:
    """Two pages written to each other's place."""
    return _swap(specimen, rng, is_renumbered=False)


def swap_contents(specimen: Specimen, rng: random.Random) -> bytearray:
    """The same with page numbers made right: only the tree's sense is broken."""
    return _swap(specimen, rng, is_renumbered=True)


def _swap(specimen: Specimen, rng: random.Random, *, is_renumbered: bool) -> bytearray:
    data = bytearray(specimen.data)
    trees = specimen.layout.trees
    candidates = trees if len(trees) > 1 else specimen.pages  # a small tree may be one page
    one, two = (pgno * PAGE for pgno in rng.sample(candidates, 2))
    data[one : one + PAGE], data[two : two + PAGE] = (
        data[two : two + PAGE],
        data[one : one + PAGE],
    )
    if is_renumbered:
        for at in (one, two):
            struct.pack_into("<Q", data, at, at // PAGE)
    return data


def stale_page(specimen: Specimen, rng: random.Random) -> bytearray:
    """A page as an earlier commit left it: a write that was lost."""
    data = bytearray(specimen.data)
    older = rng.choice(specimen.older)
    changed = [
        pgno
        for pgno in (*specimen.pages, *specimen.layout.values)
        if older[pgno * PAGE : pgno * PAGE + PAGE] != data[pgno * PAGE : pgno * PAGE + PAGE]
    ]
    for pgno in rng.sample(changed, min(len(changed), rng.randrange(1, 4))):
        page = older[pgno * PAGE : pgno * PAGE + PAGE]
        data[pgno * PAGE : pgno * PAGE + PAGE] = page.ljust(PAGE, b"\0")
    return data


def truncate(specimen: Specimen, rng: random.Random) -> bytearray:
    """The end is missing, at a page or anywhere."""
    size = rng.randrange(1, len(specimen.data))
    return bytearray(specimen.data[: size if rng.random() < 0.5 else size // PAGE * PAGE])


MUTATIONS: dict[str, Mutation] = {
    mutate.__name__.replace("_", " "): mutate
    for mutate in (
        *(flip, flip_field, set_field, set_fields, zero_page, zero_sector, noise),
        *(swap_pages, swap_contents, stale_page, truncate),
    )
}
