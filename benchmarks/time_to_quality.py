"""How soon is ours as good as the authors' adapter after the authors' whole recipe? On the built-in teacher.

    OMP_NUM_THREADS=1 python -m benchmarks.time_to_quality --output /tmp/quality [--seeds 3] [--kind offset]
        [--their-steps 5000] [--our-steps 700] [--block 50]

Theirs is their form at their width (offset, H 256), AdamW with a peak rate of 1e-4, batch 64, 5000 steps (the paper,
arXiv 2503.07274, for DiT). Ours is the first method of the demo with the demo's training. Both train on the demo's
trajectories and take turns in one process: a block of ours, then theirs for as many seconds. The held-out error, the
mean square distance to the guided prediction on trajectories of another seed, over the base model's, is measured after
every block; the clocks stand still meanwhile. Seconds are processor time. Writes curves.json and curves.png.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from matplotlib.figure import Figure
from torch.nn.functional import mse_loss

from agd_core.basics.checkpoint import Checkpoint
from agd_core.data.dataset import TrainingBatches, latents_tensor, tensor_of
from agd_core.data.order import BatchOrder
from agd_core.data.records import INPUT, TARGET
from agd_core.methods.trainer import Training
from agd_core.models.ask import Ask
from agd_core.models.condition import Condition
from agd_core.models.config import BaseModelConfig
from agd_core.models.model import BaseModel
from benchmarks.authors_classes import AuthorsStudent, authors_optimizer, installed
from benchmarks.plan_against_full_recipe import square_error
from flows.presets import load_config
from flows.run import Run
from flows.stages.collect import collect
from flows.stages.trajectories import open_trajectories
from flows.terminal import Terminal
from flows.workplace import Workplace
from storage.trajectories.zarr_store import ZarrTrajectoryStore

PRESET, THEIR_WIDTH, THEIR_BATCH = "fashion-dit", 256, 64
HELD_OUT = ("collect.trajectories=60", "collect.seed=1000")
OURS, THEIRS = "ours", "theirs"


@dataclass
class Curve:
    """Held-out error of one side over its training seconds."""

    side: str
    seed: int
    steps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    spent: float = 0.0
    """Seconds of training so far."""

    def add(self, step: int, error: float) -> None:
        """One more point, here and now."""
        print(
            f"{self.side}, seed {self.seed}: step {step}, {self.spent:.0f} s, {error:.4f}", file=sys.stderr, flush=True
        )
        self.steps.append(step)
        self.seconds.append(self.spent)
        self.errors.append(error)

    def seconds_to(self, error: float) -> float | None:
        """Seconds to the first point that is as good; None: there is none."""
        return next((at for at, reached in zip(self.seconds, self.errors, strict=True) if reached <= error), None)


def their_steps(student: AuthorsStudent, store: ZarrTrajectoryStore, steps: int, seed: int) -> Iterator[int]:
    """Their training, one step per item."""
    optimizer, schedule = authors_optimizer(student.trained(), steps)
    cpu, plan = torch.device("cpu"), store.plan
    conditions = Condition.from_arrays(plan.conditions, cpu)
    with TrainingBatches(store, BatchOrder(plan.pairs, THEIR_BATCH, seed), steps) as batches:
        for step in range(steps):
            batch = batches.at(step)
            latents, times = latents_tensor(batch.latents, plan.dtype, cpu), tensor_of(batch.timesteps, cpu)
            ask = Ask.of_columns(conditions, batch.rows, batch.scalars, cpu)
            loss = mse_loss(student(latents[:, INPUT], times, ask), latents[:, TARGET:].flatten(1, 2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            yield step + 1


@dataclass
class Turns:
    """Progress of our training: after each block of ours theirs takes its turn."""

    ours: Curve
    theirs: Curve
    ours_error: Any
    theirs_error: Any
    their_training: Iterator[int]
    block: int
    begun: float = field(default_factory=time.process_time)

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """See `Progress`; it is called at the end of every step of ours."""
        if done % self.block and done < total:
            return
        self.ours.spent += time.process_time() - self.begun
        self.ours.add(done, self.ours_error())
        while self.theirs.spent < self.ours.spent and self.their_block():
            pass
        self.begun = time.process_time()

    def their_block(self) -> bool:
        """A block of theirs; whether there was one."""
        begun = time.process_time()
        done = list(islice(self.their_training, self.block))
        if done:
            self.theirs.spent += time.process_time() - begun
            self.theirs.add(done[-1], self.theirs_error())
        return bool(done)


def race(seed: int, trajectories: Any, held_out: ZarrTrajectoryStore, given: Any) -> tuple[Curve, Curve]:
    """Both trainings of one seed, each with a network of its own."""
    mine, other = (BaseModelConfig().build(torch.device("cpu")) for _ in range(2))
    settings = (f"train.steps={given.our_steps}", f"train.seed={seed}")
    config = load_config(PRESET, settings)
    trained, store = config.methods[0].build(mine.backbone, seed), open_trajectories(trajectories)
    bare = square_error(mine, held_out, mine.device)

    def error_of(denoiser: Any) -> float:
        return square_error(denoiser, held_out, mine.device) / bare

    def error_of_ours() -> float:
        with trained.installed(mine) as student:
            return error_of(student)

    with installed(other.backbone, given.kind, THEIR_WIDTH, seed) as student:
        asked = SimpleNamespace(predict=lambda *call: student(*call)[:, : mine.prediction_channels])
        turns = Turns(
            Curve(OURS, seed),
            Curve(THEIRS, seed),
            error_of_ours,
            lambda: error_of(asked),
            their_steps(student, open_trajectories(trajectories), given.their_steps, seed),
            given.block,
        )
        checkpoint = Checkpoint(given.output / f"ours-{seed}-{time.time_ns()}.safetensors", "quality")
        Training(mine, trained, store, config.train).run(checkpoint, turns)
        while turns.their_block():
            pass
    return turns.ours, turns.theirs


def print_row(ours: Curve, theirs: Curve) -> float | None:
    """One seed; the ratio of the seconds."""
    goal = theirs.errors[-1]
    reached = ours.seconds_to(goal)
    ratio = None if reached is None else reached / theirs.spent
    said = "never" if ratio is None else f"{reached:.1f} | {ratio:.3f}"
    print(f"| {ours.seed} | {theirs.steps[-1]} | {theirs.spent:.1f} | {goal:.4f} | {ours.errors[-1]:.4f} | {said} |")
    return ratio


def draw(curves: list[Curve], path: Path) -> None:
    """All curves in one picture."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for curve in curves:
        colour, label = ("C0" if curve.side == OURS else "C1"), curve.side if not curve.seed else None
        axes.plot(curve.seconds, curve.errors, color=colour, label=label, alpha=0.8)
    axes.set(xlabel="seconds of training (processor time)", ylabel="held-out error over the base model's")
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kind", choices=("offset", "cross-attention"), default="offset", help="theirs")
    parser.add_argument("--their-steps", type=int, default=5000)
    parser.add_argument("--our-steps", type=int, default=700)
    parser.add_argument("--block", type=int, default=50, help="steps between two looks at the held-out error")
    given = parser.parse_args()
    with Terminal() as terminal:
        place = Workplace(given.output, announce=terminal.announce, progress=terminal.progress)
        model: BaseModel = Run(load_config(PRESET), place).check().model
        trajectories = collect(Run(load_config(PRESET), place, model))
        held_out = open_trajectories(collect(Run(load_config(PRESET, HELD_OUT), place, model)))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, theirs: {given.kind}, H {THEIR_WIDTH}")
    print("| seed | their steps | their seconds | their error | our last error | our seconds to theirs | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    curves: list[Curve] = []
    ratios: list[float | None] = []
    for seed in range(given.seeds):
        curves += race(seed, trajectories, held_out, given)
        ratios.append(print_row(*curves[-2:]))
        (given.output / "curves.json").write_text(json.dumps([asdict(curve) for curve in curves]), encoding="utf-8")
    draw(curves, given.output / "curves.png")
    if reached := [ratio for ratio in ratios if ratio is not None]:
        print(f"median ratio {statistics.median(reached):.3f} of {len(reached)} seeds, {len(ratios)} run")


if __name__ == "__main__":
    main()
