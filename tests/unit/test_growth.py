"""heap.growth(): which types and containers grew between two commits; and all three on damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import in_child, seeded
from reseal import TABLE_EXTENT
from test_verify import PLACES, make, misdirect
from test_verify_stored import flip, newest_base

import dirtyheap as dh


@dh.record(name="growth.Hit")
class Hit:
    page: str
    more: Any = None


def paths(growth: dh.Growth) -> list[str]:
    return [container.path for container in growth.containers]


def test_a_leak_is_named(path: Path) -> None:
    with dh.open(path, keep=10) as heap:
        heap.root["users"] = [{"name": "Ada"} for _ in range(50)]
        heap.root["cache"] = {"hits": [], "misses": [1, 2, 3]}
        heap.root["hit"] = heap.new(Hit, "/")  # the heap knows the class before
        before = heap.commit()
        hits = heap.root["cache"]["hits"]
        for number in range(2000):
            hits.append(heap.new(Hit, f"a page with a name of some length, {number}"))
        del hits
        heap.root["users"][7]["name"] = "Grace"
        after = heap.commit()
        growth = heap.growth(before)
        assert (growth.before, growth.after) == (before.id, after.id)
        assert paths(growth) == ["root['cache']['hits']"]
        (leak,) = growth.containers
        assert (leak.type, leak.objects) == ("list", 2000) and leak.bytes == leak.own_bytes
        assert 0 < leak.bytes <= growth.bytes
        types = {row.type: row for row in growth.types}
        assert (types["growth.Hit"].objects, types["growth.Hit"].objects_after) == (2000, 2001)
        assert types["growth.Hit"].kind == "record" and types["str"].objects >= 2000
        assert growth.bytes == sum(row.bytes for row in growth.types)
        assert growth.objects == sum(row.objects for row in growth.types)
        assert growth.cells == sum(row.cells for row in growth.types)
        assert [row.bytes for row in growth.types] == sorted(
            (row.bytes for row in growth.types), reverse=True
        )
        text = str(growth)
        assert "record growth.Hit" in text and "root['cache']['hits']" in text
        assert text.splitlines()[-1] == f"from commit {before.id} to {after.id}"


def test_nothing_grew(path: Path) -> None:
    with dh.open(path, keep=10) as heap:
        heap.root["a"] = [1, 2]
        commit = heap.commit()
        growth = heap.growth(commit, commit)
        assert not growth and growth.types == growth.containers == () and growth.bytes == 0
        heap.root["a"][0] = 5
        heap.commit()
        assert not heap.growth(commit)


def test_uncommitted_changes_are_in_neither(path: Path) -> None:
    with dh.open(path, keep=10) as heap:
        heap.root["a"] = [1]
        commit = heap.commit()
        heap.root["a"].extend(range(10_000))
        assert not heap.growth(commit)
        heap.commit()
        assert paths(heap.growth(commit)) == ["root['a']"]


def test_what_shrinks(path: Path) -> None:
    with dh.open(path, keep=10) as heap:
        heap.root["a"] = [[n] for n in range(1000)]
        heap.root["b"] = heap.list()
        commit = heap.commit()
        del heap.root["a"]
        heap.root["b"].extend(range(300))
        heap.commit()
        growth = heap.growth(commit)
        assert growth.bytes < 0 and growth.objects == -1001
        assert paths(growth) == ["root['b']"]  # the root itself is smaller
        assert heap.growth(2, 1).bytes == -growth.bytes


def test_what_moves_is_the_same(path: Path) -> None:
    with dh.open(path, keep=10) as heap:
        heap.root["a"] = {"inner": list(range(5000))}
        heap.root["b"] = {"x": 1}
        commit = heap.commit()
        heap.root["b"]["moved"] = heap.root["a"].pop("inner")
        heap.commit()
        growth = heap.growth(commit)
        assert abs(growth.bytes) < 1000
        assert all(abs(container.own_bytes) < 1000 for container in growth.containers)
        heap.root["b"]["moved"].extend(range(5000))
        heap.commit()
        assert paths(heap.growth(commit))[-1] == "root['b']['moved']"


def test_new_containers_count_for_the_old_one_above(path: Path) -> None:
    with dh.open(path, keep=10) as heap:
        heap.root["top"] = {"old": []}
        commit = heap.commit()
        heap.root["top"]["new"] = {"deep": [[0] * 1000 for _ in range(10)]}
        heap.root["top"]["old"].append({"deep": [[0] * 1000 for _ in range(20)]})
        heap.commit()
        growth = heap.growth(commit)
        assert paths(growth) == ["root['top']", "root['top']['old']"]
        top, old = growth.containers
        assert old.bytes == old.own_bytes > 20 * 8000
        assert top.own_bytes > 10 * 8000 and top.bytes == top.own_bytes + old.bytes
        assert (old.objects, top.objects) == (22, 34)


def test_many_that_grow_a_little_are_told_by_their_holder(path: Path) -> None:
    with dh.open(path, keep=10) as heap:
        heap.root["users"] = [{"log": heap.list()} for _ in range(500)]
        heap.root["other"] = [1]
        commit = heap.commit()
        for user in heap.root["users"]:
            user["log"].extend(["a line that is long enough for a cell"] * 3)
        heap.commit()
        growth = heap.growth(commit)
        assert paths(growth) == ["root['users']"]
        assert growth.containers[0].own_bytes == 0


def test_sums_over_random_changes(path: Path) -> None:
    """Over several commits what each grew by adds up, and a container's path leads to it."""
    rng = seeded("growth")
    with dh.open(path, keep=100) as heap:
        heap.root["lists"] = [heap.list() for _ in range(20)]
        first = heap.commit()
        steps = []
        for _ in range(8):
            for one in rng.sample(list(heap.root["lists"]), 4):
                one.extend({"n": n} for n in range(rng.randrange(1, 60)))
                if len(one) > 50 and rng.random() < 0.5:
                    del one[:40]
            before = heap.last_commit_id
            heap.commit()
            steps.append(heap.growth(before, limit=1000))
        whole = heap.growth(first, limit=1000)
        for name in ("bytes", "cells", "objects", "arena_bytes"):
            assert sum(getattr(step, name) for step in steps) == getattr(whole, name)
        with dh.open(path, read_only=True) as snapshot:
            for container in whole.containers:
                place = eval(container.path, {"root": snapshot.root})
                assert type(place).__name__.lower() == container.type
        assert len(heap.growth(first, limit=2).containers) == min(2, len(whole.containers))
        assert heap.growth(first, limit=0).containers == ()


