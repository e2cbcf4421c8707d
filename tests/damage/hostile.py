"""Cases of structural damage under right checksums: what only the checks of the core can find.

A heap of this kind cannot come of an accident, but it may come from anybody. Whatever it says, to
open it, read it in every way, change it, verify it and commit must end in errors or in values.
"""

from __future__ import annotations

import random
import resource
from collections.abc import Callable
from pathlib import Path

from reseal import ENTRY_BYTES, TABLE_EXTENT, Cell, Image
from specimens import Specimen, change_contents, restore
from walk import ALLOWED, read_all

import dirtyheap as dh

_NUMBERS = (
    *(0, 1, 2, 7, 8, 255, 256, 511, 512, 513, 4095, 4096, 1 << 16, (1 << 31) - 1, 1 << 31),
    *((1 << 32) - 1, 1 << 40, (1 << 48) + 1, 1 << 60, (1 << 62) - 1, -1, -2, -(1 << 62)),
)
_EVERY_CHANGE = (*ALLOWED, TypeError, ValueError, OverflowError, MemoryError, AttributeError)


def _is_ref(word: int) -> bool:
    return word & 7 == 0 and word != 0


def _word_places(image: Image, cells: list[Cell], rng: random.Random) -> int:
    cell = rng.choice([cell for cell in cells if cell.has_words])
    return cell.offset + 8 * rng.randrange(cell.size // 8)


def _ref_place(image: Image, cells: list[Cell], rng: random.Random) -> int:
    while not _is_ref(image.word(place := _word_places(image, cells, rng))):
        pass
    return place


def random_word(image: Image, cells: list[Cell], rng: random.Random) -> str:
    """Any bits."""
    image.patch_word(place := _word_places(image, cells, rng), rng.getrandbits(64))
    return f"{place:#x}"


def a_number(image: Image, cells: list[Cell], rng: random.Random) -> str:
    """A word becomes an int that is likely to hurt."""
    number = rng.choice(_NUMBERS)
    image.patch_word(place := _word_places(image, cells, rng), number << 1 | 1)
    return f"{place:#x} = {number}"


def nudged(image: Image, cells: list[Cell], rng: random.Random) -> str:
    """An int or head is a little more or less, or has another bit."""
    place = _word_places(image, cells, rng)
    word = image.word(place)
    image.patch_word(place, rng.choice((word + 2, word - 2, word ^ 1 << rng.randrange(64))))
    return f"{place:#x}"


def other_type(image: Image, cells: list[Cell], rng: random.Random) -> str:
    """A ref says that something else stands where it leads."""
    place = _ref_place(image, cells, rng)
    image.patch_word(place, image.word(place) & ~0xF8 | rng.randrange(32) << 3)
    return f"{place:#x}"


def other_target(image: Image, cells: list[Cell], rng: random.Random) -> str:
    """A ref of the same type leads elsewhere: to another cell, into one, or out of the arena."""
    place = _ref_place(image, cells, rng)
    targets = (rng.choice(cells).offset, rng.choice(cells).offset + 16, rng.getrandbits(40) & ~15)
    image.patch_word(place, rng.choice(targets) >> 3 << 8 | image.word(place) & 0xFF)
    return f"{place:#x}"


def same_type(image: Image, cells: list[Cell], rng: random.Random) -> str:
    """A ref becomes a copy of another of its type: two slots own one cell, nodes form circles."""
    place = _ref_place(image, cells, rng)
    kind = image.word(place) & 0xFF
    for _ in range(400):
        other = image.word(_ref_place(image, cells, rng))
        if other & 0xFF == kind and other != image.word(place):
            image.patch_word(place, other)
            break
    return f"{place:#x}"


def to_itself(image: Image, cells: list[Cell], rng: random.Random) -> str:
    """A ref in a cell leads to that cell."""
    cell = rng.choice([cell for cell in cells if cell.has_words])
    refs = [at for at in range(0, cell.size, 8) if _is_ref(image.word(cell.offset + at))]
    if refs:
        place = cell.offset + rng.choice(refs)
        image.patch_word(place, cell.offset >> 3 << 8 | image.word(place) & 0xFF)
    return f"{cell.offset:#x}"


def swapped(image: Image, cells: list[Cell], rng: random.Random) -> str:
    """Two words in each other's place."""
    one, two = _word_places(image, cells, rng), _word_places(image, cells, rng)
    first, second = image.word(one), image.word(two)
    image.patch_word(one, second)
    image.patch_word(two, first)
    return f"{one:#x}, {two:#x}"


def raw_bytes(image: Image, cells: list[Cell], rng: random.Random) -> str:
    """Sizes and contents of texts, numbers, hash buckets and packed values."""
    cell = rng.choice([cell for cell in cells if not cell.has_words])
    at = rng.choice((0, 0, 4, rng.randrange(cell.size)))
    size = min(rng.choice((1, 4, 8)), cell.size - at)
    image.patch(cell.offset + at, rng.choice((rng.randbytes(size), b"\xff" * size, bytes(size))))
    return f"{cell.offset + at:#x}"


def table_entry(image: Image, cells: list[Cell], rng: random.Random) -> str:
    """What the table says of a page: its kind, its bits, the length of a run."""
    pgno = rng.choice(cells).offset // 4096
    page, slot = divmod(pgno, 113)
    at = page * 4096 + slot * ENTRY_BYTES
    if rng.random() < 0.5:
        image.patch(at, bytes([rng.randrange(60)]), extent_from=TABLE_EXTENT)
    else:
        place = at + 4 + rng.randrange(32)
        image.patch(place, bytes([rng.randrange(256)]), extent_from=TABLE_EXTENT)
    return f"entry of page {pgno}"


CHANGES: dict[str, Callable[[Image, list[Cell], random.Random], str]] = {
    change.__name__.replace("_", " "): change
    for change in (
        *(random_word, a_number, nudged, other_type, other_target, same_type, to_itself),
        *(swapped, raw_bytes, table_entry),
    )
}


def prepare(specimens: list[Specimen]) -> None:
    """Nothing is needed beforehand."""


def run(specimens: list[Specimen], seed: str, case: int, directory: Path) -> dict[str, str]:
    """One case, in the child."""
    rng = random.Random(seed)
    specimen = next(s for s in specimens if s.name == "all folded")
    restore(specimen.files, directory)
    image = Image(directory)
    cells = image.cells()
    kind = list(CHANGES)[case % len(CHANGES)]
    what = [CHANGES[kind](image, cells, rng) for _ in range(rng.choice((1, 1, 1, 3)))]
    image.seal()
    outcome, text = _use(directory, rng)
    return {
        "region": "structure",
        "kind": kind,
        "what": "; ".join(what),
        "outcome": outcome,
        "text": text,
    }


def _use(directory: Path, rng: random.Random) -> tuple[str, str]:
    """Open, read, change, verify and commit; what verify says beforehand is part of the outcome."""
    resource.setrlimit(resource.RLIMIT_STACK, (8 << 20, 8 << 20))
    is_found = not dh.verify(directory).ok
    try:
        met, errors = _use_opened(directory, rng)
    except _EVERY_CHANGE as error:
        met, errors = [], [f"{type(error).__name__}: {error}"]
        del error
    text = (met + errors + [""])[0]
    if is_found:
        return ("error" if met or errors else "value, found"), text
    if met:
        return "unnoticed", text
    return ("value, then error" if errors else "value"), text


def is_structural(error: BaseException) -> bool:
    """Damage that the core must know of: what is inside a packed value or a dtype only its type can
    judge, and verify does not ask it."""
    is_inside = str(error).startswith(("a stored value of type", "an array's description makes"))
    return isinstance(error, dh.HeapCorruptError) and not is_inside


def _use_opened(directory: Path, rng: random.Random) -> tuple[list[str], list[str]]:
    """Damage that reading met, and errors of changing."""
    with dh.open(directory, create=False, capacity=64 << 20) as heap:
        met = [error for error in read_all(heap.root) if is_structural(error)]
        errors: list[BaseException] = []
        heap.verify()
        for change in (
            lambda: change_contents(heap, rng),
            heap.collect,
            heap.commit,
            lambda: heap.root.clear(),
            heap.collect,
            heap.rollback,
            heap.fold,
        ):
            try:
                change()
            except _EVERY_CHANGE as error:
                errors.append(error)
        heap.verify()
    return [str(error) for error in met], [f"{type(error).__name__}: {error}" for error in errors]
