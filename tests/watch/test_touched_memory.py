"""Rollback and commit touch memory that follows the pages written, not the heap.

Counted by the kernel: the processor notes in the page tables which pages are referenced; the notes
are cleared before the verb (clear_refs) and read after it (smaps). What a verb zeroes, copies or
walks through by the page shows up, what it asks the kernel in one call does not.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import require_tracker, run_ok

pytestmark = pytest.mark.timeout(120)

SCRIPT = """
import json, random, sys
from pathlib import Path
import numpy
import dirtyheap as dh

PAGES_FEW, PAGES_MANY = 10, 3000
cold = numpy.zeros(4 << 20, "u8")

def touched(work):
    Path("/proc/self/clear_refs").write_text("1")
    cold.sum()  # so that no translation from before is still cached
    work()
    total, is_ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):  # a mapping: of libraries other processes make notes, too
            is_ours = len(words) < 6 or words[5] == "[heap]" or words[5].startswith(sys.argv[1])
        elif is_ours and words[0] == "Referenced:":
            total += int(words[1]) << 10
    return total

heap = dh.open(sys.argv[1], capacity=1 << 30, proof=False)  # which reads every page
pages = int(sys.argv[2]) << 8
memory = heap.root["memory"] = heap.buffer(pages << 12)
words = numpy.frombuffer(memory, "u8").reshape(pages, 512)
words[:] = numpy.arange(512)
heap.commit()
rng = random.Random(1)
found = {}
for _ in range(3):  # the least counts: the first makes buffers, any may meet Python's collector
    for verb in ("rollback", "commit"):
        for count in (PAGES_MANY, PAGES_FEW):
            words[rng.sample(range(1, pages), count), 7] += 1
            name = f"{verb} of {count}"
            found[name] = min(found.get(name, 1 << 60), touched(getattr(heap, verb)))
            heap.commit()  # which forgets the pages that a rollback restored
print(json.dumps(found))
del words, memory
heap.close()
"""


def test_the_memory_touched_follows_the_pages_written(tmp_path: Path) -> None:
    require_tracker("auto")  # who compares looks at every page
    small, large = (json.loads(run_ok(SCRIPT, tmp_path / f"heap {mib}", mib)) for mib in (16, 256))
    print(small, large)
    for verb in ("rollback", "commit"):
        few, many = f"{verb} of 10", f"{verb} of 3000"
        # The control: 2990 pages more are seen, or half of them where they are still cached.
        assert large[many] - large[few] > 2990 * 4096 / 2, "the kernel's notes show nothing"
        # 61,440 pages of heap more: less than 16 bytes for each. (A page of a base file
        # comes with its neighbours, 64 KiB: so ten, not a hundred.)
        assert large[few] - small[few] < 61_440 * 16
