"""The one denoising loop: sampling and trajectory collection both run it.

Each row has its own generator, so a row's noise does not depend on the rows beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agd_core.basics.seeding import generator, stacked_noise
from agd_core.models.ask import Ask
from agd_core.models.denoiser import Denoiser, Latents, Prediction
from agd_core.models.schedulers import initial_noise_scale, network_input, scheduler_output, step_arguments


@dataclass(frozen=True)
class Step:
    """One network call of the loop, handed to the observer."""

    index: int
    timestep: float
    """The value handed to the network."""
    latents: Latents
    """What the network received."""
    prediction: Prediction
    """What the denoiser answered, a learned variance included; the scheduler advanced with what it takes of it."""


@dataclass(frozen=True)
class Observer:
    """Who looks on."""

    see: Callable[[Step], None]
    """Called after every network call."""
    stores: torch.dtype | None = None
    """The network's input is rounded to this type first, so that what is stored in it is exactly what was evaluated."""

    def rounded(self, latents: Tensor) -> Tensor:
        """The network's input, float32."""
        return latents if self.stores is None else latents.to(self.stores).float()


NOBODY = Observer(lambda step: None)


@torch.no_grad()
def denoise(
    denoiser: Denoiser,
    scheduler: Any,
    ask: Ask,
    seeds: Sequence[int],
    latent_shape: tuple[int, ...],
    observer: Observer = NOBODY,
) -> Latents:
    """Run a sampler from pure noise to clean latents.

    Args:
        denoiser: base model, guided teacher or student.
        scheduler: a diffusers scheduler whose timesteps are set; some keep state, so a fresh one for every call.
        ask: one per row, on the device to run on.
        seeds: one per row; row i's noise is a function of `seeds[i]` alone.
        latent_shape: (channels, height, width), or whatever the network takes.
        observer: sees every network call.

    Returns:
        Clean latents float32 `[batch, *latent_shape]`.

    Raises:
        InputError: the scheduler samples with a learned variance that the denoiser does not predict.
    """
    device = ask.guidance_scale.device
    generators = [generator(seed, "noise") for seed in seeds]
    latents: Tensor = stacked_noise(generators, latent_shape).to(device) * initial_noise_scale(scheduler)
    drawn_from = step_arguments(scheduler, generators)
    answers = denoiser.steps(scheduler.timesteps.to(device, torch.float32), ask)
    for index, (timestep, answer) in enumerate(zip(scheduler.timesteps, answers, strict=True)):
        inputs = observer.rounded(network_input(scheduler, latents, timestep))
        prediction = answer(inputs)
        observer.see(Step(index, float(timestep), inputs, prediction))
        taken = scheduler_output(scheduler, prediction, latent_shape[0])
        latents = scheduler.step(taken, timestep, latents, **drawn_from).prev_sample
    return latents
