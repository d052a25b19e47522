"""How long work takes that is made again and again: seconds per unit, the median over some rounds."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median

import torch

from agd_core.basics.progress import ShouldStop, Stopped, never
from agd_core.evaluation.bench import Clock

Tick = Callable[[int], None]
"""Called at the end of every round with the units that it made."""

_MOST_ROUNDS = 30


class _Enough(Exception):
    """Ends the work, which knows no end."""


@dataclass(frozen=True)
class Stopwatch:
    """Times work on a device."""

    device: torch.device
    should_stop: ShouldStop = never
    """Asked after every round."""
    clock: Clock = time.perf_counter
    """In seconds."""

    def seconds_per_unit(self, repeat: Callable[[Tick], None], budget: float) -> float:
        """The median over the rounds, without what comes before the first tick: that loads and warms up.

        Args:
            repeat: makes round after round without an end.
            budget: seconds after which no further round begins; one is made in any case.

        Raises:
            Stopped: when `should_stop` answered True.
        """
        rounds = _Rounds(self, budget)
        with suppress(_Enough):
            repeat(rounds.tick)
        return median(rounds.per_unit)

    def now(self) -> float:
        """The clock, when the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.clock()


@dataclass
class _Rounds:
    watch: Stopwatch
    budget: float
    ticks: list[float] = field(default_factory=list)
    per_unit: list[float] = field(default_factory=list)

    def tick(self, units: int) -> None:
        if self.watch.should_stop():
            raise Stopped("stopped while measuring; run the same command again")
        self.ticks.append(self.watch.now())
        if len(self.ticks) == 1:
            return
        self.per_unit.append((self.ticks[-1] - self.ticks[-2]) / units)
        if len(self.per_unit) == _MOST_ROUNDS or self.ticks[-1] - self.ticks[0] >= self.budget:
            raise _Enough
