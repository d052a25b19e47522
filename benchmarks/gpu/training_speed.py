"""Job: our training step against the authors', the same network, adapter, batch and pairs in one process.

Ours is the trainer's own loop, as a run has it; theirs runs between its steps, in blocks that take turns, from a batch
that lies on the device already. Ratios are theirs / ours of neighbouring blocks.
"""

import statistics
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from torch import nn

from agd_core.data.dataset import latents_tensor, tensor_of
from agd_core.data.records import INPUT, TARGET
from agd_core.methods import MethodConfig, Pairs
from agd_core.methods.compiled import COMPILER, compiled
from agd_core.models.ask import Ask
from agd_core.models.condition import Condition
from benchmarks.authors_classes import AuthorsStudent, authors_optimizer, installed
from benchmarks.gpu.compiling import TOY_COMPILER
from benchmarks.gpu.networks import RandomModel, free, sized_of
from benchmarks.gpu.place import Place
from benchmarks.gpu.presets import first_method, preset_names
from benchmarks.gpu.stored_pairs import RandomPairs
from benchmarks.gpu.timing import Laps, divided, quartiles
from benchmarks.gpu.trainings import tensor_cores, trained, training_of
from flows.config import PipelineConfig
from flows.presets import load_config

TABLE = "seconds per training step"
_OURS = {
    "bfloat16, compiled": (torch.bfloat16, True),
    "bfloat16": (torch.bfloat16, False),
    "float32 (TF32)": (torch.float32, False),
}
"""Precisions of the base, and whether it is compiled; theirs is always float32 (TF32), eager as their code is."""
_FULL, _TOY = (5, 4, 6), (1, 1, 2)
"""Steps before the first block, steps of a block, blocks of each side."""


Seconds = tuple[list[float], list[float]]
"""Of ours and of theirs."""


def run(place: Place) -> None:
    """Both families of classes, without activation checkpointing on either side."""
    with tensor_cores():
        for name in preset_names(place, "dit-xl-2-256", "sd21", "sdxl"):
            config = load_config(name, ["train.activation_checkpointing=false"])
            for ours_in, (dtype, is_compiled) in _OURS.items():
                with place.part(model=name, ours_in=ours_in):
                    place.row(TABLE, _row(name, config, ours_in, _Turns(place, config, dtype, is_compiled).seconds()))
                free(torch.device(place.device_name))


def _row(name: str, config: PipelineConfig, ours_in: str, seconds: Seconds) -> dict[str, object]:
    ours, theirs = seconds
    return {
        "model": name,
        "method": first_method(config).kind,
        "batch": config.train.batch_size,
        "ours in": ours_in,
        "ours, s": statistics.median(ours),
        "theirs, s": statistics.median(theirs),
        "theirs / ours (quartiles)": quartiles(divided(theirs, ours)),
    }


class _Turns:
    """A block of our steps, a block of theirs, and so on."""

    def __init__(self, place: Place, config: PipelineConfig, dtype: torch.dtype, is_compiled: bool) -> None:
        self.compiler = (TOY_COMPILER if place.toy else COMPILER) if is_compiled else None
        self.warm_up, self.block, self.rounds = _TOY if place.toy else _FULL
        self.device, self.method = torch.device(place.device_name), first_method(config)
        self.train = config.train.model_copy(update={"steps": self.warm_up + self.block * self.rounds})
        self.sized, self.plain = (sized_of(config, self.device, each) for each in (dtype, torch.float32))
        self.reader = RandomPairs(self.sized, trajectories=64, steps=16)
        self.laps = Laps(self.device)

    def seconds(self) -> Seconds:
        """Of a step in every block: (ours, theirs)."""
        ours = training_of(self.sized, self.method, self.train, self.reader, self.device)
        backbone = RandomModel(self.plain, self.device).backbone
        speed = compiled(ours.model.backbone, self.compiler) if self.compiler else nullcontext()
        with speed, installed(backbone, *_as_authors(self.method)) as student:
            batch = batch_of(self.reader, self.train.batch_size, self.device)
            trained(ours, partial(self._after, Theirs(student, self.train.steps, batch).step))
        times = [seconds / self.block for seconds in self.laps.seconds()]
        return times[1::2], times[::2]

    def _after(self, their_step: Callable[[], None], done: int) -> None:
        """Where a block of ours has ended, theirs comes; both have warmed up before the first mark."""
        if done < self.warm_up or (done - self.warm_up) % self.block:
            return
        if done == self.warm_up:
            their_step()
        self.laps.mark()
        if done < self.train.steps:
            for _ in range(self.block):
                their_step()
            self.laps.mark()


class Theirs:
    """The authors' training on one batch, step by step."""

    def __init__(self, student: AuthorsStudent, steps: int, batch: Pairs) -> None:
        self.student, self.batch = student, batch
        self.optimizer, self.schedule = authors_optimizer(student.trained(), steps)

    def step(self) -> None:
        """One step; their loop reads the loss after each."""
        batch = self.batch
        predicted = self.student(batch.latents, batch.timestep, batch.ask)
        loss = nn.functional.mse_loss(predicted[:, : batch.guided.shape[1]], batch.guided)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        float(loss.detach())


def _as_authors(method: MethodConfig) -> tuple[str, int]:
    """(kind, width H) of the authors' adapter of the same form."""
    return method.kind.removeprefix("agd-"), method.hidden_width


def batch_of(reader: RandomPairs, rows: int, device: torch.device) -> Pairs:
    """The first pairs, on the device."""
    batch, plan = reader.read(np.arange(rows)), reader.plan
    conditions = Condition.from_arrays(plan.conditions, torch.device("cpu"))
    ask = Ask.of_columns(conditions, batch.rows, batch.scalars, device)
    latents = latents_tensor(batch.latents, plan.dtype, device)
    guided = latents[:, TARGET:].flatten(1, 2)
    return Pairs(latents[:, INPUT], tensor_of(batch.timesteps, device), ask, guided)
