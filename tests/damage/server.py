"""The process that forks: imports everything once, makes the specimens, and runs each case in a
child that may die.

    server.py DIRECTORY SUITE SEED FIRST STEP COUNT

Runs the cases FIRST, FIRST + STEP, ... below COUNT of a suite, each drawn from the seed and its
number alone, and writes a line of JSON for each. So any case can be run again by itself.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [
    str(Path(__file__).resolve().parent),
    str(Path(__file__).resolve().parent.parent),
    str(Path(__file__).resolve().parent.parent / "store"),
]

import hostile  # noqa: E402
import storage  # noqa: E402
from specimens import make_specimens  # noqa: E402

HANG_SECONDS = 30
# Address space of a case: a hostile size must not take the machine along.
MEMORY_BYTES = int(os.environ.get("DH_DAMAGE_MEMORY", 8 << 30))
SUITES: dict[str, Any] = {"storage": storage, "hostile": hostile}


def _in_child(work: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Run in a forked child; its answer, or how it died."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        signal.alarm(HANG_SECONDS)
        if MEMORY_BYTES:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        try:
            answer: dict[str, Any] = work()
        except BaseException:
            answer = {"outcome": "bad error", "text": traceback.format_exc()}
        os.write(write_fd, json.dumps(answer).encode()[:60000])
        os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as answers:
        data = answers.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return {"outcome": "hang" if name == "SIGALRM" else "signal", "text": name}
    if not data:
        return {"outcome": "signal", "text": f"exit status {os.waitstatus_to_exitcode(status)}"}
    found: dict[str, str] = json.loads(data)
    return found


def main() -> None:
    """See above."""
    directory, suite = Path(sys.argv[1]), sys.argv[2]
    seed, first, step, count = map(int, sys.argv[3:])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    package = os.environ.get("DH_DAMAGE_PACKAGE", "")
    assert hostile.dh.__file__.startswith(package), f"not the package in {package}"
    specimens = make_specimens(directory)
    SUITES[suite].prepare(specimens)
    where = directory / "case"
    for case in range(first, count, step):

        def work(case: int = case) -> dict[str, str]:
            found: dict[str, str] = SUITES[suite].run(specimens, f"{seed} {case}", case, where)
            return found

        what = _in_child(work)
        shutil.rmtree(where, ignore_errors=True)
        print(json.dumps({"case": case, **what}), flush=True)


if __name__ == "__main__":
    main()
