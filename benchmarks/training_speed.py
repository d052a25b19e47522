"""A training step of ours against one with the authors' classes: alternating in one process, medians.

    OMP_NUM_THREADS=1 python -m benchmarks.training_speed [--kind offset] [--hidden 256] [--batch 64] [--steps 40]
        [--compile]

Both train the same form at the same width on the built-in teacher, float32 (tests/test_authors_classes.py proves that
with equal weights they answer alike). Ours is `Training.run` as the stage calls it, its reading and progress included;
theirs is their step as in their train.py: AdamW, schedule, `loss.item()`, on a batch that is at hand. Times are wall
time and the process's CPU time, which a busy machine disturbs less; the ratio is theirs / ours within a turn.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agd_core.basics.checkpoint import Checkpoint
from agd_core.data.records import CollectionPlan, PlannedTrajectory, StepBatch, step_batch
from agd_core.methods import CrossAttentionConfig, OffsetConfig
from agd_core.methods.trainer import TrainConfig, Training
from agd_core.models.ask import Ask
from agd_core.models.condition import Condition
from agd_core.models.config import BaseModelConfig
from agd_core.models.model import BaseModel
from benchmarks.authors_classes import AuthorsStudent, authors_optimizer, installed

OURS = {"cross-attention": CrossAttentionConfig, "offset": OffsetConfig}
WARM_UP = 5
"""Turns that do not count."""

Clocks = tuple[float, float]


@dataclass(frozen=True)
class MemoryReader:
    """Pairs of noise: 64 trajectories of 25 steps, in memory."""

    plan: CollectionPlan
    latents: np.ndarray

    @classmethod
    def of(cls, model: BaseModel) -> "MemoryReader":
        """Pairs in the shape of this model's latents, of all its classes."""
        steps, classes = tuple(range(25)), len(model.class_names)
        asked = [({"condition": i % classes, "null": classes}, {"guidance_scale": 1 + i / 16}) for i in range(64)]
        rows = tuple(PlannedTrajectory(i, i, *each, steps) for i, each in enumerate(asked))
        labels = np.array([*range(classes), model.backbone.classes])
        times = tuple(float(999 - 40 * step) for step in steps)
        plan = CollectionPlan(rows, times, {"class_labels": labels}, model.latent_shape, "float16", 64, 64, {})
        drawn = np.random.default_rng(0).normal(size=(plan.pairs, *plan.pair_shape))
        return cls(plan, drawn.astype(np.float16))

    def read(self, pairs: np.ndarray) -> StepBatch:
        """See `TrajectoryReader`."""
        return step_batch(self.plan, pairs, self.latents[pairs])


@dataclass
class Theirs:
    """Their training, one step at a time."""

    student: AuthorsStudent
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    latents: Tensor
    timestep: Tensor
    ask: Ask
    target: Tensor

    @classmethod
    def of(cls, student: AuthorsStudent, reader: MemoryReader, batch: int, steps: int) -> "Theirs":
        """On the first pairs of this reader, at hand as their loader gives them."""
        read, cpu = reader.read(np.arange(batch)), torch.device("cpu")
        ask = Ask.of_columns(Condition.from_arrays(reader.plan.conditions, cpu), read.rows, read.scalars, cpu)
        latents = torch.from_numpy(read.latents).float()
        times = torch.from_numpy(read.timesteps)
        return cls(student, *authors_optimizer(student.trained(), steps), latents[:, 0], times, ask, latents[:, 1])

    def step(self) -> float:
        """Forward, backward, AdamW, schedule; the loss."""
        predicted = self.student(self.latents, self.timestep, self.ask)
        loss = torch.nn.functional.mse_loss(predicted, self.target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return loss.item()


def clocks() -> Clocks:
    """Wall time and this process's CPU time."""
    return time.perf_counter(), time.process_time()


@dataclass
class Turns:
    """Progress of our training: it takes a step of theirs after each of ours, and the time of both."""

    theirs: Callable[[], Any]
    ours_seconds: list[Clocks] = field(default_factory=list)
    theirs_seconds: list[Clocks] = field(default_factory=list)
    begun: Clocks = field(default_factory=clocks)

    def __call__(self, done: int, total: int, note: str) -> None:
        """See `Progress`; it is called at the end of every step of ours."""
        self.ours_seconds.append(_since(self.begun))
        begun = clocks()
        self.theirs()
        self.theirs_seconds.append(_since(begun))
        self.begun = clocks()


def _since(begun: Clocks) -> Clocks:
    wall, cpu = clocks()
    return wall - begun[0], cpu - begun[1]


def alternate(kind: str, hidden: int, batch: int, steps: int, **settings: Any) -> Turns:
    """Train both, turn by turn, each with a network of its own.

    Args:
        kind: one of `OURS`.
        hidden: the adapters' width H.
        batch: pairs per step.
        steps: turns that count.
        settings: of our training, see `TrainConfig`.
    """
    ours, other = (BaseModelConfig().build(torch.device("cpu")) for _ in range(2))
    reader, config = MemoryReader.of(ours), TrainConfig(steps=WARM_UP + steps, batch_size=batch, **settings)
    adapter = OURS[kind](hidden_width=hidden).build(ours.backbone)
    with installed(other.backbone, kind, hidden) as student, tempfile.TemporaryDirectory() as folder:
        turns = Turns(Theirs.of(student, reader, batch, config.steps).step)
        Training(ours, adapter, reader, config).run(Checkpoint(Path(folder) / "checkpoint", "speed"), turns)
    return turns


def table_row(turns: Turns, clock: int) -> str:
    """Medians in milliseconds and the median ratio with its quartiles, by one of the clocks."""
    theirs, ours = ([each[clock] for each in side[WARM_UP:]] for side in (turns.theirs_seconds, turns.ours_seconds))
    ratios = [one / other for one, other in zip(theirs, ours, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    times = " | ".join(f"{1000 * statistics.median(side):.1f}" for side in (theirs, ours))
    return f"{times} | {middle:.3f} ({low:.3f} to {high:.3f})"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=OURS, nargs="+", default=list(OURS))
    parser.add_argument("--hidden", type=int, nargs="+", default=[24, 256])
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--compile", action="store_true", help="ours")
    given = parser.parse_args(arguments)
    how = f"{given.steps} turns, ours {'compiled' if given.compile else 'eager'}"
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {how}")
    print("| kind | H | batch | clock | theirs, ms | ours, ms | theirs / ours (quartiles) |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for kind, hidden, batch in [(k, h, b) for k in given.kind for h in given.hidden for b in given.batch]:
        turns = alternate(kind, hidden, batch, given.steps, compile=given.compile)
        for clock, name in enumerate(("wall", "CPU")):
            print(f"| {kind} | {hidden} | {batch} | {name} | {table_row(turns, clock)} |", flush=True)


if __name__ == "__main__":
    main()
