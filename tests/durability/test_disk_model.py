"""The model of a disk loses what it may lose, and nothing else."""

from __future__ import annotations

import random

import pytest
from disk_model import Change, Disk, KeepAll, LoseAll, OneOut, RandomFates
from recording import Event, Op


def disk_of(*events: Event) -> Disk:
    disk = Disk()
    for event in events:
        disk.apply(event)
        disk.finish(event)
    return disk


def made(path: str, inode: int) -> Event:
    return Event(Op.CREATE_FILE, path, inode=inode)


def written(inode: int, offset: int, data: bytes, *, is_synchronous: bool = False) -> Event:
    return Event(Op.WRITE, inode=inode, offset=offset, data=data, is_synchronous=is_synchronous)


def synced(inode: int, path: str = "a") -> Event:
    return Event(Op.SYNC, path, inode=inode)


ROOT_SYNC = Event(Op.SYNC, "")


def test_what_is_synced_stays() -> None:
    disk = disk_of(made("a", 1), written(1, 0, b"hello"), synced(1), ROOT_SYNC)
    assert disk.pending() == []
    assert disk.image(LoseAll()) == {"a": b"hello"}


def test_a_file_whose_name_is_not_synced_may_be_gone() -> None:
    disk = disk_of(made("a", 1), written(1, 0, b"hello"), synced(1))
    assert disk.image(LoseAll()) == {}
    assert disk.image(KeepAll()) == {"a": b"hello"}


def test_a_name_without_its_bytes() -> None:
    disk = disk_of(made("a", 1), ROOT_SYNC, written(1, 0, b"hello"))
    assert disk.image(LoseAll()) == {"a": b""}


def test_a_synchronous_write_is_durable_and_takes_nothing_else_with_it() -> None:
    disk = disk_of(
        made("a", 1),
        ROOT_SYNC,
        written(1, 0, b"x" * 512),
        written(1, 512, b"meta", is_synchronous=True),
        written(1, 516, b"later"),
    )
    assert disk.image(LoseAll()) == {"a": bytes(512) + b"meta"}


def test_a_synchronous_write_is_pending_until_it_returns() -> None:
    disk = disk_of(made("a", 1), ROOT_SYNC)
    disk.apply(written(1, 0, b"meta", is_synchronous=True))
    assert disk.image(LoseAll()) == {"a": b""}


def test_one_pending_change_of_several() -> None:
    disk = disk_of(made("a", 1), ROOT_SYNC, written(1, 0, b"AA"), written(1, 1, b"BB"))
    first, second = disk.pending()
    assert disk.image(OneOut(first, is_kept=True)) == {"a": b"AA"}
    assert disk.image(OneOut(second, is_kept=True)) == {"a": b"\0BB"}
    assert disk.image(KeepAll()) == {"a": b"ABB"}


def test_unlink_and_truncate_can_be_lost() -> None:
    disk = disk_of(
        made("a", 1), made("b", 2), written(1, 0, b"hello"), synced(1), ROOT_SYNC,
        Event(Op.TRUNCATE, inode=1, offset=2), Event(Op.UNLINK, "b"),
    )  # fmt: skip
    assert disk.image(LoseAll()) == {"a": b"hello", "b": b""}
    assert disk.image(KeepAll()) == {"a": b"he"}


def test_a_rename_is_whole_or_not_at_all() -> None:
    disk = disk_of(
        made("a", 1), made("b", 2), written(2, 0, b"new"), synced(2), ROOT_SYNC,
        Event(Op.RENAME, "b", "a"),
    )  # fmt: skip
    images = {
        tuple(sorted(disk.image(RandomFates(random.Random(seed))).items())) for seed in range(50)
    }
    assert images == {(("a", b""), ("b", b"new")), (("a", b"new"),)}


def test_what_is_in_a_lost_directory_is_lost() -> None:
    disk = disk_of(
        Event(Op.CREATE_DIRECTORY, "d", inode=3),
        made("d/a", 1),
        Event(Op.SYNC, "d", inode=3),
    )
    assert disk.image(LoseAll()) == {}
    assert disk.image(KeepAll()) == {"d": None, "d/a": b""}


def test_an_inode_that_is_used_again_is_another_file() -> None:
    disk = disk_of(
        made("a", 1), written(1, 0, b"old"), Event(Op.UNLINK, "a"), made("b", 1),
        written(1, 0, b"new"),
    )  # fmt: skip
    assert disk.image(KeepAll()) == {"b": b"new"}


def test_sectors_are_torn_where_sectors_are() -> None:
    change = Change(500, b"x" * 1100)
    parts = [change.sector_part(index) for index in range(change.sectors_count)]
    assert [(offset, len(data)) for offset, data in parts] == [
        (500, 12),
        (512, 512),
        (1024, 512),
        (1536, 64),
    ]


def test_random_fates_reach_every_kind_of_damage() -> None:
    """Torn sectors, size without bytes (zeros and garbage), bytes without size."""
    disk = disk_of(made("a", 1), ROOT_SYNC, written(1, 0, b"x" * 512 + b"y" * 512))
    found = {disk.image(RandomFates(random.Random(seed)))["a"] for seed in range(300)}
    assert {
        b"", bytes(512), bytes(1024), b"\xa5" * 1024, b"x" * 512 + b"y" * 512,
        b"x" * 512 + bytes(512), bytes(512) + b"y" * 512,
    } <= found  # fmt: skip
    assert all(content is not None and len(content) in (0, 512, 1024) for content in found)


def test_a_call_that_is_not_modelled_is_no_silent_hole() -> None:
    with pytest.raises(AssertionError, match="fallocate"):
        disk_of(Event(Op.UNMODELLED, "fallocate", "a"))
