"""A power failure at any moment leaves the state acknowledged last, or the one under way.

The calls of a whole story (commits, folds, deaths and reopenings, workload.py) are recorded; the
record is replayed to each of its moments, what was not yet behind a barrier is lost, kept or torn
(disk_model.py), and the remains are opened and judged (replaying.py).
"""

from __future__ import annotations

import os
import secrets
import signal
from collections import Counter
from pathlib import Path

import pytest
from disk_model import Disk, KeepAll
from helpers import require_tracker
from recording import Op
from replaying import VOLATILE, Plan, replay, summary
from sabotage import SABOTAGES
from stories import Story, record_story
from workload import STORY

# What of the test run's time goes to random images, after the systematic ones of each moment that
# is looked at: every fourth, others in each run.
RANDOM_SECONDS = float(os.environ.get("DH_REPLAY_SECONDS", "20"))

pytestmark = pytest.mark.timeout(300)


def new_seed() -> str:
    return os.environ.get("DH_SEED") or str(secrets.randbelow(1 << 32))


def test_the_record_rebuilds_the_directory_of_every_life(story: Story) -> None:
    """The recorder saw everything: what it rebuilds equals what was there, byte for byte."""
    disk = Disk()
    done = 0
    for life in story.lives:
        for event in story.events[done : life.events_end]:
            disk.apply(event)
            disk.finish(event)
        done = life.events_end
        rebuilt = disk.image(KeepAll())
        assert set(rebuilt) == set(life.files), life.name
        for path, content in life.files.items():
            assert path in VOLATILE or rebuilt[path] == content, f"{path} after {life.name}"
    assert disk.mapped <= VOLATILE, "stores to these files are not in the record"


def written_after_sync(story: Story) -> set[str]:
    """Base files that were changed between their first sync and the record."""
    synced, changed = set(), set()
    for event in story.events:
        if event.path.startswith("heap/base/") and event.op is Op.SYNC:
            synced.add(event.path)
        elif event.op is Op.WRITE and event.path in synced:
            changed.add(event.path)
    return changed


def test_the_story_has_what_it_is_about(story: Story) -> None:
    """Else the replay would show nothing."""
    require_tracker("auto")  # who compares stages nothing ahead of the record
    ops = Counter(event.op for event in story.events)
    base = Counter(event.op for event in story.events if event.path.startswith("heap/base/"))
    print({op.name: count for op, count in ops.items()})
    assert base[Op.CREATE_FILE] >= 10 and base[Op.UNLINK] >= 8
    assert len(written_after_sync(story)) >= 2, (
        "no file was written ahead of the record, and patched"
    )
    deaths = [life for life in story.lives if life.exit_code == -signal.SIGKILL]
    assert len(deaths) >= 5, "lives that should be killed came to their end"
    marks = Counter(e.path.partition(" ")[0] for e in story.events if e.op is Op.MARK)
    assert marks["done"] > 30 and marks["begin"] - marks["done"] >= 5


def test_every_image_shows_an_acknowledged_state_or_the_one_under_way(
    story: Story, tmp_path: Path
) -> None:
    seed = new_seed()
    plan = Plan(seed, random_per_moment=3, stride=4, passes=1000, seconds=RANDOM_SECONDS)
    outcome = replay(story.events, tmp_path, plan)
    print(summary(outcome, seed))
    assert outcome.problems == []
    assert outcome.images > outcome.moments > 200


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_100_random_images_of_every_moment(story: Story, tmp_path: Path) -> None:
    seed = new_seed()
    outcome = replay(story.events, tmp_path, Plan(seed, random_per_moment=100, singles=8))
    print(summary(outcome, seed))
    assert outcome.problems == []


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_library_with_a_mistake_is_found_out(story: Story, tmp_path: Path, name: str) -> None:
    """Negative controls: the same record with a step left out or out of order."""
    events = SABOTAGES[name](story.events)
    assert events != story.events
    outcome = replay(events, tmp_path, Plan("1", random_per_moment=3, problems_max=1))
    print(summary(outcome, "1"), *outcome.problems, sep="\n")
    assert outcome.problems


def test_a_library_that_does_not_sync_is_found_out(library: Path, tmp_path: Path) -> None:
    """Negative control: the library's own hook turns its syncs and the engine's off."""
    story = record_story(library, tmp_path, STORY[:1], DIRTYHEAP_UNSAFE_NO_SYNC="1")
    assert not any(event.op is Op.SYNC for event in story.events)
    outcome = replay(story.events, tmp_path, Plan("1", random_per_moment=3, problems_max=1))
    print(summary(outcome, "1"), *outcome.problems, sep="\n")
    assert outcome.problems
