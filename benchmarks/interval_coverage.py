"""How often the 95 % intervals hold the truth, on synthetic Gaussians whose truth is known.

    OMP_NUM_THREADS=1 python benchmarks/interval_coverage.py [--trials 200] [--worlds 0 1 2]

Features are a mixture of Gaussians, equally many of every class. Truth: for `fd_infinity` the closed form of the two
populations; for everything else the mean of many more independent sets of the same size. "claimed" is the mean
standard error over the true spread among sets: 1.00 is right, more is too wide.
"""

import argparse
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from agd_core.basics.seeding import generator
from agd_core.evaluation.evaluator import EvaluateConfig, evaluate_samples
from agd_core.evaluation.metrics import FeatureStatistics, Measured, Reference, Score, Seen
from agd_core.evaluation.metrics import frechet_distance as distance

REAL_IMAGES = 2000
METRIC_NAMES = ("frechet", "kid", "inception-score", "precision-recall", "agreement")


@dataclass(frozen=True)
class World:
    """Real images and samples as mixtures of Gaussians with common centres."""

    images: int
    width: int
    classes: int = 10
    decay: float = 0.0
    """Variances of the axes fall like `axis ** -decay`, as those of real features do."""
    shift: float = 1.0
    """How far the samples' mean lies from the real one, in standard deviations."""
    spread: float = 0.2
    """By how much the samples' standard deviations differ from the real ones."""
    name: str = ""

    @cached_property
    def real_mixing(self) -> Tensor:
        """[width, width]: a real feature is its class's centre plus this times white noise."""
        axes = torch.linalg.qr(self._normal("axes", self.width, self.width)).Q
        return axes * torch.arange(1, self.width + 1).double() ** (-self.decay / 2)

    @cached_property
    def mixing(self) -> Tensor:
        """The same of the samples."""
        return self.real_mixing * (1 + self.spread * self._normal("spread", self.width))

    @cached_property
    def real_centres(self) -> Tensor:
        """[classes, width]."""
        return self._normal("centres", self.classes, self.width) @ self.real_mixing.T

    @cached_property
    def centres(self) -> Tensor:
        """[classes, width], of the samples."""
        return (
            self.real_centres + self.shift / math.sqrt(self.width) * self._normal("shift", self.width) @ self.mixing.T
        )

    @cached_property
    def reference(self) -> Reference:
        """The real population, and some of its images."""
        rows = torch.arange(REAL_IMAGES) % self.classes
        features = self.real_centres[rows] + self._normal("real", REAL_IMAGES, self.width) @ self.real_mixing.T
        return Reference(_population(self.real_centres, self.real_mixing), features.float(), self.name)

    @property
    def distance(self) -> float:
        """Between the populations."""
        return distance(self.reference.statistics, _population(self.centres, self.mixing))

    def draw(self, seed: int) -> Measured:
        """One sample set, equally many of every class; the judge is the best linear one."""
        labels = torch.arange(self.images) % self.classes
        noise = torch.randn(self.images, self.width, generator=generator("set", seed)).double()
        features = self.centres[labels] + noise @ self.mixing.T
        logits = features @ self.real_centres.T - self.real_centres.square().sum(dim=1) / 2
        return Measured(_seen(features.float(), logits.float(), labels), None, self.reference)

    def _normal(self, what: str, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator("world", what, self.width, self.classes)).double()


WORLDS = (
    World(1000, 16),
    World(1000, 64, classes=1),
    World(1000, 64),
    World(1000, 128),
    World(1000, 128, decay=1.0, shift=0.3, spread=0.1),
    World(2000, 128, decay=0.5, spread=0.1),
    World(5000, 128),
    World(5000, 64, decay=1.0, shift=0.5, spread=0.1),
    World(200, 16),
    World(100, 16, decay=0.5),
    World(512, 128),
    World(1000, 512, decay=1.0),
    World(1000, 64, shift=0.0, spread=0.0, name="samples from the real distribution"),
)


@dataclass(frozen=True)
class Coverage:
    """One metric's interval over many sample sets."""

    metric: str
    truth: float
    mean: float
    claimed: float | None
    """Mean standard error over the true spread; None where no error is claimed."""
    held: float | None
    """Share of the intervals that hold the truth."""


def coverage(
    world: World, trials: int, more: int, metrics: Sequence[str] = METRIC_NAMES, first: int = 0
) -> Iterator[Coverage]:
    """How often every metric's interval holds the truth.

    Args:
        world: what is drawn.
        trials: sample sets whose intervals are counted.
        more: further sample sets, which only give the truth.
        metrics: what to measure.
        first: seed of the first sample set; other seeds are other noise.
    """
    config = EvaluateConfig(metrics=tuple(metrics))
    counted = [measure(world, seed, config) for seed in range(first, first + trials)]
    quick = config.model_copy(update={"distance_subsets": 2})
    others = [measure(world, seed, quick) for seed in range(first + trials, first + trials + more)]
    for name in counted[0]:
        truth = statistics.fmean(scores[name].value for scores in others)
        yield _covered(name, world.distance if name == "fd_infinity" else truth, [scores[name] for scores in counted])


def measure(world: World, seed: int, config: EvaluateConfig) -> dict[str, Score]:
    """Every score of one sample set."""
    measured = world.draw(seed)
    return evaluate_samples(measured, config)


def _covered(metric: str, truth: float, scores: Sequence[Score]) -> Coverage:
    values = [score.value for score in scores]
    mean, spread = statistics.fmean(values), statistics.stdev(values)
    errors = [score.standard_error for score in scores if score.standard_error is not None]
    intervals = [(score.low, score.high) for score in scores if score.low is not None and score.high is not None]
    held = [low <= truth <= high for low, high in intervals]
    claimed = statistics.fmean(errors) / spread if errors and spread else None
    return Coverage(metric, truth, mean, claimed, statistics.fmean(held) if held else None)


def _population(centres: Tensor, mixing: Tensor) -> FeatureStatistics:
    """Of infinitely many, equally many of every class."""
    between = centres - centres.mean(dim=0)
    covariance = mixing @ mixing.T + between.T @ between / len(centres)
    return FeatureStatistics(centres.mean(dim=0), covariance, 1_000_000)


def _seen(features: Tensor, logits: Tensor, labels: Tensor) -> Seen:
    images = torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8)
    right = (logits.argmax(dim=1) == labels).float()
    return Seen(images, torch.zeros(len(labels), 1, 1, 1), labels, features, logits, right, "accuracy")


def _text(value: float | None, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)


def main() -> None:
    """Print one table line per world and metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200, help="sample sets whose intervals are counted")
    parser.add_argument("--more", type=int, default=400, help="further sample sets, for the truth")
    parser.add_argument("--worlds", type=int, nargs="*", default=range(len(WORLDS)), help="numbers of worlds")
    parser.add_argument("--metrics", nargs="*", default=METRIC_NAMES)
    parser.add_argument("--first", type=int, default=0, help="first seed: other seeds are other noise")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| images | width | classes | decay | metric | truth | mean | claimed | held | note |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    started = time.perf_counter()
    for world in (WORLDS[number] for number in asked.worlds):
        place = f"| {world.images} | {world.width} | {world.classes} | {world.decay:g} |"
        for line in coverage(world, asked.trials, asked.more, asked.metrics, asked.first):
            numbers = (
                f"{line.truth:.4g} | {line.mean:.4g} | {_text(line.claimed, '{:.2f}')} | {_text(line.held, '{:.1%}')}"
            )
            print(f"{place} {line.metric} | {numbers} | {world.name} |", flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s, one thread")


if __name__ == "__main__":
    main()
