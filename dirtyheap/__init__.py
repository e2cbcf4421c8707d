"""dirtyheap: a persistent heap for Python. Change anything, commit, pay for what you changed.

>>> import dirtyheap as dh, tempfile, os
>>> with dh.open(os.path.join(tempfile.mkdtemp(), "heap")) as heap:
...     heap.root["answers"] = [42]
...     heap.root["answers"].append(43)
...     heap.commit().id
1
"""

from . import lab, pagemap
from ._native import Buffer, Deque, Dict, List, Record, Set, SortedDict, to_python
from .census import (
    CellSize,
    Census,
    ContainerGrowth,
    Growth,
    Step,
    TypeCount,
    TypeGrowth,
    Why,
)
from .errors import (
    CommitError,
    HeapClosedError,
    HeapCorruptError,
    HeapError,
    HeapFullError,
    HeapLockedError,
    HeapPoisonedError,
    ReadOnlyError,
    RecordClassError,
    StaleObjectError,
    TrackerError,
    UnreportedWriteError,
)
from .findings import Finding, Verdict
from .heap import Heap, open
from .pickled import Pickled
from .probe import Probe, ProbeResult, probe
from .records import asdict, field, record
from .results import (
    Backup,
    Change,
    CollectStats,
    Commit,
    Diff,
    HeapStats,
    Pending,
    Problem,
    VerifyReport,
)
from .savepoints import Savepoint
from .scalars import Unknown, register
from .verifier import verify
from .write_watch import Cursor, Pages, WriteWatch

__version__ = "0.1.0"

__all__ = [
    "Backup",
    "Buffer",
    "CellSize",
    "Census",
    "Change",
    "CollectStats",
    "Commit",
    "CommitError",
    "ContainerGrowth",
    "Cursor",
    "Deque",
    "Dict",
    "Diff",
    "Finding",
    "Growth",
    "Heap",
    "HeapClosedError",
    "HeapCorruptError",
    "HeapError",
    "HeapFullError",
    "HeapLockedError",
    "HeapPoisonedError",
    "HeapStats",
    "List",
    "Pages",
    "Pending",
    "Pickled",
    "Probe",
    "ProbeResult",
    "Problem",
    "ReadOnlyError",
    "Record",
    "RecordClassError",
    "Savepoint",
    "Set",
    "SortedDict",
    "StaleObjectError",
    "Step",
    "TrackerError",
    "TypeCount",
    "TypeGrowth",
    "Unknown",
    "UnreportedWriteError",
    "Verdict",
    "VerifyReport",
    "Why",
    "WriteWatch",
    "asdict",
    "field",
    "lab",
    "open",
    "pagemap",
    "probe",
    "record",
    "register",
    "to_python",
    "verify",
]
