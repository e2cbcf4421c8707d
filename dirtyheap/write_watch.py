"""Which pages of this memory were written since? The contract of GetWriteWatch and ResetWriteWatch.

A :class:`WriteWatch` watches memory of its own or any writable buffer that consists of whole pages.
The kernel notes the first write to a page (a fault of about a microsecond; later ones cost nothing
until the page is reset), and a scan tells which pages these were. Nothing is done per page in
Python, unless you iterate over page numbers.

>>> import dirtyheap as dh
>>> with dh.WriteWatch(64 * 4096) as watch:
...     watch.buffer[5 * 4096 : 7 * 4096] = b"x" * (2 * 4096)
...     print(watch.get(reset=True).ranges())
...     print(watch.get().ranges())
[(5, 7)]
[]
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Iterator, Mapping
from operator import index
from threading import RLock
from typing import TYPE_CHECKING, Any, ClassVar, Final, SupportsIndex

from ._ffi import ffi, lib
from ._native import Buffer
from .errors import TrackerError, error_from_code
from .trackers import TECHNIQUES, technique_named

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer as SupportsBuffer

__all__ = ["Cursor", "Pages", "WriteWatch"]

PAGE_BYTES: Final = 4096
_NO_LIMIT: Final = (1 << 64) - 1
_NORESERVE: Final = getattr(mmap, "MAP_NORESERVE", 0x4000)  # known to Python from 3.13 on
_MEMORY_ERRORS: Final = (errno.EEXIST, errno.EINVAL, errno.EFAULT, errno.EACCES)
_SENTENCES: Final = {
    lib.DH_E_WATCH: "the kernel no longer tracks some of this memory (was a part unmapped, moved "
    "or mapped anew?); its pages count as written, and the next call tracks them again if it can",
    lib.DH_E_FORKED: "the watch belongs to the parent process: make another in this one",
    lib.DH_E_CLOSED: "the heap whose memory is watched is closed",
    lib.DH_E_LIMIT: "no more cursors: a watch has at most 8, and those of a heap's memory share 8",
}


_forks_count = 0


def _forked() -> None:
    global _forks_count
    _forks_count += 1


os.register_at_fork(after_in_child=_forked)


def _fail(rc: int) -> None:
    """Raise what a code means for a watch."""
    if rc in (lib.DH_E_FORKED, lib.DH_E_LIMIT):
        raise TrackerError(_SENTENCES[rc])
    raise error_from_code(rc, _SENTENCES.get(rc, ""))


class Pages:
    """The pages that one :meth:`WriteWatch.get` told: runs of page numbers, ascending.

    Iterating gives the runs as ``range`` objects, ``len()`` their number. The runs lie in memory of
    the C core: ``numpy.asarray(pages)`` is a read-only ``uint64`` array of shape ``(n, 2)`` on
    them, without a copy, each row a first page and the page behind the last.

    Attributes:
        count: how many pages.
        start, stop: the page numbers that were asked about.
        next: where to go on when ``max_pages`` were found: pass it as ``start``. None: there is
            nothing behind the last page here.
    """

    __slots__ = ("_box", "_pages", "count", "next", "start", "stop")

    def __init__(self, box: Any, start: int, stop: int) -> None:
        self._box = box  # the pages are freed with it
        self._pages = pages = box[0]
        self.start: Final = start
        self.stop: Final = stop
        self.count: Final = int(pages.pages_count)
        self.next: Final = None if pages.next_page == _NO_LIMIT else int(pages.next_page)

    def ranges(self) -> list[tuple[int, int]]:
        """The runs as ``(start, stop)``. O(runs)."""
        runs_count = self._pages.runs_count
        if not runs_count:
            return []
        flat = ffi.unpack(ffi.cast("uint64_t *", self._pages.runs), 2 * runs_count)
        return list(zip(flat[::2], flat[1::2], strict=True))

    def numbers(self) -> memoryview:
        """All page numbers, as a view of format ``Q`` on memory of their own. O(pages), in C.

        >>> watch = dh.WriteWatch(8 * 4096)
        >>> watch.mark(2, 4)
        >>> list(watch.get().numbers())
        [2, 3]
        """
        numbers = ffi.new("uint64_t[]", self.count or 1)
        lib.dh_pages_numbers(self._pages, numbers)
        return memoryview(ffi.buffer(numbers, 8 * self.count)).cast("B").cast("Q")

    def bitmap(self) -> bytes:
        """A bit for each page of ``[start, stop)``, the lowest one of the first byte for ``start``.

        ``numpy.unpackbits(numpy.frombuffer(bitmap, "u1"), bitorder="little")`` is one byte a page.

        >>> watch = dh.WriteWatch(10 * 4096)
        >>> watch.mark(2, 4)
        >>> watch.get().bitmap().hex()
        '0c00'
        """
        size = (self.stop - self.start + 7) // 8
        bits = ffi.new("uint8_t[]", size or 1)
        lib.dh_pages_bitmap(self._pages, self.start, bits)
        return bytes(ffi.buffer(bits, size))

    @property
    def __array_interface__(self) -> dict[str, Any]:
        runs_count = int(self._pages.runs_count)
        where = (
            self._pages.runs if runs_count else self._pages
        )  # an empty array has an address, too
        return {
            "version": 3,
            "shape": (runs_count, 2),
            "typestr": "<u8",
            "data": (int(ffi.cast("uintptr_t", where)), True),
        }

    def __len__(self) -> int:
        return int(self._pages.runs_count)

    def __iter__(self) -> Iterator[range]:
        for start, stop in self.ranges():
            yield range(start, stop)

    def __repr__(self) -> str:
        more = "" if self.next is None else f", next={self.next}"
        return f"<Pages of [{self.start}, {self.stop}): {self.count} in {len(self)} runs{more}>"


class Cursor:
    """An independent view of a watch: what it resets is still written for the others.

    Made by :meth:`WriteWatch.cursor`; nothing was written yet for a new one. It ends with its
    watch. Costs one bit per page.
    """

    def __init__(self, watch: WriteWatch) -> None:
        self._watch: Final = watch
        self._slot: Final = ffi.new("int *", -1)  # filled by the core; -1: closed

    @property
    def _number(self) -> int:
        return int(self._slot[0])

    def get(
        self,
        start: SupportsIndex = 0,
        stop: SupportsIndex | None = None,
        *,
        max_pages: SupportsIndex | None = None,
        reset: bool = False,
    ) -> Pages:
        """As :meth:`WriteWatch.get`, for this cursor."""
        return self._watch._get(self, start, stop, max_pages, reset)

    def reset(self, start: SupportsIndex = 0, stop: SupportsIndex | None = None) -> None:
        """As :meth:`WriteWatch.reset`, for this cursor."""
        self._watch._reset(self, start, stop)

    def close(self) -> None:
        """Give the cursor back; closing twice does nothing."""
        watch = self._watch
        if watch._forks != _forks_count:  # where the lock's owner may not exist
            self._slot[0] = -1
            return
        with watch._lock:
            # A signal's handler may raise behind a call: then it is closed, and known to be.
            number, self._slot[0] = self._slot[0], -1
            if number >= 0 and watch._handle is not None:
                lib.dh_write_watch_cursor_close(watch._handle, number)

    def __enter__(self) -> Cursor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_slot"):  # the opening was not interrupted before
            self.close()


class WriteWatch:
    """Watch memory for writes.

    Pages are numbered from the beginning of the memory, 4096 bytes each, whatever the page size of
    the memory is. A page is told when it was written since the watch was opened or since the last
    reset of *that page*. A told page may hold the same bytes as before; one that was written is
    never left out, be it by a store, by ``readinto``, ``recv_into``, ``O_DIRECT`` or by another
    process through ``process_vm_writev``. What no technique of the kernel can see (docs/
    write-watch.md): stores by devices into pinned memory (io_uring fixed buffers, RDMA), and writes
    to shared memory or a mapped file by another way than this mapping. Say so by :meth:`mark`.

    Any thread may call; calls wait for each other, without the GIL. In a forked child every verb
    raises TrackerError, and the parent's watch goes on.

    Args:
        buffer_or_size: a size in bytes, rounded up to whole pages, for zeroed private memory of the
            watch's own; or a writable contiguous buffer that begins and ends at page boundaries
            (:meth:`whole_pages` finds these in any buffer). A heap's Buffer may be given: its watch
            is shared then, so commits and this watch see the same writes. The buffer is held until
            ``close()``: an ``mmap`` cannot be closed, a ``bytearray`` not resized meanwhile.
        technique: ``"auto"`` takes the first that works of ``"uffd"`` (userfaultfd by system call),
            ``"uffd-dev"`` (by device node) and ``"compare"``: with a copy of the memory, 0.3 us
            per page and scan, twice the memory. That cannot see a write that changes nothing or was
            undone before the scan: copy told pages while nobody writes to them.
            ``DIRTYHEAP_TRACKER`` says what "auto" means.

    Cost: opening tries the technique, some 0.5 ms, and arms every page, 30 to 70 ns each; it takes
        2 MiB of page tables per GiB where nothing was touched yet, two file descriptors, one bit
        per page and cursor. A clean scan is about 1 ns per page.

    Raises:
        ValueError: the buffer does not consist of whole pages; the message says how to get one.
        BufferError: it is not writable, or another watch tracks some of it.
        TrackerError: the technique asked for does not work here, or not for this memory.
        OSError: no file descriptor is left (EMFILE, ENFILE); "auto" takes no other technique then.

    Attributes:
        buffer: the memory, as a flat writable ``memoryview``. Memory of the watch's own lives as
            long as the watch or any view of it; a buffer that was given is let go by ``close()``.
        page_bytes: 4096.
        pages_count: of the memory.
        technique: the one in use.
        reason: why "auto" did not take a better one; "" when it did.
    """

    _TECHNIQUES: ClassVar[Mapping[str, int]] = TECHNIQUES
    _CORE_OPEN: ClassVar[Any] = lib.dh_write_watch_open
    page_bytes: Final = PAGE_BYTES

    def __init__(
        self, buffer_or_size: SupportsBuffer | SupportsIndex, *, technique: str = "auto"
    ) -> None:
        self._handle: Any = None
        # Closes what the core has opened, also when a signal's handler raises right behind it.
        self._box: Any = ffi.gc(ffi.new("dh_write_watch **"), lib.dh_write_watch_release)
        number = technique_named(technique, self._TECHNIQUES)
        self.buffer: Final = _memory(buffer_or_size)
        self._is_own: Final = isinstance(self.buffer.obj, _OwnMemory)
        held = ffi.from_buffer("char[]", self.buffer, require_writable=True)
        address = int(ffi.cast("uintptr_t", held))
        self.pages_count: Final = _pages_count(buffer_or_size, address, len(self.buffer))
        self._forks: Final = _forks_count
        self._lock: Final = RLock()
        self._held = held
        _open(type(self)._CORE_OPEN, address, self.pages_count, number, self._box)
        self._handle = self._box[0]
        self.technique: Final = self._name_of(lib.dh_write_watch_tracker(self._handle))
        self.reason: Final = _text(lib.dh_write_watch_reason(self._handle))
        self._number: Final = int(lib.dh_write_watch_cursor(self._handle))

    @staticmethod
    def whole_pages(buffer: SupportsBuffer) -> memoryview:
        """The largest part of a writable buffer that consists of whole pages; it may be empty.

        >>> array = numpy.zeros(1 << 20)
        >>> part = dh.WriteWatch.whole_pages(array)
        >>> len(part) % 4096, len(part) > (8 << 20) - 2 * 4096
        (0, True)
        """
        view = memoryview(buffer).cast("B")
        address = int(ffi.cast("uintptr_t", ffi.from_buffer("char[]", view, require_writable=True)))
        first = -address % PAGE_BYTES
        stop = len(view) - (address + len(view)) % PAGE_BYTES
        return view[first : max(first, stop)]

    def get(
        self,
        start: SupportsIndex = 0,
        stop: SupportsIndex | None = None,
        *,
        max_pages: SupportsIndex | None = None,
        reset: bool = False,
    ) -> Pages:
        """The pages of ``[start, stop)`` that were written, ascending.

        With ``reset=True`` these pages, and no others, stop being written in the same step: a write
        comes before it and is told now, or after it and is told next time. Without it nothing
        changes. If there are more than ``max_pages``, exactly so many are told; ``.next`` of the
        result says where to go on. If it raises, whatever it raises (KeyboardInterrupt, too), no
        page was reset.

        >>> watch = dh.WriteWatch(100 * 4096)
        >>> watch.mark(10, 20)
        >>> pages = watch.get(max_pages=4, reset=True)
        >>> pages.ranges(), pages.next
        ([(10, 14)], 14)
        >>> watch.get(pages.next).ranges()
        [(14, 20)]

        Raises:
            ValueError: page numbers outside the memory, max_pages below 1, or the watch is closed.
            TrackerError: a part of the memory is no longer tracked; or this is a forked child.
        """
        return self._get(self, start, stop, max_pages, reset)

    def reset(self, start: SupportsIndex = 0, stop: SupportsIndex | None = None) -> None:
        """Forget what was written to the pages of ``[start, stop)``. What a thread writes between a
        ``get()`` and this is forgotten, too: ``get(reset=True)`` has no such gap."""
        self._reset(self, start, stop)

    def mark(self, start: SupportsIndex, stop: SupportsIndex) -> None:
        """Enter pages by hand, for every cursor: for writes that the technique cannot see."""
        first, limit = self._bounds(start, stop)
        self._refuse_in_child()
        with self._lock:
            rc = lib.dh_write_watch_mark(self._handle_of(self), first, limit)
        if rc:
            _fail(rc)

    def cursor(self) -> Cursor:
        """An independent view, for which nothing was written yet. At most seven beside the watch's
        own; costs a scan.

        >>> watch = dh.WriteWatch(8 * 4096)
        >>> other = watch.cursor()
        >>> watch.buffer[0] = 1
        >>> watch.get(reset=True).count, other.get().count
        (1, 1)
        """
        cursor = Cursor(self)
        self._refuse_in_child()
        with self._lock:
            rc = lib.dh_write_watch_cursor_open(self._handle_of(self), cursor._slot)
        if rc:
            _fail(rc)
        return cursor

    def close(self) -> None:
        """End the watch and let go of a buffer that was given; memory of the watch's own stays as
        long as anything shows it. Closing twice does nothing."""
        if self._forks != _forks_count:  # where the lock's owner may not exist
            self._end()
            return
        with self._lock:
            self._end()

    def _get(
        self,
        cursor: Cursor | WriteWatch,
        start: SupportsIndex,
        stop: SupportsIndex | None,
        max_pages: SupportsIndex | None,
        reset: bool,
    ) -> Pages:
        first, limit = self._bounds(start, stop)
        most = _NO_LIMIT if max_pages is None else index(max_pages)
        if not 0 < most <= _NO_LIMIT:
            raise ValueError(f"max_pages must be positive, not {most}")
        box = ffi.gc(ffi.new("dh_pages **"), lib.dh_pages_drop)
        self._refuse_in_child()
        number = -1
        try:
            with self._lock:
                handle = self._handle_of(cursor)
                number = cursor._number
                rc = lib.dh_write_watch_get(handle, number, first, limit, most, reset, box)
            if rc:
                _fail(rc)
            return Pages(box, first, limit)
        except BaseException:  # a signal's handler may raise behind every call
            if reset:
                self._give_back(cursor, number, box)
            raise

    def _give_back(self, cursor: Cursor | WriteWatch, number: int, box: Any) -> None:
        """What nobody was told counts as written again."""
        with self._lock:
            if box[0] and self._handle is not None and cursor._number == number:
                lib.dh_write_watch_return(self._handle, number, box[0])

    def _reset(
        self, cursor: Cursor | WriteWatch, start: SupportsIndex, stop: SupportsIndex | None
    ) -> None:
        first, limit = self._bounds(start, stop)
        self._refuse_in_child()
        with self._lock:
            handle = self._handle_of(cursor)
            rc = lib.dh_write_watch_reset(handle, cursor._number, first, limit)
        if rc:
            _fail(rc)

    def _end(self) -> None:
        self._handle = None
        box, self._box = self._box, None
        if box is not None:
            ffi.release(box)
            ffi.release(self._held)
            if not self._is_own:
                with contextlib.suppress(BufferError):  # somebody has a view of it, and keeps it
                    self.buffer.release()

    def _name_of(self, tracker: int) -> str:
        return {number: name for name, number in self._TECHNIQUES.items()}[tracker]

    def _bounds(self, start: SupportsIndex, stop: SupportsIndex | None) -> tuple[int, int]:
        first, limit = index(start), self.pages_count if stop is None else index(stop)
        if not 0 <= first <= limit <= self.pages_count:
            raise ValueError(
                f"pages [{first}, {limit}) are not within the watch's [0, {self.pages_count}): "
                "page numbers are meant, not bytes"
            )
        return first, limit

    def _refuse_in_child(self) -> None:
        if self._forks != _forks_count:
            raise TrackerError(_SENTENCES[lib.DH_E_FORKED])

    def _handle_of(self, cursor: Cursor | WriteWatch) -> Any:
        if self._handle is None:
            raise ValueError("the watch is closed")
        if cursor._number < 0:
            raise ValueError("the cursor is closed")
        return self._handle

    def __enter__(self) -> WriteWatch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_held"):
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self._handle is None else self.technique
        return f"<WriteWatch of {self.pages_count} pages: {state}>"


# --- the memory -----------------------------------------------------------------------------------


class _OwnMemory(mmap.mmap):
    """Memory that a watch made for itself."""


def _memory(buffer_or_size: SupportsBuffer | SupportsIndex) -> memoryview:
    """A flat writable view of the buffer, or of new memory."""
    try:  # first: an integer of numpy is a buffer, too, and an array has __index__
        size = index(buffer_or_size)  # type: ignore[arg-type]
    except TypeError:
        pass
    else:
        return memoryview(_new_memory(size))
    try:
        view = memoryview(buffer_or_size)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            "a WriteWatch takes a writable buffer or a size in bytes, not "
            f"{type(buffer_or_size).__name__}"
        ) from None
    if view.readonly:
        raise BufferError("the buffer is read-only: nobody can write to it through this mapping")
    if not view.c_contiguous:
        raise BufferError("the buffer is not contiguous: watch what it is a part of")
    return view.cast("B")


def _new_memory(size: int) -> _OwnMemory:
    """Private zeroed memory, made when it is touched; without huge pages, which the first write
    would split. It is unmapped when nothing shows it any more."""
    if size <= 0:
        raise ValueError(f"a size in bytes must be positive, not {size}")
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
    memory = _OwnMemory(-1, -(-size // PAGE_BYTES) * PAGE_BYTES, flags=flags)
    with contextlib.suppress(OSError):  # a kernel without huge pages refuses, which is as good
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def _pages_count(buffer: object, address: int, size: int) -> int:
    if isinstance(buffer, Buffer) and size > 0:
        size = -(-size // PAGE_BYTES) * PAGE_BYTES  # nothing else is in its last page
    if size == 0:
        raise ValueError("the buffer is empty")
    if address % PAGE_BYTES or size % PAGE_BYTES:
        raise ValueError(
            f"the buffer begins {address % PAGE_BYTES} bytes into a page and ends "
            f"{(address + size) % PAGE_BYTES} bytes into one, and whole pages are watched: take "
            "dh.WriteWatch(size).buffer or mmap.mmap(-1, size) for memory (numpy.frombuffer makes "
            "an array of it), or watch dh.WriteWatch.whole_pages(buffer), the part in between"
        )
    return size // PAGE_BYTES


def _text(sentence: Any) -> str:
    return str(ffi.string(sentence).decode("utf-8", "replace"))


def _open(core_open: Any, address: int, pages_count: int, technique: int, box: Any) -> None:
    why = ffi.new("char[]", 512)
    rc = core_open(address, pages_count, technique, box, why, 512)
    if rc == 0:
        return
    text = _text(why)
    if rc in _MEMORY_ERRORS:
        raise BufferError(text)
    if rc in (lib.DH_E_WATCH, lib.DH_E_TRACKER, lib.DH_E_LIMIT):
        raise TrackerError(text)
    raise error_from_code(rc, text)
