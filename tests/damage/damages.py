"""What is damaged and how: regions of a heap's files, and what may happen to the bytes there.

A region is a list of places (file, offset, size) of a sound heap. Which pages of the index are in
use is told by the survey of the index guard's tests; a base file is pages and a trailer.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from index_files import number, survey
from specimens import Specimen

PAGE = 4096
SECTOR = 512
DATA = "data.mdb"


@dataclass(frozen=True)
class Place:
    """Bytes of one file."""

    file: str
    at: int
    size: int


Files = dict[str, bytearray]
Damage = Callable[[Files, Place, Specimen, random.Random], str]


def regions(specimen: Specimen) -> dict[str, list[Place]]:
    """Where things are in a sound heap. Regions that this heap does not have are left out."""
    found: dict[str, list[Place]] = {"lock files": []}
    for name, data in specimen.files.items():
        if name == DATA:
            found |= _index_regions(data)
        elif name.startswith("base/"):
            pages = len(data) // PAGE
            found.setdefault("base page", []).extend(
                Place(name, page * PAGE, PAGE) for page in range(pages)
            )
            trailer = Place(name, pages * PAGE, len(data) - pages * PAGE)
            found.setdefault("base trailer", []).append(trailer)
        elif data:
            found["lock files"].append(Place(name, 0, min(len(data), PAGE)))
    return {name: places for name, places in found.items() if places}


def _index_regions(data: bytes) -> dict[str, list[Place]]:
    layout = survey(data)
    values = [
        Place(DATA, (first + i) * PAGE, PAGE)
        for first in layout.values
        for i in range(number(data, first * PAGE + 12, 4))
    ]
    used = {0, 1, *layout.trees, *(place.at // PAGE for place in values)}
    free = [page for page in range(len(data) // PAGE) if page not in used]
    return {
        "index meta page": [Place(DATA, page * PAGE, PAGE) for page in (0, 1)],
        "index tree page": [Place(DATA, page * PAGE, PAGE) for page in layout.trees],
        "index value page": values,
        "index free page": [Place(DATA, page * PAGE, PAGE) for page in free],
    }


# --- damage ---------------------------------------------------------------------------------------


def flip(files: Files, place: Place, specimen: Specimen, rng: random.Random) -> str:
    """One bit."""
    at = place.at + rng.randrange(place.size)
    files[place.file][at] ^= 1 << rng.randrange(8)
    return f"bit of byte {at}"


def zero(files: Files, place: Place, specimen: Specimen, rng: random.Random) -> str:
    """The page, or one of its sectors, was never written."""
    at, size = place.at, place.size
    if rng.random() < 0.5 and size > SECTOR:
        at += SECTOR * rng.randrange(size // SECTOR)
        size = SECTOR
    files[place.file][at : at + size] = bytes(size)
    return f"{size} bytes at {at}"


def noise(files: Files, place: Place, specimen: Specimen, rng: random.Random) -> str:
    """Random bytes."""
    size = min(rng.choice((1, 8, 64, 1000, PAGE)), place.size)
    at = place.at + rng.randrange(place.size - size + 1)
    files[place.file][at : at + size] = rng.randbytes(size)
    return f"{size} bytes at {at}"


def truncate(files: Files, place: Place, specimen: Specimen, rng: random.Random) -> str:
    """The file ends inside the place, or before it."""
    at = place.at + rng.choice((0, rng.randrange(place.size)))
    del files[place.file][at:]
    return f"at {at}"


def swap(files: Files, place: Place, specimen: Specimen, rng: random.Random) -> str:
    """The bytes stand in each other's place with those of another page of the file."""
    data = files[place.file]
    other = rng.randrange(max(len(data) // PAGE, 1)) * PAGE
    size = min(place.size, PAGE, len(data) - other)
    here = bytes(data[place.at : place.at + size])
    data[place.at : place.at + size] = data[other : other + size]
    data[other : other + size] = here
    return f"{place.at} and {other}"


def splice(files: Files, place: Place, specimen: Specimen, rng: random.Random) -> str:
    """A page of another file of the heap."""
    name = rng.choice(sorted(files))
    data = files[name]
    at = rng.randrange(max(len(data) // PAGE, 1)) * PAGE
    size = min(place.size, len(data) - at)
    files[place.file][place.at : place.at + size] = data[at : at + size]
    return f"{name} at {at} to {place.at}"


def stale(files: Files, place: Place, specimen: Specimen, rng: random.Random) -> str:
    """The page as it was after an earlier commit: a write that was lost. Of a base file, which is
    written once, the same page of another version of it."""
    older = rng.choice(specimen.older)
    extent = place.file[: len("base/00000000")]
    same = [name for name in older if name == place.file or name.startswith(extent + ".")]
    if not same:
        return flip(files, place, specimen, rng)
    name = rng.choice(same)
    old = older[name][place.at : place.at + place.size]
    files[place.file][place.at : place.at + len(old)] = old
    return f"{name} at {place.at}"


DAMAGES: dict[str, Damage] = {
    damage.__name__: damage for damage in (flip, zero, noise, truncate, swap, splice, stale)
}


def lose(files: Files, place: Place) -> str:
    """The file is not there."""
    del files[place.file]
    return place.file
