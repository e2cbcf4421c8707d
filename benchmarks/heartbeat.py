"""How long an application is stopped, seen from outside: by a Python thread and by a C thread.

The Python thread notes the longest time between two of its beats beyond the time it sleeps, the C
thread (gil_heartbeat.c) its longest wait for the GIL. Neither knows what the main thread does.
"""

from __future__ import annotations

import ctypes
import sysconfig
import threading
import time
from pathlib import Path
from types import TracebackType

from common import HERE, compile_c

INTERVAL_S = 0.0002


class Heartbeat:
    """Runs both threads; `longest()` tells about the time since `reset()`."""

    def __init__(self, directory: Path) -> None:
        library = compile_c(
            directory / "gil_heartbeat.so",
            [HERE / "gil_heartbeat.c"],
            "-shared",
            "-fPIC",
            f"-I{sysconfig.get_path('include')}",
            "-lpthread",
        )
        self._c = ctypes.CDLL(str(library))
        self._c.heartbeat_longest_ns.restype = ctypes.c_uint64
        self._c.heartbeat_beats_count.restype = ctypes.c_uint64
        self._c.heartbeat_start.argtypes = [ctypes.c_long]
        self._longest_s = 0.0
        self._beats = 0
        self._is_running = True
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def _beat(self) -> None:
        last = time.perf_counter()
        while self._is_running:
            time.sleep(INTERVAL_S)
            now = time.perf_counter()
            self._longest_s = max(self._longest_s, now - last - INTERVAL_S)
            self._beats += 1
            last = now

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        if self._c.heartbeat_start(int(INTERVAL_S * 1e9)) != 0:
            raise RuntimeError("the C heartbeat thread did not start")
        self.settle()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_running = False
        self._thread.join()
        self._c.heartbeat_stop()

    def settle(self) -> None:
        """Let both threads beat a few times, so that what is under way is noted before or after."""
        python_beats, c_beats = self._beats + 3, self._c.heartbeat_beats_count() + 3
        while self._beats < python_beats or self._c.heartbeat_beats_count() < c_beats:
            time.sleep(INTERVAL_S)

    def reset(self) -> None:
        self.settle()
        self._longest_s = 0.0
        self._c.heartbeat_reset()

    def longest(self) -> tuple[float, float]:
        """Seconds: (longest gap of the Python thread, longest wait of the C thread)."""
        self.settle()
        return self._longest_s, self._c.heartbeat_longest_ns() / 1e9
