"""The one interface that a bare model, a guided teacher and a student share."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Shaped
from torch import Tensor

from agd_core.models.ask import Ask

Latents = Float[Tensor, "batch channels *space"]
"""An image's space is (height, width), a video's (frames, height, width)."""
Prediction = Float[Tensor, "batch predicted_channels *space"]
"""As many channels as the latents, or twice as many where a learned variance is kept."""
PerRow = Float[Tensor, " batch"]
Answer = Callable[[Latents], Prediction]
"""One step of a sampler: the prediction for its latents."""


def rowwise(per_row: Shaped[Tensor, " batch"], like: Latents) -> Tensor:
    """One value per row, shaped `[batch, 1, ...]` so that it goes with tensors of this rank."""
    return per_row.view(-1, *[1] * (like.ndim - 1))


@runtime_checkable
class Denoiser(Protocol):
    """Predicts what its network was trained for (epsilon, v or flow) from noisy latents.

    Samplers, trainers and evaluators see only this, so none of them asks whether it holds a bare base
    model, a guided teacher (two network evaluations) or a student (one).
    """

    @property
    def network_evaluations(self) -> int:
        """Rows that went through the network so far; a difference divided by images is the NFE."""
        ...

    def predict(self, latents: Latents, timestep: PerRow, ask: Ask) -> Prediction:
        """One prediction per row.

        Args:
            latents: what the network takes at this timestep, after the scheduler's input scaling.
            timestep: the value handed to the network, one per row.
            ask: one per row; a bare model answers for the condition and ignores the rest.
        """
        ...

    def steps(self, timesteps: Float[Tensor, " steps"], ask: Ask) -> Iterator[Answer]:
        """`predict` without gradients for a sampler's steps, a function for each; call it before the next is taken.

        Args:
            timesteps: of all steps in their order, on the ask's device; every row has the same.
            ask: of all steps.
        """
        for timestep in timesteps:
            yield partial(self.predict, timestep=timestep.expand(len(ask)), ask=ask)
