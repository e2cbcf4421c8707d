"""What a look at the machine finds: one answer with its reason and remedy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How an answer is meant.

    YES: it is there, or as it should be. NO: it is not, and heaps can do without. WARNING: it makes
    heaps slow, unsafe or impossible here. FACT: neither good nor bad. UNTESTED: nobody looked, and
    the text says why.
    """

    YES = "yes"
    NO = "no"
    WARNING = "warning"
    FACT = "fact"
    UNTESTED = "not tested"


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer.

    Attributes:
        group: ``tracking``, ``kernel``, ``process``, ``memory`` or ``files``.
        name: of the question; a promise to scripts.
        verdict: see :class:`Verdict`.
        text: what was seen.
        remedy: what can be done about it; empty where nothing needs to be.
    """

    group: str
    name: str
    verdict: Verdict
    text: str
    remedy: str = ""
