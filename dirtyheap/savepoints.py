"""Savepoints: states within what is uncommitted, to which the heap can be taken back.

    taken ----- a savepoint in a transaction() block ends with the block, unless the block is kept
      |
    rollback()  as often as one likes; ends the savepoints taken after it
      |
    ended       by release(), by a commit, by going back beyond it, by the heap's end

A savepoint is a copy of the uncommitted pages, laid over the last commit; so a commit ends it.
Which blocks were undone the compiled core remembers (block_type.c): it may not call Python there.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

from ._ffi import check, ffi, lib
from .errors import HeapError

if TYPE_CHECKING:
    from .heap import Heap


class Savepoint:
    """A state that the heap can be taken back to. Made by :meth:`Heap.savepoint`.

    As a context manager it goes back when the block ends by an exception, and is released in any
    case. Unlike :meth:`Heap.transaction` it neither commits nor keeps others out, and an interrupt
    in the very moment of leaving the block may leave the going back out.
    """

    def __init__(self, heap: Heap) -> None:
        self._heap = heap
        self._capture_out = ffi.new("dh_capture **")  # the core writes the address: none is lost
        self._mark = 0
        self._ended = "it was not taken"

    def rollback(self) -> int:
        """Show the state again in which the savepoint was taken; returns the pages restored.

        Containers that it holds stay valid objects with their old contents; those made since raise
        StaleObjectError. Savepoints taken after this one end; this one stays.

        Raises:
            HeapError: it has ended, or a transaction() block that began after it is under way.
        """
        return self._heap._savepoint_rollback(self)

    def release(self) -> None:
        """Give its memory back; the heap stays as it is. Harmless when it has ended."""
        self._heap._savepoint_release(self)

    @property
    def ended(self) -> bool:
        """True when it cannot be gone back to any more."""
        return self._heap._savepoint_ended(self)

    def __enter__(self) -> Savepoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is not None and not self.ended:
                self.rollback()
        finally:
            self.release()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Neither pickled nor copied: the pages that it holds are freed once."""
        raise TypeError("a Savepoint cannot be pickled or copied: take another with savepoint()")

    def __repr__(self) -> str:
        return (
            f"<dirtyheap.Savepoint, ended: {self._ended}>"
            if self._ended
            else "<dirtyheap.Savepoint>"
        )


class Savepoints:
    """All savepoints of one heap that can be gone back to, in the order they were taken."""

    def __init__(self, core: Any, heap_ptr: Any) -> None:
        self._core = core
        self._ptr = heap_ptr
        self._taken: list[Savepoint] = []

    def take(self, savepoint: Savepoint) -> None:
        """Copy what is uncommitted now."""
        self.notice_undone()
        self._taken.append(savepoint)  # first: whatever comes, the copy is freed in the end
        savepoint._mark = self._core.take_mark()
        rc = lib.dh_savepoint_take(self._ptr, savepoint._capture_out)
        if rc != 0:
            self.end(savepoint, "it could not be taken")
            check(rc, self._ptr)
        savepoint._ended = ""

    def rollback(self, savepoint: Savepoint) -> int:
        """Show a savepoint's state; those taken after it end."""
        self.notice_undone()
        if savepoint._ended:
            raise HeapError(f"this savepoint has ended: {savepoint._ended}")
        if savepoint._mark < self._core.block_mark:
            raise HeapError(
                "a transaction() that began after this savepoint is under way: leave the block "
                "first"
            )
        self._end_after(savepoint._mark, "the heap went back beyond it")
        return show(self._ptr, savepoint._capture_out[0])

    def notice_undone(self) -> None:
        """End what was taken inside transaction() blocks that were undone meanwhile."""
        undone = self._core.take_undone()
        if undone:
            self._end_after(undone, "the transaction() in which it was taken was undone")

    def end_all(self, why: str) -> None:
        """The last commit changed, or the heap goes."""
        self._end_after(0, why)

    def _end_after(self, mark: int, why: str) -> None:
        for savepoint in self._taken[::-1]:
            if savepoint._mark > mark:
                self.end(savepoint, why)

    def end(self, savepoint: Savepoint, why: str) -> None:
        """Free its copy; harmless when it has ended."""
        if savepoint not in self._taken:
            return
        savepoint._ended = why
        capture = savepoint._capture_out[0]
        savepoint._capture_out[0] = ffi.NULL
        if capture != ffi.NULL:
            lib.dh_savepoint_drop(self._ptr, capture)
        self._taken.remove(savepoint)


def show(heap_ptr: Any, capture: Any) -> int:
    """The one verb: a savepoint's state, or the last commit's (NULL). Returns pages restored."""
    pages, stop_ns = ffi.new("uint64_t *"), ffi.new("uint64_t *")
    rc = lib.dh_show_state(heap_ptr, capture, pages, stop_ns)
    if rc != 0:
        check(rc, heap_ptr)
    return int(pages[0])
