"""How long work reports where it is and learns that it should stop, without knowing who listens."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

Announce = Callable[[str], None]
"""Told in one line what is being done."""


@runtime_checkable
class Progress(Protocol):
    """Called with work done so far, the total, and a short note such as the current loss."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def silent(done: int, total: int, note: str = "") -> None:
    """The progress listener that ignores everything."""


ShouldStop = Callable[[], bool]
"""Polled once per step; when it answers True the work checkpoints and raises `Stopped`."""


def never() -> bool:
    """The `ShouldStop` that never stops."""
    return False


class Stopped(Exception):
    """Raised after a clean checkpoint because `ShouldStop` answered True; the same call resumes."""
