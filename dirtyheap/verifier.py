"""Verify: everything a heap has on disk and in memory, held against the rules of its format.

    index     the engine's B-trees, by the guard's own walk
    rows      hashes and types; each commit the child of the one before
    files     trailers, and every page by its checksum
    deltas    played back: every page that comes of them
    contents  the allocator, every container, every value's one owner

:func:`verify_open` looks at a heap that is open, :func:`verify` at one that need not even open:
it writes nothing, goes on where ``dh.open`` refuses, and tells all it can find. What is damaged is
named by where it is reached: ``root['users'][17]['name']``. Nothing here repairs anything.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import lmdb

from . import _native, environments, index, rows
from ._ffi import check, ffi, lib
from .base_files import BASE_NAME, Extent, is_file_name
from .environments import DATA_NAME
from .errors import HeapCorruptError, HeapError, HeapLockedError
from .results import Problem, VerifyReport
from .verify_rows import Contents, RowReader

_PROBLEMS_MAX: Final = 200
_CAPACITY_BYTES_MIN: Final = 1 << 20
_EXTENT_PAGES: Final = 1024
_TRAILER_BYTES_MIN: Final = 28
_FILE_BYTES_PER_PAGE: Final = 4100  # of a base file: the page and its checksum
_TABLE_PAGE: Final = 1 << 31  # in numbers of pages: of the allocation table
_TEXT_BYTES: Final = 256
# Cells between two calls of progress: some tens of milliseconds.
_CELLS_PER_STEP: Final = 200_000
_CELLS_ALL: Final = (1 << 64) - 1
_INDEX_ATTEMPTS: Final = 20

Progress = Callable[[str, int, int], object]
"""Called as ``progress(step, done, total)``; what it raises ends the run."""


def _silent(step: str, done: int, total: int) -> None:
    pass


@dataclass
class _Findings:
    """What one run has found so far."""

    began_ns: int = field(default_factory=time.perf_counter_ns)
    problems: list[Problem] = field(default_factory=list)
    problems_count: int = 0
    commits: int = 0
    bytes: int = 0
    stats: Any = None

    def add(self, path: str, what: object, where: str = "", count: int = 1) -> None:
        """Note a problem; beyond the first so many they are only counted."""
        if len(self.problems) < _PROBLEMS_MAX:
            self.problems.append(Problem(path, str(what), where))
        self.problems_count += count

    def report(self) -> VerifyReport:
        """The end."""
        stats = self.stats or ffi.new("dh_verify_stats *")
        return VerifyReport(
            problems=tuple(self.problems),
            problems_count=self.problems_count,
            containers=stats.containers_count,
            cells=stats.cells_count,
            unreachable_cells=stats.unreachable_cells_count,
            unreachable_bytes=stats.unreachable_bytes,
            pages=stats.pages_count,
            commits=self.commits,
            bytes=self.bytes,
            duration_ns=time.perf_counter_ns() - self.began_ns,
        )


@dataclass
class _BadPages:
    """Pages of the newest commit that are not as stored, for the walk to name what stands there."""

    wrong: set[int] = field(default_factory=set)
    missing: set[int] = field(default_factory=set)


def verify_open(
    heap_ptr: Any, directory: Path, commit: int, progress: Progress | None = None
) -> VerifyReport:
    """Check an open heap that shows a commit: what is stored, and what is in memory; see
    :meth:`Heap.verify`. Needs the heap's lock: nobody commits meanwhile."""
    run = _Run(directory, progress)
    bad = run.check_directory(lambda replay, bad: None)
    is_newest = bool(run.contents.kept) and run.contents.kept[-1].id == commit
    run.check_structure(heap_ptr, bad if is_newest else _BadPages(), step_cells=None)
    return run.findings.report()


def verify(path: str | os.PathLike[str], *, progress: Progress | None = None) -> VerifyReport:
    """Check the heap in a directory without opening it: also one that :func:`open` refuses.

    Nothing is changed. Where somebody has the heap open for writing, its last commit is looked at.

    Args:
        path: the heap's directory.
        progress: called as ``progress(step, done, total)`` now and then, from this thread.

    Raises:
        FileNotFoundError: there is nothing.
        HeapError: it is no heap, or of a format that this version does not know.
        HeapLockedError: it is written to so fast that it cannot be looked at.

    Cost: reads every base file, every delta and every page that can be reached. Memory: 4 KiB for
    each page that unfolded deltas touch, 4 % of the heap for notes, 16 bytes for each cell of the
    longest chain of references; pages of base files belong to the page cache.

    >>> import dirtyheap as dh, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "h")
    >>> with dh.open(path) as heap:
    ...     heap.root["a"] = [1, 2, 3]
    ...     commit = heap.commit()
    >>> report = dh.verify(path)
    >>> report.ok, report.commits, report.containers
    (True, 1, 2)
    """
    run = _Run(_checked_directory(Path(path)), progress)
    run.check_directory(run.check_contents)
    return run.findings.report()


