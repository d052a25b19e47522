"""The work that a run repeats, made as the run makes it, on inputs that cost nothing to have.

Every kind has a unit, such as a network evaluation or an image, and says how many of them one round makes.
"""

import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from agd_core.basics.checkpoint import Checkpoint
from agd_core.evaluation.prediction_error import UNGUIDED
from agd_core.evaluation.sampling import to_bytes
from agd_core.methods import MethodConfig
from agd_core.methods.trainer import Training
from agd_core.models.ask import Ask
from agd_core.models.denoiser import Denoiser
from agd_core.models.denoising import Observer, Step, denoise
from agd_core.models.schedulers import SchedulerName, build_scheduler
from flows.run import Run
from flows.stages.random_pairs import store_of_random_pairs
from flows.stages.stopwatch import Stopwatch, Tick

_ENDLESS = 1_000_000


@dataclass(frozen=True)
class Repeatable(ABC):
    """One kind of work; equal ones take equal times."""

    together: int
    """Units of one round."""

    @property
    @abstractmethod
    def text(self) -> str:
        """One round in words."""

    @abstractmethod
    def repeat(self, run: Run, tick: Tick) -> None:
        """Make round after round, without an end."""

    def seconds_per_unit(self, run: Run, watch: Stopwatch, budget: float) -> float:
        """How long a unit takes on the run's device, see `Stopwatch.seconds_per_unit`."""
        return watch.seconds_per_unit(lambda tick: self.repeat(run, tick), budget)


@dataclass(frozen=True)
class PromptEncoding(Repeatable):
    """Text encoders; a unit is a prompt."""

    @property
    def text(self) -> str:
        return f"{self.together} prompts"

    def repeat(self, run: Run, tick: Tick) -> None:
        prompts = (*run.collected.prompts, *run.sampled.prompts)[: self.together]
        while True:
            run.model.prompt_condition(prompts).to(torch.device("cpu"))
            tick(len(prompts))


@dataclass(frozen=True)
class SamplerStep(Repeatable):
    """A step of a sampler; a unit is a network evaluation, so a step that needs fewer is so much faster."""

    denoiser: str
    """The label of a rule or a method, or "no guidance"."""
    rows: int
    """Images, or trajectories."""
    scheduler: SchedulerName
    steps: int
    guidance_scale: float

    @property
    def text(self) -> str:
        return f"{self.denoiser}, a step of {self.rows} rows"

    def repeat(self, run: Run, tick: Tick) -> None:
        model, null = run.model, run.model.null_condition(self.rows, run.config.collect.negative_prompt)
        ask = Ask(null, null, torch.full((self.rows,), self.guidance_scale, device=model.device))
        with _opened(run, self.denoiser) as denoiser:
            observer = Observer(_Evaluations(denoiser, tick).see)
            while True:
                scheduler = build_scheduler(self.scheduler, model.scheduler_config, self.steps)
                denoise(denoiser, scheduler, ask, range(self.rows), model.latent_shape, observer)


@dataclass(frozen=True)
class TrainingStep(Repeatable):
    """A training step of a throw-away adapter on random pairs, from a store; a unit is a pair."""

    label: str
    """The method's."""

    @property
    def text(self) -> str:
        return f"training step of {self.together} pairs"

    def repeat(self, run: Run, tick: Tick) -> None:
        endless = {"steps": _ENDLESS, "checkpoint_seconds": math.inf}
        method = _method(run, self.label)
        config = run.config.training_of(method).model_copy(update=endless)
        trained = method.build(run.model.backbone, config.seed)
        with tempfile.TemporaryDirectory() as folder:
            reader = store_of_random_pairs(run, self.together, Path(folder))
            training = Training(run.model, trained, reader, config)
            checkpoint = Checkpoint(Path(folder) / "checkpoint.safetensors", "throw-away")
            training.run(checkpoint, lambda done, total, note="": tick(self.together))


@dataclass(frozen=True)
class Decoding(Repeatable):
    """The VAE's decoder; a unit is an image."""

    @property
    def text(self) -> str:
        return f"decoding {self.together} images"

    def repeat(self, run: Run, tick: Tick) -> None:
        latents = torch.randn(self.together, *run.model.latent_shape).to(run.model.device)
        while True:
            to_bytes(run.model.decode(latents)).cpu()
            tick(self.together)


@dataclass(frozen=True)
class ImageEncoding(Repeatable):
    """The VAE's encoder; a unit is an image."""

    @property
    def text(self) -> str:
        return "encoding an image"

    def repeat(self, run: Run, tick: Tick) -> None:
        image = torch.zeros(1, run.model.autoencoder.image_channels, run.model.pixels, run.model.pixels)
        while True:
            run.model.encode(image).cpu()
            tick(1)


@contextmanager
def _opened(run: Run, name: str) -> Iterator[Denoiser]:
    """The denoiser of this name; a method's student is an untrained one."""
    if name == UNGUIDED or name in run.rules:
        yield run.model if name == UNGUIDED else run.guided(run.rules[name])
        return
    method = _method(run, name)
    trained = method.build(run.model.backbone, run.config.training_of(method).seed).to(run.model.device)
    trained.requires_grad_(False)  # as one that is read from its file
    with trained.installed(run.model) as student:
        yield student


def _method(run: Run, label: str) -> MethodConfig:
    return next(method for method in run.config.methods if method.label == label)


class _Evaluations:
    """Ticks after every step of a sampler, with the network evaluations since the last."""

    def __init__(self, denoiser: Denoiser, tick: Tick) -> None:
        self._denoiser, self._tick, self._before = denoiser, tick, denoiser.network_evaluations

    def see(self, step: Step) -> None:
        before, self._before = self._before, self._denoiser.network_evaluations
        self._tick(self._before - before)
