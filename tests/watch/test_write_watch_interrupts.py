"""A signal's handler that raises, at every place of every verb of a write watch: no written page is
forgotten, nothing stays open that nobody can close, nothing is closed twice.
"""

from __future__ import annotations

import gc
import itertools
import mmap
from collections.abc import Callable

import pytest
from interrupts import InterruptAt

import dirtyheap as dh

PAGE = 4096
PAGES = 64

pytestmark = [pytest.mark.timeout(120), pytest.mark.parametrize("technique", ["auto", "compare"])]


def interrupted_everywhere(work: Callable[[InterruptAt], None]) -> int:
    """Work with an interrupt at its first place, its second one, ... until none is left; returns
    how many there were."""
    for number in itertools.count(1):
        interrupt = InterruptAt(number)
        work(interrupt)
        if not interrupt.where:
            return number
    raise AssertionError


def test_a_get_that_resets_and_raises_has_reset_nothing(technique: str) -> None:
    with dh.WriteWatch(PAGES * PAGE, technique=technique) as watch, watch.cursor() as other:

        def work(interrupt: InterruptAt) -> None:
            watch.buffer[5 * PAGE] = (watch.buffer[5 * PAGE] + 1) % 256
            told = None
            try:
                with interrupt:
                    told = watch.get(reset=True)
            except KeyboardInterrupt:
                pass
            left = watch.get(reset=True).ranges()
            assert ([] if told is None else told.ranges()) + left == [(5, 6)], interrupt.where
            assert other.get(reset=True).ranges() == [(5, 6)], interrupt.where

        assert interrupted_everywhere(work) > 10


def test_an_opening_that_raises_leaves_the_memory_free(technique: str) -> None:
    with mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:

        def work(interrupt: InterruptAt) -> None:
            watch = None
            try:
                with interrupt:
                    watch = dh.WriteWatch(memory, technique=technique)
            except KeyboardInterrupt:
                pass
            if watch is not None:
                watch.close()
            del watch
            gc.collect()
            dh.WriteWatch(memory, technique=technique).close()  # BufferError: it is still watched

        assert interrupted_everywhere(work) > 10


def test_cursors_whose_opening_or_closing_raises_come_back(technique: str) -> None:
    with dh.WriteWatch(PAGES * PAGE, technique=technique) as watch:

        def work(interrupt: InterruptAt) -> None:
            cursor = None
            try:
                with interrupt:
                    cursor = watch.cursor()
                    cursor.close()
            except KeyboardInterrupt:
                pass
            another = watch.cursor()  # perhaps in the place of the one that was closed
            del cursor
            gc.collect()
            watch.buffer[3 * PAGE] = (watch.buffer[3 * PAGE] + 1) % 256
            assert another.get().ranges() == [(3, 4)], interrupt.where
            another.close()

        places = interrupted_everywhere(work)
        assert places > 10
        cursors = [watch.cursor() for _ in range(7)]  # none was lost on the way
        for one in cursors:
            one.close()


def test_a_close_that_raises_can_be_made_again(technique: str) -> None:
    with mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:

        def work(interrupt: InterruptAt) -> None:
            watch = dh.WriteWatch(memory, technique=technique)
            try:
                with interrupt:
                    watch.close()
            except KeyboardInterrupt:
                pass
            watch.close()
            del watch
            dh.WriteWatch(memory, technique=technique).close()

        assert interrupted_everywhere(work) > 2
