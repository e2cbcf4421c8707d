"""Run in a kernel without PAGEMAP_SCAN only, by boot.py: what is said there, and what works.

Not collected by itself: there must be such a kernel.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from helpers import change, contents, fill, plain

import dirtyheap as dh

assert os.environ.get("DH_OLD_KERNEL") == "1", "see boot.py"


def test_this_is_an_old_kernel() -> None:
    major, minor = map(int, os.uname().release.split(".")[:2])
    print(os.uname().release)
    assert (major, minor) < (6, 7)


def test_the_probe_says_what_is_missing_and_what_it_takes() -> None:
    found = dh.probe("/run")
    assert found.tracker == "compare" and not found.ok
    assert not any(result.works for result in found)
    assert "Linux 6.7" in found[0].reason
    assert found.finding("tracker").verdict is dh.Verdict.WARNING
    # The system call is there; the feature and the scan are not.
    assert found.finding("uffd-syscall").verdict is dh.Verdict.YES
    assert found.finding("wp-async").verdict is dh.Verdict.NO
    assert "6.7" in found.finding("wp-async").remedy
    scan = found.finding("pagemap-scan")
    assert scan.verdict is dh.Verdict.NO and "Inappropriate ioctl" in scan.text
    assert found.finding("dropped-pages-reported").verdict is dh.Verdict.UNTESTED


def test_soft_dirty_toggles() -> None:
    """Debian builds it in: the one place where the answer is yes."""
    found = dh.probe().finding("soft-dirty")
    assert found.verdict is dh.Verdict.YES, found


def test_a_heap_falls_back_and_says_so(path: Path) -> None:
    with dh.open(path) as heap:
        assert heap.stats().tracker == "compare"
        assert "Linux 6.7" in heap.stats().tracker_reason
        fill(heap)
        heap.commit()
        for seed in range(10):
            change(heap, random.Random(seed))
            expected = plain(heap)
            heap.commit()
        heap.root["numbers"][1] = "uncommitted"
        heap.rollback()
        assert plain(heap) == expected
        heap.fold()
    assert contents(path) == expected


def test_proof_mode_finds_the_fallback_right(path: Path) -> None:
    with dh.open(path, proof=True) as heap:
        fill(heap)
        for seed in range(10):
            change(heap, random.Random(seed))
            heap.commit()


@pytest.mark.parametrize("tracker", ["uffd", "uffd-dev"])
def test_who_insists_is_refused_with_the_reason(path: Path, tracker: str) -> None:
    with pytest.raises(dh.TrackerError, match="Linux 6"):
        dh.open(path, tracker=tracker)
    with dh.open(path) as heap:  # nothing stands in the way of the next
        heap.commit("note")
