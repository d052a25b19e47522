"""How much of an evaluation is measuring: seconds of features and metrics against seconds of sampling.

    OMP_NUM_THREADS=2 python benchmarks/evaluation_share.py [fashion-dit] [sample.images=1000 ...]

Runs a preset's comparison in a fresh folder, with an adapter that is trained for a few steps only, and adds up the
time that each stage takes. The bar: features and metrics take at most 15 % of the sampling.
"""

import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.presets import load_config
from flows.run import Run
from flows.stages.distill import distill
from flows.workplace import Workplace
from storage.artefacts import Artefact

_QUICK = ("collect.trajectories=64", "collect.steps=10", "collect.kept_steps=null", "train.steps=20")
_MEASURING = ("features", "evaluation", "reference")


@dataclass(frozen=True)
class Timed(Workplace):
    """A workplace that adds up the seconds of every stage."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def produce(self, stage: str, *arguments: Any, **named: Any) -> Artefact:
        """As in every workplace, timed."""
        started = time.perf_counter()
        try:
            return super().produce(stage, *arguments, **named)
        finally:
            self.seconds[stage] += time.perf_counter() - started


def main() -> None:
    """Print the seconds of every stage and the share."""
    preset, *overrides = sys.argv[1:] or ["fashion-dit"]
    with tempfile.TemporaryDirectory() as folder:
        place = Timed(Path(folder), announce=print)
        distill(Run(load_config(preset, [*_QUICK, *overrides]), place), "benchmark")
    for stage, seconds in place.seconds.items():
        print(f"{stage:>18}: {seconds:7.1f} s")
    measuring = sum(place.seconds[stage] for stage in _MEASURING)
    print(f"features and metrics: {measuring:.1f} s, {100 * measuring / place.seconds['samples']:.1f} % of sampling")


if __name__ == "__main__":
    main()