def test_tags_and_commits(path: Path) -> None:
    with dh.open(path, keep=10) as heap:
        heap.root["a"] = heap.list()
        heap.tag("start", heap.commit())
        heap.root["a"].extend(range(1000))
        second = heap.commit()
        heap.root["a"].extend(range(5000))
        heap.commit()
        assert heap.growth("start", second).after == 2
        assert heap.growth("start").after == 3
        with dh.open(path, read_only=True) as snapshot:
            assert snapshot.growth("start", 2) == heap.growth("start", second)


def test_refused(path: Path) -> None:
    with dh.open(path) as heap:
        heap.commit("empty")
        with pytest.raises(TypeError, match=r"growth\(\) needs a commit to begin with"):
            heap.growth(None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a commit is named by"):
            heap.growth(1.5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="must not be negative"):
            heap.growth(1, limit=-1)
        with pytest.raises(KeyError, match="never"):
            heap.growth("never")
        with pytest.raises(dh.HeapError, match="there is no commit 99"):
            heap.growth(1, 99)
        assert in_child(lambda: heap.growth(1))[:2] == ("raised", "HeapClosedError")
    with pytest.raises(dh.HeapClosedError):
        heap.growth(1)


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_a_reference_that_leads_nowhere(path: Path, place: str) -> None:
    """It is counted and left alone; everything else is counted as before."""
    image = make(path, PLACES[place])
    with dh.open(path, read_only=True) as heap:
        sound = heap.census()
    misdirect(image)
    with dh.open(path) as heap:
        census = heap.census()
        assert census.broken == 1 and "1 references lead nowhere" in str(census)
        assert census.of("str").objects == sound.of("str").objects - 1
        assert census.unreachable_cells == sound.unreachable_cells + 1
        assert census.bytes + census.unreachable_bytes == sound.bytes + sound.unreachable_bytes
        assert heap.why(heap.root).path == "root"
        heap.root["after"] = [1]
        assert heap.why(heap.root["after"]).path == "root['after']"


def test_a_damaged_allocation_table(path: Path) -> None:
    """Without it nobody knows what is a cell: refused, and verify tells more."""
    make(path, lambda heap: heap.root.update(x=list(range(200_000))))
    flip(newest_base(path, TABLE_EXTENT), 2 * 4096 + 40)
    with dh.open(path) as heap:
        verbs: list[Callable[[], object]] = [
            heap.census,
            lambda: heap.why(heap.root),
            lambda: heap.growth(1),
        ]
        for verb in verbs:
            with pytest.raises(dh.HeapCorruptError):
                verb()
        assert not heap.verify().ok
