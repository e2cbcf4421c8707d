"""Out of file descriptors: an error that says what to do, and never another technique in silence.

What tracks writes for heaps and watches must not depend on how many files a program has open: the
others cost more and promise less. Nor may a look at the machine blame the kernel.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import in_child, require_tracker, skip_kernel_test
from restrictions import is_known_machine, refuse_userfaultfd

import dirtyheap as dh
from dirtyheap import surroundings

PAGE = 4096
FREE_MAX = 24  # of which any verb here has enough

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def _needs_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    require_tracker("uffd")
    monkeypatch.delenv("DIRTYHEAP_TRACKER", raising=False)


def leave(free_count: int) -> None:
    """Let this process open so many files and no more; those in between are taken."""
    limit = max(map(int, os.listdir("/proc/self/fd"))) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    taken = []
    try:
        while True:
            taken.append(os.open("/", os.O_PATH))
    except OSError as error:
        assert error.errno == errno.EMFILE
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    for fd in taken[:free_count]:
        os.close(fd)
    assert free_count <= len(taken), "make more room first"


def with_free(free_count: int, work: Callable[[], Any]) -> Any:
    """What work answers in a child with so many free descriptors."""

    def child() -> Any:
        room = [os.open("/", os.O_PATH) for _ in range(FREE_MAX)]
        highest = os.dup(room[-1])
        for fd in room:
            os.close(fd)
        leave(free_count)
        assert highest >= 0
        return work()

    return in_child(child)


def refusal(error: OSError) -> tuple[str, int | None, str]:
    return "refused", error.errno, str(error)


# --- watches --------------------------------------------------------------------------------------


def open_watches(technique: str) -> tuple[list[str], Any]:
    """The techniques of as many watches as can be had, and what ends it."""
    watches: list[dh.WriteWatch] = []
    try:
        while len(watches) < 100:
            watches.append(dh.WriteWatch(PAGE, technique=technique))
    except OSError as error:
        last = watches[-1] if watches else None
        if last is not None:
            last.buffer[0] = 1
            assert last.get(reset=True).count == 1, "those that are open go on"
        return [watch.technique for watch in watches], refusal(error)
    return [watch.technique for watch in watches], None


@pytest.mark.parametrize("technique", ["auto", "uffd"])
@pytest.mark.parametrize("free_count", range(11))
def test_a_watch_is_refused_and_never_another_one(technique: str, free_count: int) -> None:
    techniques, ended = with_free(free_count, lambda: open_watches(technique))
    assert set(techniques) <= {"uffd"}
    assert len(techniques) >= (free_count - 2) // 2, "two for each, two more while it is opened"
    assert ended[:2] == ("refused", errno.EMFILE)
    assert "ulimit -n" in ended[2] and "6.7" not in ended[2]


def test_comparing_takes_no_descriptor() -> None:
    techniques, ended = with_free(0, lambda: open_watches("compare"))
    assert techniques == ["compare"] * 100 and ended is None


@pytest.mark.parametrize("technique", ["auto", "uffd"])
def test_a_system_without_open_files_is_no_other_technique_either(technique: str) -> None:
    if not is_known_machine():
        skip_kernel_test("the filter does not know this machine's system calls")

    def child() -> Any:
        refuse_userfaultfd(errno.ENFILE, device_too=False)
        return open_watches(technique)

    techniques, ended = in_child(child)
    assert techniques == [] and ended[1] == errno.ENFILE and "fs.file-max" in ended[2]


def test_a_scan_says_what_is_missing() -> None:
    def child() -> Any:
        try:
            return dh.pagemap.scan(bytearray(PAGE))
        except OSError as error:
            return refusal(error)

    dh.pagemap.categories()
    assert with_free(0, child)[1] == errno.EMFILE


# --- heaps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("free_count", range(13))
def test_a_heap_is_refused_and_never_compares(path: Path, free_count: int) -> None:
    with dh.open(path) as heap:
        heap.root["a"] = 1
        heap.commit()

    def child() -> Any:
        try:
            with dh.open(path) as heap:
                heap.root["a"] += 1
                heap.commit()
                return heap.stats().tracker
        except (OSError, dh.HeapError) as error:
            return "refused", str(error)

    answer = with_free(free_count, child)
    if answer != "uffd":
        assert answer[0] == "refused" and "oo many open files" in answer[1], answer
        assert free_count < 8
    with dh.open(path) as heap:
        assert heap.root["a"] == (2 if answer == "uffd" else 1)


# --- the laboratory -------------------------------------------------------------------------------


def test_no_technique_of_the_laboratory_blames_the_kernel() -> None:
    works = {each.name for each in dh.lab.techniques() if each.works}

    def child() -> Any:
        found = []
        for each in dh.lab.techniques():
            try:
                dh.lab.watch(PAGE, each.name).close()
            except OSError as error:
                found.append((each.name, each.reason, error.errno, str(error)))
            except dh.TrackerError as error:
                found.append((each.name, each.reason, None, str(error)))
            else:
                found.append((each.name, each.reason, 0, ""))
        return found

    assert {name for name, *_ in with_free(0, child)} == {t.name for t in dh.lab.techniques()}
    for free_count in range(5):
        for name, reason, number, text in with_free(free_count, child):
            if name not in works:
                continue
            for sentence in filter(None, (reason, text)):
                assert "ulimit -n" in sentence, (free_count, name, sentence)
            assert number in (0, errno.EMFILE), (free_count, name, text)


# --- looking at the machine -----------------------------------------------------------------------


@pytest.mark.parametrize("free_count", range(9))
def test_a_probe_blames_the_limit_and_nothing_else(tmp_path: Path, free_count: int) -> None:
    usual = {each.name: each.verdict for each in dh.probe(tmp_path).findings}
    found = with_free(free_count, lambda: dh.probe(tmp_path))
    assert isinstance(found, dh.Probe), found
    assert found.finding("ulimit -n").verdict is dh.Verdict.WARNING
    assert f"of which {free_count} are free" in found.finding("ulimit -n").text
    assert found.finding("ulimit -n").remedy == "raise ulimit -n, or close files"
    assert found.tracker == ("uffd" if free_count >= 4 else "")
    for each in found.findings:
        if each.name in ("ulimit -n", "tracker"):
            continue
        assert each.verdict in (usual.get(each.name), dh.Verdict.UNTESTED), each
        assert "not there" not in each.text or "not there" in dh.probe().finding(each.name).text
    tracking = found.finding("tracker")
    if free_count < 4:
        assert tracking.verdict is dh.Verdict.WARNING
        assert "no heap can be opened now" in tracking.text and "6.7" not in tracking.text
        assert tracking.remedy == "see ulimit -n"
    for result in found:
        assert result.works or "ulimit -n" in result.reason


def test_with_descriptors_to_spare_all_is_well() -> None:
    found = with_free(FREE_MAX, dh.probe).finding("ulimit -n")
    assert found.verdict is dh.Verdict.YES and f"{FREE_MAX} are free" in found.text


def test_a_probe_of_a_full_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """What root is never refused."""

    def full(path: str) -> list[str]:
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    monkeypatch.setattr(surroundings.os, "listdir", full)
    found = surroundings._descriptors()
    assert found.verdict is dh.Verdict.WARNING and found.remedy == "raise the sysctl fs.file-max"

    def absent(path: str) -> list[str]:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(surroundings.os, "listdir", absent)
    assert surroundings._descriptors().verdict is dh.Verdict.UNTESTED
