"""The process that may die: opens damaged files with the real engine.

Reads lines ``directory seed is_guarded`` and answers each with one word (and what follows it):

    refused   the guard did                           error   the engine did, by an exception
    read      all was read, written and committed     broken  the guard refuses what was committed

Silence, then, means a signal or a hang; the test tells which.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import lmdb
from index_files import Workload, open_env

from dirtyheap._ffi import ffi, lib


def check(path: Path) -> tuple[int, str]:
    """Ask the guard: code and sentence."""
    text = ffi.new("char[]", 256)
    fd = os.open(path, os.O_RDONLY)
    try:
        rc = lib.dh_index_check(fd, os.fstat(fd).st_size, text, 256)
    finally:
        os.close(fd)
    return rc, ffi.string(text).decode()


def read_all(env: lmdb.Environment) -> list[object]:
    """Walk every tree and touch every byte of every value; returns the trees."""
    with env.begin() as txn:
        names = [
            key for key in txn.cursor().iternext(keys=True, values=False) if key.startswith(b"tree")
        ]
    trees: list[object] = [None, *(env.open_db(name, create=False) for name in names)]
    with env.begin(buffers=True) as txn:
        for tree in trees:
            for key, value in txn.cursor(tree):
                bytes(key).count(0), bytes(value).count(0)
    return trees


def write_all(env: lmdb.Environment, trees: list[object], rng: random.Random) -> None:
    """Commit a few times, so that pages freed by one transaction are taken by the next."""
    workload = Workload(rng, keys=rng.choice((5, 900, 4000)), key_bytes=rng.choice((8, 480)))
    for _ in range(4):
        workload.commit(env, trees)
    with env.begin(write=True) as txn:
        tree = rng.choice(trees)
        if tree is not None:
            txn.drop(tree, delete=False)
        for _ in range(30):
            workload.operate(txn, rng.choice(trees))


def use(directory: Path, rng: random.Random) -> str:
    """Do with a file what a heap does."""
    try:
        env = open_env(directory)
    except lmdb.Error as error:
        return f"error opening: {error}"
    try:
        trees = read_all(env)
        write_all(env, trees, rng)
    except lmdb.Error as error:
        return f"error: {error}"
    finally:
        env.close()
    return "read"


def answer(directory: Path, seed: int, *, is_guarded: bool) -> str:
    """One file, from guard to guard."""
    data = directory / "data.mdb"
    if is_guarded:
        rc, text = check(data)
        if rc != 0:
            return f"refused {rc} {text}"
    outcome = use(directory, random.Random(seed))
    if is_guarded and outcome == "read":
        rc, text = check(data)
        if rc != 0:
            return f"broken {rc} {text}"
    return outcome


def main() -> None:
    """Serve until the input ends."""
    for line in sys.stdin:
        directory, seed, is_guarded = line.rsplit(maxsplit=2)
        print(answer(Path(directory), int(seed), is_guarded=is_guarded == "1"), flush=True)


if __name__ == "__main__":
    main()
