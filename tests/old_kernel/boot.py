"""Boots a distribution's kernel from before PAGEMAP_SCAN, in emulation, and runs tests in it.

    python tests/old_kernel/boot.py [pytest arguments]        (make test-old-kernel)

The emulated machine sees the files of this one, read-only, so the tests run with the interpreter
and the packages that run this script; only the kernel is another. What it needs, and looks for:

    an emulator    qemu-system-x86_64 on PATH, or DH_QEMU=...
    a kernel       a Debian package linux-image-*-amd64 older than 6.7: DH_KERNEL_DEB=...deb
    a shell        a static busybox on PATH, or DH_BUSYBOX=...

What is missing is taken from Debian's packages with apt-get (the package lists must be there: run
`apt-get update`), unpacked below build/old-kernel and not installed: no root is needed. An x86-64
machine is. Emulation takes some ten minutes; DH_ACCEL=kvm is quicker where that works.
"""

from __future__ import annotations

import lzma
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

HERE: Final = Path(__file__).resolve().parent
TESTS: Final = HERE.parent
CACHE: Final = TESTS.parent / "build" / "old-kernel"
UNPACKED: Final = CACHE / "root"
MODULES: Final = ("virtio_pci", "9pnet_virtio", "9p")
# What is asked of the old kernel unless the caller says otherwise.
SELECTION: Final = (
    "old_kernel/guest_checks.py",
    "sandbox/test_probe.py",
    "sandbox/test_processes.py",
    "lab",
    # Two minutes of threads take an emulator too long.
    "--deselect=lab/test_lab.py::test_writers_in_threads_lose_nothing",
    "watch/test_exactness.py",
    "unit/test_heap.py",
)
TIMEOUT_S: Final = 3000
MEMORY_MIB: Final = 3072
LAST_LINE: Final = re.compile(r"old-kernel: exit (\d+)")


def stop(reason: str) -> NoReturn:
    """What is missing, and how to get it."""
    sys.exit(f"make test-old-kernel: {reason}")


# --- what it needs --------------------------------------------------------------------------------


def fetch(*packages: str) -> None:
    """Download Debian packages and unpack them below the cache."""
    apt_get, dpkg_deb = shutil.which("apt-get"), shutil.which("dpkg-deb")
    if apt_get is None or dpkg_deb is None:
        stop(f"apt-get and dpkg-deb are needed to get {packages[0]}; or see {__file__}")
    downloads = CACHE / "packages"
    downloads.mkdir(parents=True, exist_ok=True)
    UNPACKED.mkdir(exist_ok=True)
    for package in packages:
        if not list(downloads.glob(f"{package}_*.deb")):
            print(f"downloading {package}", flush=True)
            done = subprocess.run([apt_get, "-qq", "download", package], cwd=downloads)
            if done.returncode != 0:
                stop(f"{package} cannot be downloaded: run apt-get update, or see {__file__}")
        (found,) = downloads.glob(f"{package}_*.deb")
        unpack(found)


def unpack(package: Path) -> None:
    subprocess.run(["dpkg-deb", "-x", str(package), str(UNPACKED)], check=True)


def with_dependencies(package: str) -> list[str]:
    """The package and what it needs that is not installed."""
    plan = subprocess.run(
        ["apt-get", "--simulate", "install", "--no-install-recommends", package],
        capture_output=True,
        text=True,
    )
    names = re.findall(r"^Inst (\S+)", plan.stdout, re.MULTILINE)
    if plan.returncode != 0 or package not in names:
        stop(f"apt-get knows no way to install {package}: {plan.stderr.strip()}")
    return names


def find_emulator() -> list[str]:
    """The command, with the libraries of an unpacked one."""
    found = os.environ.get("DH_QEMU") or shutil.which("qemu-system-x86_64")
    if found:
        return [found]
    unpacked = UNPACKED / "usr/bin/qemu-system-x86_64"
    if not unpacked.exists():
        fetch(*with_dependencies("qemu-system-x86"))
    libraries = [UNPACKED / part / "x86_64-linux-gnu" for part in ("lib", "usr/lib")]
    return [
        "env",
        "LD_LIBRARY_PATH=" + ":".join(map(str, libraries)),
        str(unpacked),
        "-L",
        str(UNPACKED / "usr/share/qemu"),
        "-L",
        str(UNPACKED / "usr/share/seabios"),
    ]


def find_busybox() -> Path:
    found = os.environ.get("DH_BUSYBOX") or shutil.which("busybox")
    if found and is_static(Path(found)):
        return Path(found)
    unpacked = UNPACKED / "bin/busybox"
    if not unpacked.exists():
        fetch("busybox-static")
    return unpacked


def is_static(program: Path) -> bool:
    """Whether an ELF program names no interpreter (PT_INTERP's usual content)."""
    return b"/lib64/ld-linux" not in program.read_bytes()


def find_kernel() -> tuple[Path, Path]:
    """The image and the directory of its modules."""
    package = os.environ.get("DH_KERNEL_DEB")
    if package:
        UNPACKED.mkdir(parents=True, exist_ok=True)
        unpack(Path(package))
    elif not list(UNPACKED.glob("boot/vmlinuz-*")):
        fetch(debian_kernel())
    images = sorted(UNPACKED.glob("boot/vmlinuz-*"))
    if len(images) != 1:
        stop(f"{len(images)} kernels are unpacked in {UNPACKED}: remove it, and run this again")
    (image,) = images
    release = image.name.removeprefix("vmlinuz-")
    for parent in ("lib", "usr/lib"):
        if (modules := UNPACKED / parent / "modules" / release).is_dir():
            return image, modules
    stop(f"the package of {release} has no modules")


