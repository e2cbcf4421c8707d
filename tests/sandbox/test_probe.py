"""dh.probe and `dirtyheap doctor`: each answer is made to be yes and no, and says what to do.

Whatever can be taken away from a process is taken away in a child; what only another kernel could
answer otherwise is asked for its form.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import in_child, require_root, require_tracker, skip_kernel_test, skip_test
from restrictions import (
    become_nobody,
    is_known_machine,
    lock_future_memory,
    refuse_pagemap_scan,
    refuse_userfaultfd,
    set_dumpable,
)

import dirtyheap as dh
from dirtyheap import file_system, surroundings

pytestmark = pytest.mark.timeout(60)
GROUPS = ["tracking", "kernel", "process", "memory"]


def probed(restrict: Callable[[], Any] = lambda: None, path: Path | None = None) -> dh.Probe:
    """What a child finds that was restricted."""

    def work() -> dh.Probe:
        restrict()
        return dh.probe(path)

    found = in_child(work)
    assert isinstance(found, dh.Probe), found
    return found


def verdict(found: dh.Probe, name: str) -> dh.Verdict:
    return found.finding(name).verdict


# --- form ----------------------------------------------------------------------------------------


def test_every_answer_has_its_reason_and_every_warning_its_remedy(tmp_path: Path) -> None:
    found = dh.probe(tmp_path)
    names = [each.name for each in found.findings]
    assert len(names) == len(set(names)) > 30
    assert list(dict.fromkeys(each.group for each in found.findings)) == [*GROUPS, "files"]
    for each in found.findings:
        assert each.text and "\n" not in each.text + each.remedy, each
        if each.verdict is dh.Verdict.WARNING:
            assert each.remedy, each
    assert found.ok == (not found.warnings)
    with pytest.raises(KeyError):
        found.finding("frobnication")


def test_as_a_sequence_it_is_the_kernels_trackers() -> None:
    found = dh.probe()
    assert [each.tracker for each in found] == ["uffd", "uffd-dev"]
    assert len(found) == 2 and found[0] is found.trackers[0] and found[-1:] == found.trackers[1:]
    assert all(each.works == (each.reason == "") for each in found)


def test_it_names_the_tracker_that_a_heap_takes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIRTYHEAP_TRACKER", raising=False)
    with dh.open(path) as heap:
        assert heap.stats().tracker == dh.probe().tracker


def test_it_leaves_nothing_behind(tmp_path: Path) -> None:
    def state() -> tuple[list[str], int]:
        maps = Path("/proc/self/maps").read_text()
        return sorted(os.listdir("/proc/self/fd")), maps.count("\n")

    dh.probe(tmp_path)
    before = state()
    for _ in range(20):
        dh.probe(tmp_path)
    fds, maps = state()
    assert fds == before[0] and maps <= before[1] + 2  # the interpreter's own memory grows
    assert os.listdir(tmp_path) == []
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG | 0x40000000)  # __WALL


def test_it_takes_milliseconds(tmp_path: Path) -> None:
    dh.probe(tmp_path)
    began = time.perf_counter()
    dh.probe(tmp_path)
    print(f"{(time.perf_counter() - began) * 1e3:.1f} ms")


# --- a kernel that has it all --------------------------------------------------------------------


def test_on_a_kernel_with_the_feature_everything_that_heaps_need_is_there() -> None:
    require_tracker("auto")
    found = dh.probe()
    for name in ("tracker", "wp-async", "pagemap", "pagemap-scan", "wpallowed"):
        assert verdict(found, name) is dh.Verdict.YES, found.finding(name)
    assert {verdict(found, "uffd-syscall"), verdict(found, "uffd-device")} & {dh.Verdict.YES}
    for name in ("dropped-pages-reported", "rich-masks", "unwatched-reads-written"):
        assert verdict(found, name) in (dh.Verdict.YES, dh.Verdict.NO), found.finding(name)
    for name in ("empty-vector", "arm-race", "mremap-bits"):
        assert verdict(found, name) is dh.Verdict.UNTESTED


def test_soft_dirty_is_what_the_kernel_was_built_with() -> None:
    """Where it says how it was built: /proc/config.gz or /boot."""
    configurations = [Path(f"/boot/config-{os.uname().release}")]
    texts = [path.read_text() for path in configurations if path.exists()]
    if Path("/proc/config.gz").exists():
        texts.append(subprocess.check_output(["zcat", "/proc/config.gz"], text=True))
    if not texts:
        skip_test("this kernel does not say how it was built")
    expected = "CONFIG_MEM_SOFT_DIRTY=y" in texts[0]
    assert (verdict(dh.probe(), "soft-dirty") is dh.Verdict.YES) == expected


# --- taken away ----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
def test_a_refused_system_call_leaves_the_device_node(error: int) -> None:
    if not is_known_machine():
        skip_kernel_test("the filter does not know this machine's system calls")
    found = probed(lambda: refuse_userfaultfd(error, device_too=False))
    assert verdict(found, "uffd-syscall") is dh.Verdict.NO
    assert os.strerror(error) in found.finding("uffd-syscall").text
    assert "seccomp" in found.finding("uffd-syscall").remedy
    assert verdict(found, "seccomp") is dh.Verdict.FACT
    assert "filter" in found.finding("seccomp").text
    has_device = dh.probe()[1].works
    assert found.tracker == ("uffd-dev" if has_device else "compare")
    assert verdict(found, "tracker") is (dh.Verdict.YES if has_device else dh.Verdict.WARNING)


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
def test_without_both_heaps_compare_and_that_is_a_warning(error: int) -> None:
    if not is_known_machine():
        skip_kernel_test("the filter does not know this machine's system calls")
    found = probed(lambda: refuse_userfaultfd(error, device_too=True))
    assert found.tracker == "compare" and not found.ok
    assert verdict(found, "tracker") is dh.Verdict.WARNING
    assert "compare every page" in found.finding("tracker").text
    assert verdict(found, "uffd-device") is dh.Verdict.NO
    for name in ("wp-async", "wpallowed", "dropped-pages-reported", "dropped-huge-reported"):
        assert verdict(found, name) is dh.Verdict.UNTESTED
        assert "userfaultfd is refused" in found.finding(name).text


def test_a_kernel_without_the_scan() -> None:
    if not is_known_machine():
        skip_kernel_test("the filter does not know this machine's system calls")
    found = probed(refuse_pagemap_scan)
    assert found.tracker == "compare"
    assert verdict(found, "pagemap-scan") is dh.Verdict.NO
    assert "6.7" in found.finding("pagemap-scan").remedy
    assert verdict(found, "guard") is dh.Verdict.NO


def test_an_ordinary_user_needs_no_capability() -> None:
    require_root("becoming another user")
    require_tracker("auto")
    found = probed(become_nobody)
    assert verdict(found, "uffd-syscall") is dh.Verdict.YES
    assert found.tracker == "uffd" and verdict(found, "tracker") is dh.Verdict.YES
    assert "uid 65534, capabilities 0000000000000000" in found.finding("user").text
    device = Path("/dev/userfaultfd")
    if device.exists() and not device.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        assert verdict(found, "uffd-device") is dh.Verdict.NO
        assert "permission" in found.finding("uffd-device").remedy


def test_who_is_not_dumpable_cannot_look_at_itself() -> None:
    require_root("becoming another user")

    def restrict() -> None:
        become_nobody()
        set_dumpable(False)

    found = probed(restrict)
    assert verdict(found, "dumpable") is dh.Verdict.WARNING
    assert verdict(found, "pagemap") is dh.Verdict.NO
    assert "PR_SET_DUMPABLE" in found.finding("pagemap").remedy
    assert found.tracker == "compare"
    as_root = probed(lambda: set_dumpable(False))
    assert verdict(as_root, "dumpable") is dh.Verdict.NO  # and heaps can do without


@pytest.mark.parametrize("limit", [None, 64 << 10])
@pytest.mark.parametrize("on_fault", [False, True])
def test_memory_that_is_locked_when_it_is_mapped(on_fault: bool, limit: int | None) -> None:
    """Within ulimit -l, and beyond it."""
    assert verdict(dh.probe(), "mlockall") is dh.Verdict.YES

    def locked() -> list[dh.Finding]:
        if limit is not None:
            if os.geteuid() == 0:
                become_nobody()  # whom the limit binds
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
        lock_future_memory(on_fault=on_fault)
        return list(surroundings.findings())

    found = {each.name: each for each in in_child(locked)}
    assert found["mlockall"].verdict is dh.Verdict.WARNING
    assert "MCL_FUTURE" in found["mlockall"].text
    assert "before mlockall" in found["mlockall"].remedy
    # 64 GiB would be filled to find out.
    assert found["address-space"].verdict is dh.Verdict.UNTESTED


def test_little_address_space() -> None:
    def restrict() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))

    found = probed(restrict)
    assert verdict(found, "address-space") is dh.Verdict.WARNING
    assert "4096 MiB" in found.finding("address-space").text
    assert "capacity=" in found.finding("address-space").remedy
    assert found.finding("ulimit -v").text == f"{8 << 30} bytes"


def test_few_mappings(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"/proc/sys/vm/max_map_count": "4096"}
    monkeypatch.setattr(surroundings, "read_text", lambda path: answers.get(path, ""))
    found = surroundings._mappings()
    assert found.verdict is dh.Verdict.WARNING and "8 GiB" in found.text
    assert "vm.max_map_count" in found.remedy
    answers.clear()
    assert surroundings._mappings().verdict is dh.Verdict.UNTESTED


def test_strict_overcommit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "can_reserve", lambda size: size <= 1 << 30)
    found = surroundings._address_space(is_locked=False)
    assert found.verdict is dh.Verdict.WARNING and "1024 MiB" in found.text
    assert "vm.overcommit_memory" in found.remedy


# --- the place of the heap -----------------------------------------------------------------------


@pytest.mark.parametrize("name", [".", "not/yet/there", "heap"])
def test_the_place_may_be_a_heap_or_not_yet_there(tmp_path: Path, name: str) -> None:
    if name == "heap":
        with dh.open(tmp_path / name) as heap:
            heap.commit("note")
    before = sorted(tmp_path.rglob("*"))
    found = dh.probe(tmp_path / name)
    for each in ("private-mapping", "fsync", "flock", "fsync-directory"):
        assert verdict(found, each) is dh.Verdict.YES, found.finding(each)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("kind", "verdict", "words"),
    [
        ("ext4", dh.Verdict.YES, "ext4"),
        ("tmpfs", dh.Verdict.WARNING, "reboot"),
        ("nfs4", dh.Verdict.WARNING, "across machines"),
        ("overlay", dh.Verdict.WARNING, "container"),
        ("frobfs", dh.Verdict.FACT, "not one that we know"),
    ],
)
def test_what_is_known_of_file_systems(
    tmp_path: Path, kind: str, verdict: dh.Verdict, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path).replace(" ", "\\040")
    lines = [
        "22 1 0:20 / / rw,relatime - ext3 /dev/root rw",
        f"23 22 0:21 / {place} rw shared:1 - {kind} none rw",
        f"24 22 0:22 / {place}x rw - xfs none rw",
    ]
    monkeypatch.setattr(file_system, "read_text", lambda path: "\n".join(lines))
    (found, *_) = file_system.findings(tmp_path)
    assert found.name == "file-system"
    assert found.verdict is verdict and words in found.text
    assert str(tmp_path) in found.text


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_place_where_nobody_may_write(mode: int) -> None:
    require_root("becoming another user")

    def look(path: Path) -> list[dh.Finding]:
        become_nobody()
        return list(file_system.findings(path / "heap"))

    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, mode)
        found = {each.name: each for each in in_child(lambda: look(Path(name)))}
    assert found["writable"].verdict is dh.Verdict.WARNING
    assert "Permission denied" in found["writable"].text and found["writable"].remedy
    assert "flock" not in found and ("file-system" in found) == (mode == 0o755)


def test_a_file_system_in_memory_is_a_warning() -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or file_system._mount_of(shared)[1] != "tmpfs":
        skip_test("there is no tmpfs here")
    found = dh.probe(shared)
    assert verdict(found, "file-system") is dh.Verdict.WARNING and not found.ok


# --- the command ---------------------------------------------------------------------------------


def doctor(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "dirtyheap", "doctor", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


def test_the_command_says_what_the_function_finds(tmp_path: Path) -> None:
    done = doctor(tmp_path, "--json")
    document = json.loads(done.stdout)
    found = dh.probe(tmp_path)
    assert done.returncode == (0 if found.ok else 1) and done.stderr == ""
    assert (document["path"], document["ok"]) == (str(tmp_path), found.ok)
    assert document["tracker"] == found.tracker
    assert [each["tracker"] for each in document["trackers"]] == ["uffd", "uffd-dev"]
    names = [(each["group"], each["name"]) for each in document["findings"]]
    assert names == [(each.group, each.name) for each in found.findings]


def test_exit_codes_are_for_scripts(tmp_path: Path) -> None:
    if not is_known_machine():
        skip_kernel_test("the filter does not know this machine's system calls")
    refused = doctor(preexec_fn=lambda: refuse_userfaultfd(errno.EPERM, device_too=True))
    assert refused.returncode == 1 and "1 warning" in refused.stdout
    assert "-> a commit takes 0.25 us" in refused.stdout
    assert doctor("a", "b").returncode == 2
    assert doctor().returncode == (0 if dh.probe().ok else 1)
    assert "files" not in doctor().stdout
