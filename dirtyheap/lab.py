"""The laboratory: all techniques of write tracking under the contract of :class:`WriteWatch`.

Heaps choose among the three that lose nothing and break nothing (``for_heaps``). The others are
here to be compared, measured (``benchmarks/bench_watch.py``) and learned from, and for memory of
your own where you know that what they cannot see does not happen. ``dh.open`` and ``dh.WriteWatch``
refuse them.

>>> import dirtyheap as dh
>>> for technique in dh.lab.techniques():
...     print(technique.name, "heaps" if technique.for_heaps else "laboratory")
uffd heaps
uffd-dev heaps
compare heaps
hash laboratory
soft-dirty laboratory
mprotect laboratory
uffd-sync laboratory
fork laboratory
>>> with dh.lab.watch(64 * 4096, "mprotect") as watch:
...     watch.buffer[5 * 4096] = 1
...     print(watch.get(reset=True).ranges())
[(5, 6)]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, SupportsIndex

from ._ffi import ffi, lib
from .trackers import laboratory
from .write_watch import WriteWatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Buffer as SupportsBuffer

__all__ = ["Technique", "techniques", "watch"]


@dataclass(frozen=True, slots=True)
class Technique:
    """One way to learn which pages were written, and what it is worth.

    Attributes:
        name: what :func:`watch` takes.
        idea: how it works.
        cannot_see: writes and changes that it does not report.
        breaks: what happens to the rest of the process.
        for_heaps: heaps may use it.
        works: it was tried just now, on a small mapping: stores were reported, once, and nothing
            else was.
        reason: why it does not work here; "" when it does.
    """

    name: str
    idea: str
    cannot_see: str
    breaks: str
    for_heaps: bool
    works: bool
    reason: str


def techniques() -> list[Technique]:
    """All techniques, those for heaps first. Tries each of them: takes milliseconds.

    >>> dh.lab.techniques()[3].cannot_see[:26]
    'a store of the same bytes;'
    """
    return [_technique(i) for i in range(lib.dh_lab_techniques_count())]


def _technique(index: int) -> Technique:
    about = lib.dh_lab_technique_at(index)
    why = ffi.new("char[]", 512)
    works = lib.dh_lab_probe(index, why, 512) == 0
    return Technique(
        name=_text(about.name),
        idea=_text(about.idea),
        cannot_see=_text(about.cannot_see),
        breaks=_text(about.breaks),
        for_heaps=bool(about.is_for_heaps),
        works=works,
        reason="" if works else _text(why),
    )


def _text(sentence: Any) -> str:
    return str(ffi.string(sentence).decode("utf-8", "replace"))


class _LaboratoryWatch(WriteWatch):
    """A WriteWatch that the core opens by another door."""

    _TECHNIQUES: ClassVar[Mapping[str, int]] = laboratory()
    _CORE_OPEN: ClassVar[Any] = lib.dh_lab_watch_open


_SAFE: Final = tuple(
    _text(lib.dh_lab_technique_at(i).name)
    for i in range(lib.dh_lab_techniques_count())
    if lib.dh_lab_technique_at(i).is_for_heaps
)


def watch(buffer_or_size: SupportsBuffer | SupportsIndex, technique: str) -> WriteWatch:
    """A :class:`WriteWatch` with any technique of :func:`techniques`.

    What a technique cannot see it does not report, and what it breaks is broken for as long as the
    watch is open: with ``"mprotect"`` and ``"uffd-sync"``, ``file.readinto(watch.buffer)`` raises
    OSError (EFAULT). Memory of a heap is refused.

    Args:
        buffer_or_size: as for WriteWatch.
        technique: its name.

    Raises:
        ValueError: there is none of that name; or as for WriteWatch.
        TrackerError: it does not work here, or not for this memory; the message says why.
        OSError: no file descriptor is left (EMFILE).
        BufferError: as for WriteWatch.

    >>> with dh.lab.watch(8 * 4096, "hash") as watch:
    ...     watch.buffer[3] = 1
    ...     watch.buffer[4096] = 0  # what was there already
    ...     list(watch.get().numbers())
    [0]
    """
    if technique in _SAFE:
        return WriteWatch(buffer_or_size, technique=technique)
    if technique not in _LaboratoryWatch._TECHNIQUES:
        names = ", ".join([*_SAFE, *_LaboratoryWatch._TECHNIQUES])
        raise ValueError(f"technique {technique!r}: must be one of {names}")
    return _LaboratoryWatch(buffer_or_size, technique=technique)
