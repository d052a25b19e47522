"""Runs steps of methods side by side on equal inputs: their network evaluations, FLOPs, time and memory."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from agd_core.basics.errors import InputError
from agd_core.basics.progress import ShouldStop, Stopped, never
from agd_core.basics.seeding import generator
from agd_core.data.subjects import Subjects
from agd_core.memory.peak_memory import peak_memory
from agd_core.models.ask import Ask
from agd_core.models.denoiser import Answer, Denoiser, Latents

OpenDenoiser = Callable[[], AbstractContextManager[Denoiser]]
"""Opens a method for one call, so that no adapter hangs on the network while another method is measured."""
Clock = Callable[[], float]

_Inputs = tuple[Latents, Ask]


@dataclass(frozen=True)
class Counted:
    """What one step of a method takes for one image, the mean over the sampler's steps."""

    evaluations: float
    """Rows through the network."""
    flops: float
    timed: Mapping[int, float]
    """The steps that stand for all: their indices, with the part of all steps that each stands for.

    Before one that goes on with what an earlier and dearer step has made, that one stands with no part.
    """


@dataclass(frozen=True)
class Bench:
    """Measures methods side by side, on equal inputs."""

    methods: Mapping[str, OpenDenoiser]
    """By name; the first is the bare base model, against which overheads are measured."""
    subjects: Subjects
    """Of the base model that all of them run on."""
    guidance_scale: float
    """Of every call."""
    timesteps: tuple[float, ...]
    """The sampler's."""
    is_varying: bool = False
    """Whether a method makes more network evaluations at some timesteps than at others; if not, the middle one stands
    for all."""
    should_stop: ShouldStop = never
    """Asked before every call."""
    clock: Clock = time.perf_counter
    """In seconds."""

    @property
    def device(self) -> torch.device:
        """The base model's."""
        return self.subjects.base_model.device

    def inputs(self, batch: int) -> _Inputs:
        """Noise without a class or prompt: rows that all ask for the same, whose preparation is made once."""
        noise = torch.randn((batch, *self.subjects.base_model.latent_shape), generator=generator("cost", batch))
        condition = self.subjects.null(batch)
        scale = torch.full((batch,), self.guidance_scale, device=self.device)
        return noise.to(self.device), Ask(condition, condition, scale)

    @torch.no_grad()
    def count(self, name: str) -> Counted:
        """Network evaluations and floating-point operations, by running steps for one image.

        Attention runs in its plain form, which PyTorch counts on every device.
        """
        (latents, ask), steps = self.inputs(1), len(self.timesteps)
        chosen = range(steps) if self.is_varying else [steps // 2]
        evaluations: list[int] = []
        flops: list[int] = []
        try:
            with self.methods[name]() as denoiser, sdpa_kernel(SDPBackend.MATH):
                with FlopCounterMode(display=False) as counter:
                    for answer in self._answers(denoiser, ask, chosen):
                        before = denoiser.network_evaluations, counter.get_total_flops()
                        answer(latents)
                        evaluations.append(denoiser.network_evaluations - before[0])
                        flops.append(counter.get_total_flops() - before[1])
                preparation = (counter.get_total_flops() - sum(flops)) / steps
        except torch.OutOfMemoryError as error:
            raise self.too_small(name) from error
        timed, of_all = _representatives(chosen, list(zip(evaluations, flops, strict=True))), 1 / len(chosen)
        return Counted(sum(evaluations) * of_all, sum(flops) * of_all + preparation, timed)

    @torch.no_grad()
    def seconds(self, name: str, timed: Mapping[int, float], inputs: _Inputs) -> float | None:
        """Wall time of a step, the preparation's share included; None where memory does not suffice.

        Args:
            name: of the method.
            timed: see `Counted`.
            inputs: of the call.
        """
        if self.should_stop():
            raise Stopped("stopped while measuring the cost; run the same command again")
        latents, ask = inputs
        try:
            with self.methods[name]() as denoiser:
                begun, parts = self._now(), []
                for answer in self._answers(denoiser, ask, timed):
                    started = self._now()
                    answer(latents)
                    parts.append(self._now() - started)
                preparation = self._now() - begun - math.fsum(parts)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return None
        step = math.fsum(part * weight for part, weight in zip(parts, timed.values(), strict=True))
        return step + preparation / len(self.timesteps)

    @torch.no_grad()
    def memory(self, name: str, timed: Mapping[int, float], batch: int) -> tuple[int, str]:
        """(bytes above weights and inputs, how they were measured) of the largest step, with what is prepared."""
        latents, ask = self.inputs(batch)
        with self.methods[name]() as denoiser:

            def run() -> None:
                for answer in self._answers(denoiser, ask, timed):
                    answer(latents)

            return peak_memory(run, self.device)

    def _answers(self, denoiser: Denoiser, ask: Ask, chosen: Collection[int]) -> Iterator[Answer]:
        """These of the sampler's steps; all of them are prepared."""
        for index, answer in enumerate(denoiser.steps(torch.tensor(self.timesteps, device=self.device), ask)):
            if index in chosen:
                yield answer

    def _now(self) -> float:
        """When all that was asked for is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.clock()

    def too_small(self, name: str) -> InputError:
        """What is said where not even one image fits."""
        return InputError(f"cost of {name}: {self.device} has too little memory for one image")


def _representatives(indices: Sequence[int], taken: Sequence[tuple[int, int]]) -> dict[int, float]:
    """Of steps of equally many evaluations and operations the middle one, with their part of all, see `Counted.timed`;
    in their order.
    """
    alike: dict[tuple[int, int], list[int]] = {}
    for index, one in zip(indices, taken, strict=True):
        alike.setdefault(one, []).append(index)
    middles = {group[len(group) // 2]: len(group) / len(indices) for group in alike.values()}
    evaluations = dict(zip(indices, (evaluations for evaluations, _ in taken), strict=True))
    dearer = (
        [before for before in indices if before < index and evaluations[before] > evaluations[index]]
        for index in middles
    )
    leading = {before[-1]: 0.0 for before in dearer if before}
    return dict(sorted((leading | middles).items()))