def debian_kernel() -> str:
    """The package that linux-image-amd64 stands for."""
    shown = subprocess.run(
        ["apt-cache", "depends", "linux-image-amd64"], capture_output=True, text=True
    )
    names = re.findall(r"Depends: (linux-image-(\d+)\.(\d+)\S*)", shown.stdout)
    old = [name for name, major, minor in names if (int(major), int(minor)) < (6, 7)]
    if not old:
        stop(
            "Debian's kernel here is not older than 6.7, or apt-cache does not know it: give a "
            "package of an older one (Debian 12 has 6.1) as DH_KERNEL_DEB=linux-image-...deb"
        )
    return str(old[0])


# --- the machine ----------------------------------------------------------------------------------


def module_files(modules: Path) -> list[Path]:
    """Those that the machine needs, each behind what it depends on."""
    files = {path.name.partition(".")[0].replace("-", "_"): path for path in modules.rglob("*.ko*")}
    ordered: list[Path] = []

    def add(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None or path in ordered:
            return  # built in, or had
        for needed in depends(path):
            add(needed)
        ordered.append(path)

    for name in MODULES:
        add(name)
    return ordered


def module_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def depends(path: Path) -> list[str]:
    """What the module says it needs, in its section .modinfo."""
    found = re.search(rb"\0depends=([^\0]*)\0", module_bytes(path))
    return [name for name in found[1].decode().split(",") if name] if found else []


def archive(members: Iterator[tuple[str, int, bytes]]) -> bytes:
    """An initial file system: cpio in the format "newc" (kernel: initramfs-buffer-format.rst)."""
    parts: list[bytes] = []

    def add(name: str, mode: int, data: bytes) -> None:
        fields = (len(parts) + 1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + "".join(f"{field:08X}" for field in fields).encode()
        head += name.encode() + b"\0"
        parts.append(head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4))

    for name, mode, data in members:
        add(name, mode, data)
    add("TRAILER!!!", 0, b"")
    return b"".join(parts)


def members(busybox: Path, modules: list[Path], command: str) -> Iterator[tuple[str, int, bytes]]:
    directory, program = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755
    for name in ("bin", "modules"):
        yield name, directory, b""
    yield "bin/busybox", program, busybox.read_bytes()
    yield "init", program, (HERE / "init.sh").read_bytes()
    yield "command", program, command.encode()
    for path in modules:
        yield f"modules/{path.name.partition('.ko')[0]}.ko", program, module_bytes(path)
    order = "\n".join(f"{path.name.partition('.ko')[0]}.ko" for path in modules)
    yield "modules/order", stat.S_IFREG | 0o644, order.encode()


def command(selection: list[str]) -> str:
    """What runs in there: pytest, in this interpreter's environment."""
    pytest = [sys.executable, "-P", "-m", "pytest", "-c", str(TESTS.parent / "pyproject.toml")]
    pytest += ["-p", "no:cacheprovider", "--basetemp=/run/pytest", "--timeout=900"]
    pytest += ["--color=no", "-rs"]
    return f"""
export HOME=/run TMPDIR=/run PATH={shlex.quote(os.environ.get("PATH", ""))}
export PYTHONDONTWRITEBYTECODE=1 DH_OLD_KERNEL=1
cd {shlex.quote(str(TESTS))} && exec {shlex.join(pytest + selection)}
"""


def boot(emulator: list[str], image: Path, initial: Path) -> int:
    """Run the machine to its end; the tests' exit code."""
    arguments = [
        *emulator,
        *("-accel", os.environ.get("DH_ACCEL", "tcg")),
        *("-m", str(MEMORY_MIB), "-smp", "2", "-cpu", "max", "-nographic", "-no-reboot"),
        *("-nodefaults", "-serial", "stdio"),
        *("-kernel", str(image), "-initrd", str(initial)),
        # On a busy host an emulated timer is late, and the kernel would take it for broken.
        *("-append", "console=ttyS0 panic=-1 quiet no_timer_check"),
        "-virtfs",
        "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
    ]
    code = None
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, errors="replace"
    ) as machine:
        assert machine.stdout is not None
        watchdog = threading.Timer(TIMEOUT_S, machine.kill)
        watchdog.start()
        for line in machine.stdout:
            print(line, end="", flush=True)
            if found := LAST_LINE.search(line):
                code = int(found[1])
        watchdog.cancel()
    if code is None:
        stop(f"the machine stopped before the tests ended (emulator's exit {machine.returncode})")
    return code


def main() -> None:
    if platform.machine() != "x86_64":
        stop("an x86-64 machine is needed: the emulated one runs this machine's Python")
    CACHE.mkdir(parents=True, exist_ok=True)
    emulator, busybox = find_emulator(), find_busybox()
    image, modules = find_kernel()
    initial = CACHE / "initial.cpio"
    selection = sys.argv[1:] or list(SELECTION)
    initial.write_bytes(archive(members(busybox, module_files(modules), command(selection))))
    print(f"booting {image.name}: {' '.join(selection)}", flush=True)
    sys.exit(boot(emulator, image, initial))


if __name__ == "__main__":
    main()