# --- the directory --------------------------------------------------------------------------------


def _checked_directory(directory: Path) -> Path:
    if not directory.exists():
        raise FileNotFoundError(f"there is no heap at {directory}")
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory} is a file: a heap is a directory")
    if not os.path.lexists(directory / DATA_NAME) and not (directory / BASE_NAME).is_dir():
        raise HeapError(f"{directory} is no heap: it has no {DATA_NAME}")
    return directory.absolute()


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A file's descriptor for a block; links and devices are refused."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "is no regular file")
        yield fd
    finally:
        os.close(fd)


# --- what is stored -------------------------------------------------------------------------------


class _NoIndexError(Exception):
    """The index is sound as trees of the engine, but it is not that of a heap any more."""


class _Replay:
    """The core's replay of deltas over base files."""

    def __init__(self) -> None:
        out = ffi.new("dh_replay **")
        check(lib.dh_replay_new(out))
        self.ptr = out[0]

    def __enter__(self) -> _Replay:
        return self

    def __exit__(self, *_: object) -> None:
        lib.dh_replay_free(self.ptr)

    def bad(self, first: int = 0) -> Iterator[tuple[int, int]]:
        """Pages that came out wrong since the last fold point, with the commit that stored them."""
        page, commit = ffi.new("uint32_t *"), ffi.new("uint64_t *")
        while lib.dh_replay_bad_read(self.ptr, first, page, commit) == 0:
            yield page[0], commit[0]
            first += 1


