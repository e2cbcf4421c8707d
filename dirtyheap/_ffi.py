"""The one module that knows cffi: the core's verbs, and return codes as exceptions.

Everything else in the package calls the core through :data:`lib` as exported here and wraps each
call that can fail in :func:`check`.
"""

from __future__ import annotations

import sys
from typing import Any

from dirtyheap.errors import error_from_code

__all__ = ["check", "ffi", "lib"]

if not sys.platform.startswith("linux"):
    raise ImportError("dirtyheap needs Linux: it watches memory with userfaultfd and PAGEMAP_SCAN")
if sys.byteorder != "little":
    raise ImportError("dirtyheap needs a little-endian machine: that is its format")
if "t" in getattr(sys, "abiflags", ""):
    raise ImportError(
        "dirtyheap needs a CPython build with the GIL; this interpreter is free-threaded"
    )

from dirtyheap import _native  # after the checks: the import itself would fail less clearly

ffi: Any = _native.ffi
lib: Any = _native.lib


def check(rc: int, heap: Any = None) -> None:
    """Raise what a return code of the core says; 0 passes.

    Args:
        rc: what the verb returned.
        heap: its ``dh_heap *``, for the sentence behind the code; None when there is no heap.

    Raises:
        OSError: for a positive code, which is an errno (MemoryError for ENOMEM).
        HeapError: a class below it for the codes of the core, see :mod:`dirtyheap.errors`.
    """
    if rc == 0:
        return
    text = ""
    if heap:
        sentence = lib.dh_heap_error_text(heap)
        text = ffi.string(sentence).decode("utf-8", "replace")
        ffi.cast("char *", sentence)[0] = b"\0"  # told once: it must not explain the next failure
    raise error_from_code(rc, text)
