"""Build of the one compiled module, ``dirtyheap._native``.

Core (``native/src``), laboratory (``native/lab``), container types (``native/python``) and the cffi
bindings are compiled once, into one shared object for the stable ABI of CPython 3.11. The C text of
the bindings is made here, from the part of ``native/include/dirtyheap.h`` between CDEF-BEGIN and
CDEF-END.
"""

from __future__ import annotations

import sys
import sysconfig
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

try:  # setuptools >= 70.1 has its own, the wheel package had it before
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:
    from wheel.bdist_wheel import bdist_wheel

HEADER = Path("native/include/dirtyheap.h")
# PyInit_<last part> of this name is what native/python/module.c calls for `ffi` and `lib`.
CFFI_MODULE = "dirtyheap._native_cffi"


def refuse_unsupported() -> None:
    """Stop with one clear sentence where the result could not work."""
    if not sys.platform.startswith("linux"):
        sys.exit("dirtyheap needs Linux: it watches memory with userfaultfd and PAGEMAP_SCAN")
    if sys.byteorder != "little":
        sys.exit("dirtyheap needs a little-endian machine: that is its format")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        sys.exit("dirtyheap needs a CPython build with the GIL; this one is free-threaded")


def read_cdef(header: Path) -> str:
    """Return what cffi shall know: the marked part of the public C header."""
    text = header.read_text(encoding="utf-8")
    _, begin, rest = text.partition("/* CDEF-BEGIN */")
    cdef, end, _ = rest.partition("/* CDEF-END */")
    if not (begin and end):
        sys.exit(f"{header}: no part between CDEF-BEGIN and CDEF-END")
    return cdef


def emit_bindings(path: Path) -> None:
    """Write the C text of the cffi bindings."""
    from cffi import FFI

    ffi = FFI()
    ffi.cdef(read_cdef(HEADER))
    ffi.set_source(CFFI_MODULE, '#include "dirtyheap.h"')
    path.parent.mkdir(parents=True, exist_ok=True)
    ffi.emit_c_code(str(path))  # leaves an unchanged file alone


class BuildNative(build_ext):
    """build_ext that makes the bindings' C text first."""

    def build_extension(self, ext: Extension) -> None:
        bindings = Path(self.build_temp) / "native_cffi.c"
        emit_bindings(bindings)
        ext.sources = [*ext.sources, str(bindings)]
        super().build_extension(ext)


class StableAbiWheel(bdist_wheel):
    """One wheel for every CPython from 3.11 on."""

    def finalize_options(self) -> None:
        self.py_limited_api = "cp311"
        super().finalize_options()


refuse_unsupported()

native = Extension(
    "dirtyheap._native",
    sources=sorted(glob("native/src/*.c") + glob("native/lab/*.c") + glob("native/python/*.c")),
    depends=sorted(glob("native/*/*.h")),
    include_dirs=["native/include"],
    define_macros=[("Py_LIMITED_API", "0x030B0000"), ("_GNU_SOURCE", None)],
    extra_compile_args=["-O2", "-std=c11", "-pthread", "-fvisibility=hidden"],
    extra_link_args=["-pthread"],
    py_limited_api=True,
)

setup(
    ext_modules=[native],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": StableAbiWheel},
)
