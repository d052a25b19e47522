"""Memory that ran out, the commonest death of a job on a GPU: one line that says so and what to try."""

import re
import time
from collections.abc import Callable
from pathlib import Path

OUT_OF_MEMORY = "out of memory"
ADVICE = (
    "try a smaller collect.batch_size, train.batch_size or sample.batch_size; "
    "`agd doctor PRESET` says how large a batch fits"
)
_KERNEL_COUNTS = Path("/proc/vmstat")
_OOM_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
_CPU = "can't allocate memory"
"""PyTorch's allocator for the CPU raises a plain RuntimeError with this in it."""
_FIRST_SENTENCES = 2


def memory_line(error: BaseException) -> str | None:
    """One line for a person where an error says that memory ran out; None for every other error."""
    import torch  # here, for `agd up` needs only the words

    if not isinstance(error, torch.OutOfMemoryError | MemoryError) and _CPU not in str(error):
        return None
    said = " ".join(str(error).split())
    first = ". ".join(re.split(r"\. |\.$", said)[:_FIRST_SENTENCES])
    return f"{OUT_OF_MEMORY}{f' ({first})' if first else ''}: {ADVICE}"


class KernelKills:
    """When the kernel last killed a process because memory ran out, by its own count.

    Args:
        clock: counts seconds.
        counts: where Linux counts.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, counts: Path = _KERNEL_COUNTS) -> None:
        self._clock = clock
        self._counts = counts
        self._seen = self._read()
        self._rose: float | None = None

    def look(self) -> None:
        """Read the count; to be called every few seconds."""
        if (now := self._read()) > self._seen:
            self._seen, self._rose = now, self._clock()

    def lately(self, seconds: float) -> bool:
        """Whether it happened within this time."""
        return self._rose is not None and self._clock() - self._rose <= seconds

    def _read(self) -> int:
        try:
            found = _OOM_KILLS.search(self._counts.read_text(encoding="ascii"))
        except OSError:
            return 0
        return int(found[1]) if found else 0
