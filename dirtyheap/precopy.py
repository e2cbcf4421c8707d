"""Big commits: bulk pages go to their base files before the application is stopped.

As a virtual machine is moved while it runs: some rounds copy whole extents into files under way,
the stop of the commit captures only what was written meanwhile, and :meth:`Precopy.finish` puts
that into the files. Nothing names them before the record, so a failure leaves orphans only.
Memory holds one extent here, and what the stop copies: about the window, if the application
writes less than that during a round.
"""

from __future__ import annotations

from typing import Any, Final

from ._ffi import check, ffi, lib
from .base_files import Extent
from .errors import CommitError
from .store import PAGE_BYTES, Store

# A commit of no more written pages than this is made in one stop: 64 MiB; less with memory_limit.
WINDOW_PAGES: Final = 16384
# The first finds everything, the second what was written during the first. A writer that is faster
# than the disk is not caught up with; the stop takes what is left.
ROUNDS_MAX: Final = 4


def _window_pages(memory_limit: int | None) -> int:
    """A commit in one stop holds its pages three times: captured, encoded, in the engine."""
    if memory_limit is None:
        return WINDOW_PAGES
    return min(WINDOW_PAGES, memory_limit // 4 // PAGE_BYTES)


class Precopy:
    """The base files that one commit writes ahead of its stop. ``files``: what is to be removed
    when the commit fails, and named by its record when it does not."""

    def __init__(self, heap_ptr: Any, store: Store, version: int, memory_limit: int | None) -> None:
        self._ptr = heap_ptr
        self._window_pages = _window_pages(memory_limit)
        self._store = store
        self._version = version
        self._staged: dict[int, Extent] = {}
        self._size, self._checksum = ffi.new("uint64_t *"), ffi.new("uint32_t *")

    @property
    def files(self) -> list[Extent]:
        """By extent number."""
        return [self._staged[number] for number in sorted(self._staged)]

    def run(self, capture_out: Any) -> None:
        """All rounds. ``capture_out[0]`` stays NULL when the commit is a small one."""
        count = ffi.new("size_t *")
        for _ in range(ROUNDS_MAX):
            self._check(lib.dh_stage_round(self._ptr, self._window_pages, capture_out, count))
            if count[0] == 0:
                break
            capture = capture_out[0]
            for index in range(count[0]):
                self._stage(capture, lib.dh_stage_extent(capture, index))

    def finish(self, capture: Any) -> None:
        """Put what the stop captured of staged extents into their files."""
        for number in self._staged:
            if lib.dh_stage_is_touched(capture, number):
                self._patch(capture, number, is_kept=False)
        if self._staged:
            self._write("synced", self._store.sync_base)

    def _stage(self, capture: Any, number: int) -> None:
        verdict = ffi.new("int *")
        self._check(lib.dh_stage_take(self._ptr, capture, number, verdict))
        if verdict[0] == lib.DH_STAGE_PATCH:
            self._patch(capture, number, is_kept=True)
        elif verdict[0] == lib.DH_STAGE_WRITE:
            self._create(capture, number)

    def _create(self, capture: Any, number: int) -> None:
        def fill(fd: int) -> tuple[int, int]:
            self._check(
                lib.dh_extent_write(
                    self._ptr, capture, number, self._version, fd, self._size, self._checksum
                )
            )
            self._check(lib.dh_stage_keep(self._ptr, capture, number, fd, self._size[0]))
            return self._size[0], self._checksum[0]

        self._staged[number] = self._write(
            "written", self._store.write_base, number, self._version, fill
        )

    def _patch(self, capture: Any, number: int, *, is_kept: bool) -> None:
        extent = self._staged[number]

        def fill(fd: int) -> tuple[int, int]:
            self._size[0], self._checksum[0] = extent.file_bytes, extent.checksum
            self._check(
                lib.dh_extent_patch(
                    self._ptr, capture, number, self._version, fd, self._size, self._checksum
                )
            )
            if is_kept:
                self._check(lib.dh_stage_keep(self._ptr, capture, number, fd, self._size[0]))
            return self._size[0], self._checksum[0]

        self._staged[number] = self._write("changed", self._store.patch_base, extent, fill)

    def _write(self, what: str, work: Any, *arguments: Any) -> Any:
        try:
            return work(*arguments)
        except OSError as error:
            raise CommitError(
                f"a base file could not be {what}: {error}. Nothing is lost: the changes are "
                "still in memory and in the next commit"
            ) from error

    def _check(self, rc: int) -> None:
        if rc != 0:
            check(rc, self._ptr)
