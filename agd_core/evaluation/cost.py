"""What one step of a method costs: network evaluations, time, throughput, FLOPs and memory, all of them measured.

A step is one answer of `Denoiser.steps`, and its share of what is prepared once for all of a sampler's steps. The
sampler's own arithmetic is the same for every method and is left out.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from agd_core.basics.progress import Progress, silent
from agd_core.evaluation.bench import Bench, Counted

GROWTH = 4
"""The batch grows 1, 4, 16, ..."""
MIN_GAIN = 0.05
"""A method is saturated at a batch if the next one makes less than 5 % more images per second."""
MIN_ROUNDS, _MAX_ROUNDS = 5, 30
_LEVELS = 20
"""After the fewest rounds, more follow at one batch for this part of the whole time."""
_LAST_RESORT = 2
"""Rounds that are made even where the whole time is over."""

_Level = dict[str, list[float]]
"""Seconds of every round at one batch, by method."""


@dataclass(frozen=True)
class Cost:
    """What one step of one method costs."""

    network_evaluations_per_step: float
    """Rows through the network per image, counted by the denoiser."""
    gigaflops_per_step: float
    """10^9 floating-point operations per image in matrix products, convolutions and attention; multiply-add is two."""
    milliseconds_per_step_batch_1: float
    overhead_percent_batch_1: float
    """Extra time against the bare base model at batch 1."""
    saturation_batch: int
    """Images in the batch beyond which less than 5 % is gained, or in the largest that was measured."""
    stopped_by: str
    """Why no larger batch counts: "gain below 5 %" (that is saturation), "out of memory", "time", "largest batch"."""
    milliseconds_per_step: float
    """Of the whole batch, at saturation."""
    evaluated_images_per_second: float
    """Images that one step takes per second, at saturation; divided by a sampler's steps, finished images."""
    overhead_percent: float
    """Extra time against the bare base model at the same batch, at saturation."""
    overhead_percent_low: float
    overhead_percent_high: float
    """Quartiles of that over the rounds: how sure it is."""
    rounds: int
    """How often it was measured at saturation."""
    peak_memory_megabytes: float
    """10^6 bytes that one step at saturation takes above weights and inputs."""
    memory_note: str
    """How that was measured, and at which batch."""
    milliseconds_by_batch: Mapping[str, float]
    """Per step, at every batch that was measured."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**vars(self), "milliseconds_by_batch": dict(self.milliseconds_by_batch)}


def measure_costs(
    bench: Bench, seconds: float = 15.0, largest_batch: int = 4096, on_progress: Progress = silent
) -> dict[str, Cost]:
    """What one step of every method costs.

    At every batch the methods take turns, after a call each that does not count; times are medians over the
    rounds, overheads medians of what differs within a round. The batch grows until it gains nothing, memory does
    not suffice or the time would run out.

    Args:
        bench: the methods; the first is the bare base model.
        seconds: about how long to measure; batch 1 is measured twice however long it takes.
        largest_batch: images.
        on_progress: told the seconds gone and the batch.

    Raises:
        InputError: the device cannot hold a single image.
        Stopped: when `should_stop` answered True.
    """
    counted = {name: bench.count(name) for name in bench.methods}
    growth = _Growth(bench, counted, largest_batch)
    growth.run(seconds, on_progress)
    return {name: _cost(bench, growth, name, mine) for name, mine in counted.items()}


class _Growth:
    """Times larger and larger batches. Whatever gains no more is left out, but for the base model: others need it."""

    def __init__(self, bench: Bench, counted: Mapping[str, Counted], largest_batch: int) -> None:
        self.levels: dict[int, _Level] = {}
        self.ends: dict[str, tuple[int, str]] = {}
        """By method: the batch that counts, and why no larger one does."""
        self._bench, self._names, self._largest = bench, tuple(counted), largest_batch
        self._timed = {name: mine.timed for name, mine in counted.items()}

    def run(self, seconds: float, on_progress: Progress) -> None:
        """Fill `levels` and `ends` in about so many seconds."""
        started, batch = self._bench.clock(), 1
        while growing := self._growing():
            level = self._time(dict.fromkeys((self._names[0], *growing)), batch, seconds)
            if self._names[0] in level:
                self.levels[batch] = level
            self.ends |= {name: end for name in growing if (end := self._end(name, batch))}
            left = seconds - (self._bench.clock() - started)
            if left < self._next_seconds(level):
                self.ends |= dict.fromkeys(self._growing(), (batch, "time"))
            on_progress(math.ceil(seconds - max(left, 0)), math.ceil(seconds), f"batch {batch}")
            batch *= GROWTH

    def _growing(self) -> list[str]:
        return [name for name in self._names if name not in self.ends]

    def _next_seconds(self, level: _Level) -> float:
        """The time of a batch GROWTH times as large, if it gains nothing."""
        names = dict.fromkeys((self._names[0], *self._growing()))
        return math.fsum(median(level[name]) for name in names if name in level) * GROWTH * (MIN_ROUNDS + 1)

    def overheads(self, name: str, batch: int) -> list[float]:
        """Percent of every round over the base model's time in the same round."""
        level = self.levels[batch]
        return [100 * (mine / base - 1) for mine, base in zip(level[name], level[self._names[0]], strict=True)]

    def _time(self, names: Iterable[str], batch: int, seconds: float) -> _Level:
        inputs, clock = self._bench.inputs(batch), self._bench.clock

        def seconds_of(name: str) -> float | None:
            return self._bench.seconds(name, self._timed[name], inputs)

        fitting = [name for name in names if seconds_of(name) is not None]
        rounds: list[dict[str, float | None]] = []
        started = clock()
        while _goes_on(len(rounds), clock() - started, seconds):
            rounds.append({name: seconds_of(name) for name in fitting})
        columns = {name: [taken for one in rounds if (taken := one[name]) is not None] for name in fitting}
        return {name: column for name, column in columns.items() if len(column) == len(rounds)}

    def _end(self, name: str, batch: int) -> tuple[int, str] | None:
        """The method's end, if this batch is the last to be measured for it."""
        previous = batch // GROWTH
        if name not in self.levels.get(batch, {}):
            if not previous:
                raise self._bench.too_small(name)
            return previous, "out of memory"
        if previous and self._gain(name, previous) < MIN_GAIN:
            return previous, "gain below 5 %"
        return (batch, "largest batch") if batch * GROWTH > self._largest else None

    def _gain(self, name: str, batch: int) -> float:
        """What the next batch has over this one in images per second, by the round that was disturbed least."""
        return GROWTH * min(self.levels[batch][name]) / min(self.levels[batch * GROWTH][name]) - 1


