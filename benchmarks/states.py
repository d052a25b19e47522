"""Guided or noised states: does it matter where the teacher was asked? AGD's ablation, on the built-in teacher.

    python -m benchmarks.states --output outputs/states [--seeds 3] [--trajectories 320] [--steps 240] [--images 128]

The same trajectories (classes, guidance scales, kept timesteps, number of pairs) are collected three times: at the
states that guided sampling visits, at noised real images (Fashion-MNIST) and at noised images of the teacher's own.
Each method is trained on each for equal steps. A seed is that of collection, training and sampling together. The error
is the mean squared distance of the final latent to CFG's from the same noise. Intervals are over the seeds (Student's
t); guided and noised states are compared seed by seed, by the ratio of their errors. Finished stages are reused, so a
stopped benchmark goes on. Writes states.json and states.md.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from scipy.stats import t as student

from agd_core.basics.atomic import write_bytes
from agd_core.models.config import BaseModelConfig
from flows.presets import load_config
from flows.run import Run
from flows.stages.collect import collect
from flows.stages.sample import Cell, read_samples, sample
from flows.stages.train import train
from flows.terminal import Terminal
from flows.workplace import Workplace, describe_device
from storage.artefacts import Artefact

PRESET = "fashion-dit"
GUIDED = "guided"
STATES = {
    GUIDED: ("collect.states=guided",),
    "noised, real": ("collect.states=noised", "collect.images=builtin:fashion-mnist"),
    "noised, teacher-made": ("collect.states=noised",),
}
METHODS = "methods=[{kind: agd-modulated-mlp}, {kind: agd-cross-attention, hidden_width: 32}]"
SCALES = (1.0, 2.0, 3.5, 5.0, 8.0)
"""The preset's range is 1 to 5, so the last lies beyond it."""
NONE = "no guidance"
CONFIDENCE = 0.95
_NOUGHT = 1e-8
"""An error below this is rounding: a method that is exact there."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % interval; None where there is one seed."""

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def over(cls, values: Sequence[float]) -> "Interval":
        """Of independent values, by Student's t."""
        mean = statistics.fmean(values)
        if len(values) < 2:
            return cls(mean, None, None)
        spread = statistics.stdev(values) / math.sqrt(len(values)) * student.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
        return cls(mean, mean - spread, mean + spread)


@dataclass(frozen=True)
class Row:
    """One method on one kind of states, at one scale."""

    method: str
    states: str
    scale: float
    errors: tuple[float, ...]
    """By seed."""
    error: Interval
    over_guided: Interval | None
    """Of the error's ratio to that with guided states, seed by seed, by their logarithms; None of guided states."""

    @property
    def verdict(self) -> str:
        """What the ratio says of guided states."""
        ratio = self.over_guided
        if ratio is None or ratio.low is None or ratio.high is None:
            return ""
        return "better" if ratio.low > 1 else "worse" if ratio.high < 1 else "not told apart"


def ratio_over(errors: Sequence[float], guided: Sequence[float]) -> Interval | None:
    """The geometric mean of the ratios and its interval; None where an error is nought."""
    if min(*errors, *guided) < _NOUGHT:
        return None
    logs = Interval.over([math.log(one / other) for one, other in zip(errors, guided, strict=True)])
    bounds = (None if bound is None else math.exp(bound) for bound in (logs.low, logs.high))
    return Interval(math.exp(logs.mean), *bounds)


class Benchmark:
    """All seeds in one output folder."""

    def __init__(self, given: argparse.Namespace, place: Workplace) -> None:
        self.given, self.place = given, place
        self.model = BaseModelConfig().build(place.device)
        self.costs: dict[str, int] = {}
        """Network evaluations of a collection, by kind of states."""

    def run(self, states: str, seed: int) -> Run:
        """The settings of one collection and its trainings."""
        given = self.given
        settings = (
            *STATES[states],
            METHODS,
            f"collect.trajectories={given.trajectories}",
            f"train.steps={given.steps}",
            f"sample.images={given.images}",
            *(f"{section}.seed={seed}" for section in ("collect", "train", "sample")),
        )
        return Run(load_config(PRESET, settings), self.place, self.model).check()

    def errors(self, seed: int) -> Iterator[tuple[str, str, float, float]]:
        """(method, states, scale, error) of everything, no guidance first."""
        run = self.run(GUIDED, seed)
        guided = {scale: self._latents(run, scale, "CFG") for scale in self.given.scales}
        bare = self._latents(run, 1.0, NONE)
        for scale, latents in guided.items():
            yield NONE, "", scale, _error(bare, latents)
        for states in STATES:
            run = self.run(states, seed)
            before = run.teacher.network_evaluations
            trajectories = collect(run)
            if spent := run.teacher.network_evaluations - before:
                self.costs[states] = spent
            for method in run.config.methods:
                adapter = train(run, method, trajectories)
                for scale, latents in guided.items():
                    made = self._latents(run, scale, method.label, adapter)
                    yield method.label, states, scale, _error(made, latents)

    def _latents(self, run: Run, scale: float, name: str, adapter: Artefact | None = None) -> torch.Tensor:
        sampled, guidance = run.config.sample, run.config.guidance if name == "CFG" else None
        return read_samples(sample(run, Cell(scale, sampled.steps, sampled.scheduler, guidance, adapter), name)).latents


