"""One fold: its steps, and what each failure leaves behind.

    begin -> write, sync: one extent at a time -> one transaction -> switch: one extent at a time
          -> remove what was replaced -> give memory back: one extent at a time

The files hold the image of the commit at which the fold began. Commits may be made between any two
steps: the core keeps what they replace of that image, and their deltas are applied to the files
like to any base (S3). So the number of steps is fixed at the beginning, and none of them is long.

Until the transaction the old files and the deltas are the heap, and the fold can be abandoned.
After it, what was switched and what was not hold the same state; the rest must still be switched
before the next fold begins, for only this one knows which pages are newer than its files.

Who takes the steps is the *driver*: a thread of its own, or a verb that cannot wait for it and
takes over. Steps need the heap's lock; :meth:`Fold.work_outside` must not, for it may take long.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from typing import Any, Final

from ._ffi import check, ffi, lib
from .base_files import Extent
from .errors import CommitError, HeapError, HeapPoisonedError
from .rebasing import switch_memory, switchable
from .store import Record, Store
from .syncing import sync_file

# An extent with fewer pages of its own is not worth the faults that its others would take again.
_SWITCH_PAGES_MIN: Final = 32


class Fold:
    """One fold under way. ``poison``: why it is not known whether it was recorded. ``is_over``:
    there are no more steps. ``files``: those written so far."""

    def __init__(self, heap_ptr: Any, store: Store) -> None:
        assert store.last is not None
        self._ptr = heap_ptr
        self._store = store
        self.version = store.last.id
        count = ffi.new("size_t *")
        check(lib.dh_fold_begin(heap_ptr, count), heap_ptr)
        self.extents_count = int(count[0])
        self._to_write = deque(lib.dh_fold_extent(heap_ptr, i) for i in range(count[0]))
        self.files: list[Extent] = []
        self._to_switch: deque[Extent] = deque()
        self._replaced: list[Extent] = []
        self._to_give_back: deque[int] | None = None
        self.is_recorded = self.is_over = False
        self.poison = ""
        self.complaint = ""  # what went wrong and does not matter much
        self._is_in_step = False
        # What is done outside the heap's lock, and by whom. Nobody waits for the heap's lock while
        # holding this one, so a verb that holds the heap's may take it.
        self._outside = threading.Lock()
        self._driver: object = None
        self._unsynced_fd = -1
        self._are_names_synced = False
        self._error: BaseException | None = None

    # --- who drives --------------------------------------------------------------------------

    def take(self, driver: object) -> None:
        """From now on these are the steps of somebody else; waits for the end of what is done
        outside the lock, a sync at most."""
        with self._outside:
            self._driver = driver

    def is_driven_by(self, driver: object) -> bool:
        """Whether nobody has taken the fold from this driver."""
        return self._driver is driver

    @property
    def is_broken(self) -> bool:
        """Whether a step was cut short, so that it can only be abandoned."""
        return self._is_in_step and not self.is_recorded

    # --- steps -------------------------------------------------------------------------------

    def run(self, driver: object) -> None:
        """All steps that are left, without letting the lock go."""
        self.take(driver)
        while not self.is_over:
            self.step()
            self.work_outside(driver)

    def step(self) -> None:
        """The next step. When it fails the fold is to be abandoned, or, when it is recorded, to be
        gone on with."""
        self._is_in_step = True
        error, self._error = self._error, None
        if error is not None:
            raise error
        if self._to_write:
            self._write(self._to_write[0])
        elif not self.is_recorded:
            self._record()
        elif self._to_switch:
            self._switch(self._to_switch[0])
        else:
            self._give_back()
        self._is_in_step = False

    def work_outside(self, driver: object) -> None:
        """What the last step left to do that does not need the heap's lock: syncing, removing old
        files. A failure is raised by the next step."""
        with self._outside:
            if self._driver is not driver:
                return
            try:
                self._sync()
                self._drop_replaced()
            except Exception as error:
                self._error = error

    def _write(self, number: int) -> None:
        size, checksum = ffi.new("uint64_t *"), ffi.new("uint32_t *")

        def fill(fd: int) -> tuple[int, int]:
            rc = lib.dh_fold_write(self._ptr, number, self.version, fd, size, checksum)
            if rc != 0:
                check(rc, self._ptr)
            return size[0], checksum[0]

        try:
            extent, self._unsynced_fd = self._store.begin_base(number, self.version, fill)
        except OSError as error:
            raise _not_written(error) from error
        self.files.append(extent)
        self._to_write.popleft()

    def _sync(self) -> None:
        try:
            if self._unsynced_fd >= 0:
                sync_file(self._unsynced_fd)
                self._close_unsynced()
            if self.files and not self._to_write and not self._are_names_synced:
                self._store.sync_base()
                self._are_names_synced = True
        except OSError as error:
            raise _not_written(error) from error

    def _close_unsynced(self) -> None:
        fd, self._unsynced_fd = self._unsynced_fd, -1
        if fd >= 0:
            os.close(fd)

    def _record(self) -> None:
        folded = self._store.folded_records(self.version)
        try:
            self._note_recorded(self._store.replace_base(folded, self.files))
        except BaseException as error:
            # Before any call, as in commit: until it is known whether the index names the new
            # files, none of them may go, and none of the old.
            self.poison = f"a fold was interrupted ({error!r}): close the heap and open it again"
            self._recover(folded[-1])
            raise

    def _recover(self, folded: Record) -> None:
        """Find out whether a fold that failed became durable."""
        try:
            durable = self._store.is_durable(folded)
        except HeapPoisonedError as unknown:
            self.poison = str(unknown)
            raise
        if durable and not self.is_recorded:
            replaced = self._store.adopt(folded)
            self._note_recorded(replaced + self._store.unnamed(self.files))
        self.poison = ""

    def _note_recorded(self, replaced: list[Extent]) -> None:
        self._to_switch = deque(self.files)
        self._replaced = replaced
        self.is_recorded = True

    def _switch(self, extent: Extent) -> None:
        """Its old file's memory holds the same state: a failure to switch changes nothing but when
        their space comes back."""
        # A commit may have given the extent another base since.
        if self._store.extents.get(extent.number) == extent:
            try:
                fd = self._store.locate(extent)
                try:
                    rc = lib.dh_fold_switch(
                        self._ptr, extent.number, extent.version, fd, extent.file_bytes,
                        extent.checksum,
                    )  # fmt: skip
                finally:
                    os.close(fd)
                check(rc, self._ptr)
            except OSError as error:
                raise _not_mapped(error) from error
        self._to_switch.popleft()

    def _drop_replaced(self) -> None:
        if self._replaced and not self._to_switch:
            replaced, self._replaced = self._replaced, []
            try:
                self._store.drop_base(replaced)
            except OSError as error:  # the next open does it
                self.complaint = f"an old base file could not be removed: {error}"

    def _give_back(self) -> None:
        if self._to_give_back is None:
            lib.dh_fold_end(self._ptr)
            self._to_give_back = deque(switchable(self._ptr, _SWITCH_PAGES_MIN))
        if self._to_give_back:
            try:
                switch_memory(self._ptr, self._store, [self._to_give_back.popleft()])
            except OSError as error:
                raise _not_mapped(error) from error
        self.is_over = not self._to_give_back

    # --- the end -----------------------------------------------------------------------------

    def abandon(self) -> None:
        """Before it is recorded, or when the heap goes. What is left in files the next open
        removes, unless it can be done here. Harmless when done before."""
        self.take(None)
        self._close_unsynced()
        lib.dh_fold_end(self._ptr)
        if not self.is_recorded and not self.poison:
            files, self.files = self.files, []
            with suppress(OSError):
                self._store.drop_base(files)
        self.is_over = True


def _not_written(error: OSError) -> CommitError:
    return CommitError(
        f"a base file could not be written: {error}. Nothing is lost: the heap is as it was, "
        "uncommitted changes included; try again when that is mended"
    )


def _not_mapped(error: OSError) -> HeapError:
    return HeapError(
        f"the fold is recorded, but its files could not be mapped: {error}. Nothing is lost; "
        "memory and disk space come back with the next fold, or when the heap is opened again"
    )
