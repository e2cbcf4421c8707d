"""One verb at a time: the heap's lock around it, and what it refuses before it begins."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

__all__ = ["Guarded", "acquire_while", "exclusive"]

# How often a thread that waits for the heap's lock looks whether it is still wanted.
_LOOK_S: Final = 0.1


class Guarded(Protocol):
    """What :func:`exclusive` needs of a heap."""

    _lock: RLock
    _verb: str

    def _refuse_in_child(self) -> None: ...
    def _refuse_if_busy(self, verb: str) -> None: ...
    def _refuse_read_only(self, verb: str) -> None: ...


def acquire_while(lock: RLock, is_wanted: Callable[[], bool]) -> bool:
    """Acquire the heap's lock for a thread in the background; False: it is not wanted any more. Who
    holds the lock may never let it go, in a thread that does not keep the interpreter from ending,
    say: the one that waits must not either."""
    while is_wanted():
        if lock.acquire(timeout=_LOOK_S):
            return True
    return False


_Self = TypeVar("_Self", bound=Guarded)
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Method = Callable[Concatenate[_Self, _Arguments], _Result]


def exclusive(
    verb: str, *, writes: bool = True
) -> Callable[[_Method[_Self, _Arguments, _Result]], _Method[_Self, _Arguments, _Result]]:
    """Hold the heap's lock for one verb; refuse re-entry from a callback of this thread, and what
    ``writes`` on a heap that is open for reading only.

    Not a context manager: CPython delivers interrupts where a function written in Python begins,
    so that the end of one could be left out, and the heap be busy for ever.
    """

    def decorate(
        method: _Method[_Self, _Arguments, _Result],
    ) -> _Method[_Self, _Arguments, _Result]:
        @wraps(method)
        def guarded(self: _Self, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
            self._refuse_in_child()  # where the lock's owner may not exist
            with self._lock:
                self._refuse_if_busy(verb)
                if writes:
                    self._refuse_read_only(verb)
                try:
                    self._verb = verb
                    return method(self, *args, **kwargs)
                finally:
                    self._verb = ""

        return guarded

    return decorate