def _error(latents: torch.Tensor, guided: torch.Tensor) -> float:
    return float((latents.double() - guided.double()).square().mean())


def rows_of(found: dict[tuple[str, str, float], list[float]]) -> list[Row]:
    """Rows with their intervals, from errors by (method, states, scale) and then by seed."""
    rows = []
    for (method, states, scale), errors in found.items():
        guided = found.get((method, GUIDED, scale))
        ratio = ratio_over(errors, guided) if guided and states != GUIDED else None
        rows.append(Row(method, states, scale, tuple(errors), Interval.over(errors), ratio))
    return rows


def table(rows: Sequence[Row]) -> str:
    """Markdown: errors by scale, then the ratios to guided states."""
    scales = list(dict.fromkeys(row.scale for row in rows))
    heads = " | ".join(f"{scale:g}" for scale in scales)
    lines = [f"| method | states | {heads} |", "| --- | --- |" + " --- |" * len(scales)]
    cells = {(row.method, row.states, row.scale): row for row in rows}
    kinds = list(dict.fromkeys((row.method, row.states) for row in rows))
    for kind in kinds:
        lines.append(f"| {kind[0]} | {kind[1]} | " + " | ".join(_error_cell(cells[*kind, s]) for s in scales) + " |")
    lines += ["", f"| method | states, over guided | {heads} |", lines[1]]
    for kind in (kind for kind in kinds if any(cells[*kind, scale].over_guided for scale in scales)):
        lines.append(f"| {kind[0]} | {kind[1]} | " + " | ".join(_ratio_cell(cells[*kind, s]) for s in scales) + " |")
    return "\n".join(lines) + "\n"


def _error_cell(row: Row) -> str:
    spread = "" if row.error.high is None else f" ± {row.error.high - row.error.mean:.4f}"
    return f"{row.error.mean:.4f}{spread}"


def _ratio_cell(row: Row) -> str:
    ratio = row.over_guided
    if ratio is None:
        return "-"
    between = "" if ratio.low is None else f" ({ratio.low:.2f} to {ratio.high:.2f}): guided {row.verdict}"
    return f"{ratio.mean:.2f}{between}"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trajectories", type=int, default=320)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--scales", type=float, nargs="+", default=SCALES)
    given = parser.parse_args(words)
    found: dict[tuple[str, str, float], list[float]] = {}
    with Terminal() as terminal:
        place = Workplace(given.output, announce=terminal.announce, progress=terminal.progress)
        benchmark, started = Benchmark(given, place), time.process_time()
        for seed in range(given.seeds):
            for method, states, scale, error in benchmark.errors(seed):
                found.setdefault((method, states, scale), []).append(error)
                print(f"seed {seed}, {method}, {states}, scale {scale:g}: {error:.5f}", file=sys.stderr, flush=True)
    rows = rows_of(found)
    settings = {name: value for name, value in vars(given).items() if name != "output"} | {
        "preset": PRESET,
        "device": describe_device(place.device),
        "torch": torch.__version__,
        "collection_evaluations": benchmark.costs,
        "processor_seconds": round(time.process_time() - started),
    }
    plain = [asdict(row) | {"guided_is": row.verdict} for row in rows]
    text = json.dumps({"settings": settings, "rows": plain}, indent=2)
    write_bytes(text.encode(), given.output / "states.json")
    write_bytes(table(rows).encode(), given.output / "states.md")
    print(table(rows))


if __name__ == "__main__":
    main()