def _goes_on(rounds: int, gone: float, seconds: float) -> bool:
    """Whether another round at this batch is due, so many seconds after the first began."""
    if rounds < MIN_ROUNDS:
        return rounds < _LAST_RESORT or gone < seconds
    return rounds < _MAX_ROUNDS and gone < seconds / _LEVELS


def _cost(bench: Bench, growth: _Growth, name: str, counted: Counted) -> Cost:
    batch, stopped_by = growth.ends[name]
    seconds = {size: median(level[name]) for size, level in growth.levels.items() if name in level}
    overheads = growth.overheads(name, batch)
    low, middle, high = quantiles(overheads, method="inclusive")
    memory, note = bench.memory(name, counted.timed, batch)
    return Cost(
        network_evaluations_per_step=counted.evaluations,
        gigaflops_per_step=counted.flops / 1e9,
        milliseconds_per_step_batch_1=1e3 * seconds[1],
        overhead_percent_batch_1=median(growth.overheads(name, 1)),
        saturation_batch=batch,
        stopped_by=stopped_by,
        milliseconds_per_step=1e3 * seconds[batch],
        evaluated_images_per_second=batch / seconds[batch],
        overhead_percent=middle,
        overhead_percent_low=low,
        overhead_percent_high=high,
        rounds=len(overheads),
        peak_memory_megabytes=memory / 1e6,
        memory_note=f"{note}; one step of {batch} images",
        milliseconds_by_batch={str(size): 1e3 * taken for size, taken in seconds.items()},
    )