class _Run:
    """One run over one heap."""

    def __init__(self, directory: Path, progress: Progress | None) -> None:
        self.directory = directory
        self.base = directory / BASE_NAME
        self.findings = _Findings()
        self.contents = Contents(b"")
        self._tell = progress or _silent

    # --- the index ---------------------------------------------------------------------------

    def check_directory(self, then: Callable[[_Replay, _BadPages], object]) -> _BadPages:
        """Everything that is stored; ``then`` sees what was played back. Without an index that can
        be trusted, what can be said of the base files by themselves."""
        if not self._check_index():
            self._check_files_alone()
            return _BadPages()
        try:
            with _Replay() as replay:
                with self._reading() as reader:
                    bad = self._check_stored(reader, replay)
                then(replay, bad)
            return bad
        except _NoIndexError as error:
            self.findings.add(DATA_NAME, error)
            self._check_files_alone()
            return _BadPages()

    def _check_index(self) -> bool:
        """The engine aborts on damaged trees: nothing is read through it before the guard was."""
        data = self.directory / DATA_NAME
        try:
            environments.refuse_links(self.directory)
            self.findings.bytes += data.stat().st_size
            self._guard()
        except FileNotFoundError:
            self.findings.add(DATA_NAME, "is missing: what the heap held is not known")
        except HeapLockedError:
            raise
        except HeapError as error:
            self.findings.add(DATA_NAME, error)
        else:
            return True
        return False

    def _guard(self) -> None:
        data = self.directory / DATA_NAME
        for _ in range(_INDEX_ATTEMPTS):
            if index.check_index(data) != errno.EAGAIN:
                return
        raise HeapLockedError(f"{data} is written to without a pause: try again")

    def _prepare(self, env: lmdb.Environment) -> tuple[Any, dict[str, Any]]:
        """Once more, with a transaction that keeps writers off the pages that it can reach."""
        with env.begin():
            self._guard()
            try:
                return index.open_databases(env, self.directory)
            except HeapCorruptError as error:
                raise _NoIndexError(str(error)) from None

    @contextmanager
    def _reading(self) -> Iterator[RowReader]:
        """One transaction over a sound index."""
        with (
            environments.borrow(self.directory, self._prepare) as shared,
            shared.env.begin() as txn,
        ):
            yield RowReader(shared.databases, txn, shared.meta)

    # --- rows and files ----------------------------------------------------------------------

    def _check_stored(self, reader: RowReader, replay: _Replay) -> _BadPages:
        """Rows, chain, files and deltas. Leaves the replay at the newest commit."""
        self.contents = reader.read(self.findings.add)
        self.findings.commits = len(self.contents.kept)
        bad = self._check_files()
        self._check_deltas(reader, replay)
        bad.wrong.update(page for page, _ in replay.bad())
        return bad

    def _check_files(self) -> _BadPages:
        bad = _BadPages()
        extents = self.contents.extents
        newest = {extent.number: extent for extent in extents}
        for done, extent in enumerate(extents):
            self._tell("base files", done, len(extents))
            pages = self._check_row_file(extent)
            if newest[extent.number] is not extent:
                continue
            first = extent.number * _EXTENT_PAGES
            if pages is None:
                bad.missing.update(range(first, first + _EXTENT_PAGES))
            else:
                bad.wrong.update(first + page for page in pages)
        self._tell("base files", len(extents), len(extents))
        self._names()  # files that no row names are no problem: open removes those of a crash
        return bad

    def _check_row_file(self, extent: Extent) -> set[int] | None:
        """Pages of a base file that are wrong; None: it is of no use."""
        path = f"{BASE_NAME}/{extent.file_name}"
        try:
            with _opened(self.base / extent.file_name) as fd:
                return self._check_file(fd, extent)
        except FileNotFoundError:
            if self._is_given_up(extent):
                return set()
            self.findings.add(path, "is missing", _extent(extent.number))
        except OSError as error:
            self.findings.add(path, error.strerror or error, _extent(extent.number))
        return None

    def _is_given_up(self, extent: Extent) -> bool:
        """Whether a writer beside us has pruned the version since we began: files go only after
        the index has ceased to name them (S1)."""
        with (
            environments.borrow(self.directory, self._prepare) as shared,
            shared.env.begin() as txn,
        ):
            key = rows.extent_key(extent.number, extent.version)
            return txn.get(key, db=shared.databases.extents) is None

    def _check_file(self, fd: int, extent: Extent) -> set[int] | None:
        path, size = f"{BASE_NAME}/{extent.file_name}", os.fstat(fd).st_size
        where = _extent(extent.number)
        self.findings.bytes += size
        if size != extent.file_bytes:
            self.findings.add(path, f"has {size} bytes, not {extent.file_bytes}", where)
            return None
        pages, count = ffi.new("uint32_t[]", _EXTENT_PAGES), ffi.new("size_t *")
        text = ffi.new("char[]", _TEXT_BYTES)
        rc = lib.dh_base_check(
            *(fd, size, extent.number, extent.version, extent.checksum),
            *(pages, _EXTENT_PAGES, count, text, _TEXT_BYTES),
        )
        if rc == lib.DH_E_CORRUPT:
            self.findings.add(path, _string(text), where)
            return None
        check(rc)
        found = {pages[i] for i in range(count[0])}
        if found:
            what = f"the checksum of {len(found)} of its pages is wrong"
            self.findings.add(path, what, f"{where}, pages {_ranges(found)}", len(found))
        return found

    def _names(self) -> list[str]:
        """Of what is in the directory of base files; a link to elsewhere is not followed."""
        try:
            mode = self.base.lstat().st_mode
        except FileNotFoundError:
            return []
        if not stat.S_ISDIR(mode):
            self.findings.add(BASE_NAME, "is no directory, or a link to one")
            return []
        return sorted(os.listdir(self.base))

    def _check_files_alone(self) -> None:
        """Without an index: whether each base file is what its own name and trailer say."""
        for name in self._names():
            if not is_file_name(name):
                continue
            number, version = (int(part, 16) for part in name.split(".")[:2])
            try:
                with _opened(self.base / name) as fd:
                    size = os.fstat(fd).st_size
                    checksum = int.from_bytes(os.pread(fd, 4, max(size - 4, 0)), "little")
                    self._check_file(fd, Extent(number, version, size, checksum, name))
            except OSError as error:
                self.findings.add(f"{BASE_NAME}/{name}", error.strerror or error)

    # --- deltas ------------------------------------------------------------------------------

    def _check_deltas(self, reader: RowReader, replay: _Replay) -> None:
        """Play back what the kept commits need, for each of them over its own versions of the base
        files: where a newer one has taken a delta in, the delta is of no use to it."""
        kept = self.contents.kept
        fold, done = -1, 0
        for number, target in enumerate(kept):
            self._tell("deltas", number, len(kept))
            if target.fold != fold:
                lib.dh_replay_fold(replay.ptr)
                fold, done = target.fold, target.fold
                self._show_bases(replay, self.contents.bases(target.id))
            else:
                self._show_bases(replay, self.contents.bases(target.id, after=done))
            known = int(lib.dh_replay_bad_count(replay.ptr))
            for record in self.contents.between(done, target.id):
                self._check_delta(reader, replay, record)
            for page, commit in replay.bad(known):
                what = "a page comes out with a wrong checksum"
                self.findings.add(f"deltas[{commit}]", what, _page(page))
            done = target.id
        self._tell("deltas", len(kept), len(kept))

    def _show_bases(self, replay: _Replay, extents: dict[int, Extent]) -> None:
        for extent in extents.values():
            pages = max(extent.file_bytes - _TRAILER_BYTES_MIN, 0) // _FILE_BYTES_PER_PAGE
            row = (replay.ptr, extent.number, extent.version)
            try:
                with _opened(self.base / extent.file_name) as fd:
                    rc = lib.dh_replay_base(*row, fd, min(pages, _EXTENT_PAGES))
            except OSError:  # told before
                rc = lib.dh_replay_base(*row, -1, 0)
            check(rc)

    def _check_delta(self, reader: RowReader, replay: _Replay, record: rows.Record) -> None:
        path = f"deltas[{record.id}]"
        body, is_whole = rows.body_hasher(), True
        text = ffi.new("char[]", _TEXT_BYTES)
        for number in range(record.chunks):
            chunk = reader.chunk(record, number)
            if chunk is None:
                self.findings.add(path, "is missing", f"chunk {number} of {record.chunks}")
                return  # a damaged count would have billions missing
            self.findings.bytes += len(chunk)
            body.update(chunk)
            rc = lib.dh_replay_chunk(
                *(replay.ptr, record.id, number),
                *(ffi.from_buffer(chunk), len(chunk), text, _TEXT_BYTES),
            )
            if rc == lib.DH_E_CORRUPT:
                self.findings.add(path, _string(text), f"chunk {number}")
                is_whole = False
            else:
                check(rc)
        if record.chunks and is_whole and body.digest() != record.body_hash:
            self.findings.add(path, "the hash over its chunks is wrong")

    # --- contents ----------------------------------------------------------------------------

    def check_contents(self, replay: _Replay, bad: _BadPages) -> None:
        """Show what was played back in a core of its own, and walk it."""
        if not self.contents.kept:
            return
        last, key = self.contents.kept[-1], self.contents.hash_key
        keys = (int.from_bytes(half, "little") for half in (key[:8], key[8:]))
        capacity = max(last.hwm_pages * rows.PAGE_BYTES, _CAPACITY_BYTES_MIN)
        try:
            core = _native.Core(capacity, lib.DH_TRACKER_COMPARE, *keys)
        except (OSError, OverflowError, ValueError, MemoryError) as error:
            self.findings.add("root", f"the contents cannot be looked at: {error}")
            return
        try:
            ptr = ffi.cast("dh_heap *", core.address)
            if self._show_contents(ptr, replay, last):
                self.check_structure(ptr, bad, step_cells=_CELLS_PER_STEP)
        finally:
            core.close()

    def _show_contents(self, ptr: Any, replay: _Replay, last: rows.Record) -> bool:
        state = ffi.new("dh_state *", (last.root, last.hwm_pages, last.serial_next))
        try:
            check(lib.dh_replay_show(replay.ptr, ptr), ptr)
            check(lib.dh_load_finish(ptr, state), ptr)
        except HeapError as error:
            self.findings.add("root", f"the contents cannot be looked at: {error}")
            return False
        return True

    def check_structure(self, ptr: Any, bad: _BadPages, *, step_cells: int | None) -> None:
        """Walk the allocator and everything reachable. ``step_cells`` None: in one stop."""
        out, is_done = ffi.new("dh_verify **"), ffi.new("int *")
        check(lib.dh_verify_new(ptr, out), ptr)
        stats = ffi.new("dh_verify_stats *")
        try:
            for page in bad.wrong - bad.missing:
                lib.dh_verify_bad_page(out[0], page, 0)
            for page in bad.missing:
                lib.dh_verify_bad_page(out[0], page, 1)
            while not is_done[0]:
                check(lib.dh_verify_run(out[0], step_cells or _CELLS_ALL, is_done), ptr)
                lib.dh_verify_stats_read(out[0], stats)
                total = int(stats.allocated_cells_count)  # what is garbage is not walked
                self._tell("contents", total if is_done[0] else int(stats.cells_count), total)
            self.findings.stats = stats
            self._take_problems(out[0], int(stats.problems_count))
        finally:
            lib.dh_verify_free(out[0])

    def _take_problems(self, run: Any, count: int) -> None:
        texts = [ffi.new("const char **") for _ in range(3)]
        taken = 0
        while lib.dh_verify_problem_read(run, taken, *texts) == 0:
            path, what, where = (_string(text[0]) for text in texts)
            self.findings.add(path, what, where)
            taken += 1
        self.findings.problems_count += count - taken


# --- words ----------------------------------------------------------------------------------------


def _string(text: Any) -> str:
    return str(ffi.string(text).decode("utf-8", "replace"))


def _extent(number: int) -> str:
    if number >= _TABLE_PAGE // _EXTENT_PAGES:
        return f"extent {number - _TABLE_PAGE // _EXTENT_PAGES} of the allocation table"
    return f"extent {number}"


def _page(number: int) -> str:
    if number & _TABLE_PAGE:
        return f"page {number & ~_TABLE_PAGE} of the allocation table"
    return f"page {number}"


def _ranges(numbers: set[int]) -> str:
    """3, 7-9, 12; the first dozen."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    shown = [str(a) if a == b else f"{a}-{b}" for a, b in parts[:12]]
    return ", ".join(shown) + (" and more" if len(parts) > 12 else "")
