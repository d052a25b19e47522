"""How the states come about at which the teacher is asked: along guided sampling, or by noising images.

AGD trains on the states that guided sampling visits (arXiv 2503.07274, Algorithm 1). Guided distillation of whole
networks trains on noised images (arXiv 2210.03142, section 3), as do Plug-and-Play distillation and DICE. Here both
give the same records: what the network is handed at a sampler's timestep, and the teacher's guided prediction there.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agd_core.basics.permutation import Permutation
from agd_core.basics.seeding import derive_seed, generator, stacked_noise
from agd_core.data.recorder import Recorder
from agd_core.data.records import PlannedTrajectory
from agd_core.models.ask import Ask
from agd_core.models.denoiser import Denoiser, Latents
from agd_core.models.denoising import Observer, Step, denoise
from agd_core.models.schedulers import noised_input


@dataclass(frozen=True)
class Batch:
    """Trajectories that are collected together."""

    trajectories: Sequence[PlannedTrajectory]
    ask: Ask
    """One per trajectory."""
    latent_shape: tuple[int, ...]
    new_scheduler: Callable[[], Any]
    """Gives a diffusers scheduler whose timesteps are set; it may keep state, so each walk takes a fresh one."""

    @property
    def seeds(self) -> list[int]:
        """Of every trajectory."""
        return [trajectory.seed for trajectory in self.trajectories]


class States(ABC):
    """One way in which states come about, and the guided teacher that is asked at them."""

    @property
    @abstractmethod
    def text(self) -> str:
        """What they are and cost, in words."""

    def prepare(self) -> None:  # noqa: B027 most need nothing
        """Have ready what every unit needs; called before anybody holds the device."""

    @abstractmethod
    def record(self, batch: Batch, recorder: Recorder) -> None:
        """Ask the teacher at the batch's states, and hand them with its answers to the recorder.

        Which rows go through the network together depends on the batch alone and not on what is wanted of it.

        Raises:
            NumericError: a value is not finite, or does not fit the stored type.
            Stopped: between two steps, when asked to.
        """

    @abstractmethod
    def evaluations(self, per_step: Sequence[int], trajectories: int, kept: Iterable[Sequence[int]]) -> int:
        """How many network evaluations a collection takes.

        Args:
            per_step: of the teacher for one row, at each of the sampler's steps.
            trajectories: how many.
            kept: the steps that are kept of each.
        """


@dataclass(frozen=True)
class GuidedStates(States):
    """Those that guided sampling visits: the sampler advances with the guided prediction."""

    teacher: Denoiser

    @property
    def text(self) -> str:
        return "those that guided sampling visits"

    def record(self, batch: Batch, recorder: Recorder) -> None:
        observer = Observer(recorder.keep, recorder.dtype)
        denoise(self.teacher, batch.new_scheduler(), batch.ask, batch.seeds, batch.latent_shape, observer)

    def evaluations(self, per_step: Sequence[int], trajectories: int, kept: Iterable[Sequence[int]]) -> int:
        return trajectories * sum(per_step)


class CleanLatents(ABC):
    """Where the images come from that are noised."""

    text: str
    """What they are and cost, in words."""

    def prepare(self) -> None:  # noqa: B027 as there
        """As `States.prepare`."""

    @abstractmethod
    def latents(self, batch: Batch, poll: Callable[[], None]) -> Latents:
        """x_0 of each trajectory of a batch, float32 on the ask's device.

        Args:
            batch: whose.
            poll: called now and then; what it raises ends the work.
        """

    @abstractmethod
    def evaluations(self, per_step: Sequence[int], trajectories: int) -> int:
        """How many network evaluations so many images cost; arguments as of `States.evaluations`."""


@dataclass(frozen=True)
class TeacherMade(CleanLatents):
    """What guided sampling ends with, for the same condition, guidance scale and seed as the trajectory has."""

    teacher: Denoiser
    text = "images that the teacher makes, each of which costs a whole guided trajectory"

    def latents(self, batch: Batch, poll: Callable[[], None]) -> Latents:
        observer = Observer(lambda step: poll())
        return denoise(self.teacher, batch.new_scheduler(), batch.ask, batch.seeds, batch.latent_shape, observer)

    def evaluations(self, per_step: Sequence[int], trajectories: int) -> int:
        return trajectories * sum(per_step)


@dataclass(frozen=True)
class ImageChoice:
    """Which image each trajectory is made of: each image of a subject once before any comes again, in seeded order."""

    by_subject: tuple[np.ndarray, ...]
    """By subject the numbers of the images that show it, int64, at least one."""
    seed: int

    def image(self, trajectory: int) -> int:
        """The number of a trajectory's image; it does not depend on how many trajectories there are."""
        turn, subject = divmod(trajectory, len(self.by_subject))
        images = self.by_subject[subject]
        epoch, position = divmod(turn, len(images))
        order = Permutation(len(images), derive_seed(self.seed, "images", subject, epoch))
        return int(images[order.forward(np.array([position]))[0]])


@dataclass(frozen=True)
class EncodedImages(CleanLatents):
    """Real images as the VAE's encoder gives them."""

    choice: ImageChoice
    encode: Callable[[], Mapping[int, Tensor]]
    """Gives the latents, `latent_shape` each, by the image's number; called once."""
    text = "real images, which cost no network evaluations but the VAE's encoder"

    @cached_property
    def _encoded(self) -> Mapping[int, Tensor]:
        return self.encode()

    def prepare(self) -> None:
        len(self._encoded)

    def latents(self, batch: Batch, poll: Callable[[], None]) -> Latents:
        numbers = [self.choice.image(trajectory.index) for trajectory in batch.trajectories]
        return torch.stack([self._encoded[number] for number in numbers]).to(batch.ask.guidance_scale.device)

    def evaluations(self, per_step: Sequence[int], trajectories: int) -> int:
        return 0


@dataclass(frozen=True)
class NoisedStates(States):
    """Draws of q(x_t | x_0) at the kept timesteps of the sampler, each with noise of its own."""

    teacher: Denoiser
    clean: CleanLatents

    @property
    def text(self) -> str:
        return f"noised; {self.clean.text}"

    def prepare(self) -> None:
        self.clean.prepare()

    @torch.no_grad()
    def record(self, batch: Batch, recorder: Recorder) -> None:
        clean, scheduler = self.clean.latents(batch, recorder.poll), batch.new_scheduler()
        for index in sorted({step for trajectory in batch.trajectories for step in trajectory.steps}):
            rows = [row for row, trajectory in enumerate(batch.trajectories) if index in trajectory.steps]
            latents = Observer(lambda step: None, recorder.dtype).rounded(
                noised_input(scheduler, index, clean[rows], _noise(batch, rows, index).to(clean.device))
            )
            timestep = scheduler.timesteps[index].to(clean.device, torch.float32)
            asked = batch.ask[torch.tensor(rows)]
            prediction = self.teacher.predict(latents, timestep.expand(len(rows)), asked)
            recorder.keep(Step(index, float(timestep), latents, prediction), rows)

    def evaluations(self, per_step: Sequence[int], trajectories: int, kept: Iterable[Sequence[int]]) -> int:
        asked = sum(per_step[step] for steps in kept for step in steps)
        return asked + self.clean.evaluations(per_step, trajectories)


def _noise(batch: Batch, rows: Sequence[int], index: int) -> Tensor:
    """Noise of some rows at one step: a function of the trajectory's seed and the step alone."""
    generators = [generator(batch.trajectories[row].seed, "noised", index) for row in rows]
    return stacked_noise(generators, batch.latent_shape)
