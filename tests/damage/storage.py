"""Cases of damage to the files: a specimen, a region, a kind of damage."""

from __future__ import annotations

import random
from pathlib import Path

import judge
from damages import DAMAGES, Place, lose, regions
from specimens import Specimen, restore

_regions: dict[str, dict[str, list[Place]]] = {}


def prepare(specimens: list[Specimen]) -> None:
    """Look where things are, once for all cases."""
    _regions.update({specimen.name: regions(specimen) for specimen in specimens})


def draw(specimens: list[Specimen], seed: str, case: int) -> tuple[Specimen, str, str, Place]:
    """A case: regions and damages take turns, so that each pair comes up alike often."""
    rng = random.Random(seed)
    kinds = [*DAMAGES, "lose"]
    specimen = specimens[case % len(specimens)]
    found = _regions[specimen.name]
    pairs = [(region, kind) for region in found for kind in kinds]
    region, kind = pairs[case // len(specimens) % len(pairs)]
    return specimen, region, kind, rng.choice(found[region])


def run(specimens: list[Specimen], seed: str, case: int, directory: Path) -> dict[str, str]:
    """Do it, in the child."""
    specimen, region, kind, place = draw(specimens, seed, case)
    rng = random.Random(f"{seed} bytes")
    files = {name: bytearray(data) for name, data in specimen.files.items()}
    what = lose(files, place) if kind == "lose" else DAMAGES[kind](files, place, specimen, rng)
    is_changed = {name: bytes(data) for name, data in files.items()} != specimen.files
    restore({name: bytes(data) for name, data in files.items()}, directory)
    outcome, text = judge.use(directory, specimen, case)
    return {
        "specimen": specimen.name,
        "region": region,
        "kind": kind,
        "what": f"{place.file}: {what}",
        "changed": "yes" if is_changed else "no",
        "outcome": outcome,
        "text": text,
    }
