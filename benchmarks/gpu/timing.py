"""Times of steps that take turns, on the device's own clock."""

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agd_core.basics.errors import InputError

WARM_UP = 2
"""Turns of every side that do not count: a compiled side is compiled once more after another one's first turn."""
Step = Callable[[], Tensor]
Side = Callable[[], AbstractContextManager[Step]]
"""Makes everything ready for one side's turn, which is not timed."""


class Laps:
    """Moments on a device's clock: events of CUDA's stream, the wall clock elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._moments: list[Any] = []

    def mark(self) -> None:
        """Note this moment; on CUDA, when the work that was given before is done."""
        if not self._on_cuda:
            return self._moments.append(time.perf_counter())
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return self._moments.append(event)

    def seconds(self) -> list[float]:
        """Between each moment and the next."""
        if not self._on_cuda:
            return [end - begin for begin, end in zip(self._moments, self._moments[1:], strict=False)]
        torch.cuda.synchronize()
        pairs = zip(self._moments, self._moments[1:], strict=False)
        return [float(begin.elapsed_time(end)) / 1e3 for begin, end in pairs]


def seconds_of(step: Callable[[], object], device: torch.device) -> float:
    """The device's time for one step that begins when it is idle."""
    laps = Laps(device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    laps.mark()
    step()
    laps.mark()
    return laps.seconds()[0]


@torch.no_grad()
def time_sides(sides: Mapping[str, Side], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of every side in every round; every second round runs backwards, against drift.

    Raises:
        InputError: a side's numbers do not stay finite.
    """
    for name in list(sides) * WARM_UP:
        with sides[name]() as step:
            if not step().isfinite().all():
                raise InputError(f"{name}: the output is not finite; random weights are too large for this type")
    times: dict[str, list[float]] = {name: [] for name in sides}
    for index in range(rounds):
        for name in list(sides)[:: 1 - 2 * (index % 2)]:
            with sides[name]() as step:
                times[name].append(seconds_of(step, device))
    return times


def quartiles(ratios: Sequence[float]) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def divided(top: Iterable[float], bottom: Iterable[float]) -> list[float]:
    """The ratio of every round."""
    return [one / other for one, other in zip(top, bottom, strict=True)]


def machine(device: torch.device) -> str:
    """What the times are of."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{named[0] if named else platform.machine()}, {torch.get_num_threads()} threads of {len(named)} CPUs"
