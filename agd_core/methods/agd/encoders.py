"""Encoders of guidance scale, timestep and condition into one space, shared by every adapter kind.

The forms are those of the AGD reference implementation (arXiv 2503.07274): random Fourier features of the
guidance scale through a two-layer MLP, and linear projections of the base model's own embeddings.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from agd_core.methods.agd.layers import Codes
from agd_core.models.denoiser import PerRow


class FourierFeatures(nn.Module):
    """`cos(2 pi (f * frequency * x + phase))` with fixed f ~ N(0, 1) and phase ~ U(0, 1), saved with the adapter."""

    frequencies: Tensor
    phases: Tensor

    def __init__(self, width: int, frequency: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(width) * frequency)
        self.register_buffer("phases", torch.rand(width))

    def forward(self, values: PerRow) -> Float[Tensor, "batch width"]:
        """Features of one scalar per row."""
        return torch.cos(2 * torch.pi * (values.float()[:, None] * self.frequencies + self.phases))


def relu_mlp(inputs: int, hidden: int, outputs: int, *between: nn.Module) -> nn.Sequential:
    """Linear, ReLU, `between`, Linear; Xavier-uniform weights with gain sqrt(2), zero biases."""
    first, last = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
    for linear in (first, last):
        nn.init.xavier_uniform_(linear.weight, gain=math.sqrt(2))
        nn.init.zeros_(linear.bias)
    return nn.Sequential(first, nn.ReLU(), *between, last)


class ScaleEncoder(nn.Module):
    """Guidance scale to a code: Fourier features, MLP H -> 4H -> H, LayerNorm.

    Args:
        width: H.
        frequency: factor on the guidance scale.
        inner_norm: LayerNorm after the ReLU, as the authors' offset adapter has it.
    """

    def __init__(self, width: int, frequency: float, inner_norm: bool = False) -> None:
        super().__init__()
        between = (nn.LayerNorm(4 * width),) if inner_norm else ()
        self.net = nn.Sequential(
            FourierFeatures(width, frequency), relu_mlp(width, 4 * width, width, *between), nn.LayerNorm(width)
        )

    def forward(self, guidance_scale: PerRow) -> Float[Tensor, "batch hidden"]:
        """One code per row."""
        code: Tensor = self.net(guidance_scale)
        return code


class ConditionEncoder(nn.Module):
    """Tokens in the order guidance scale, timestep, condition, all of width H.

    Args:
        width: H.
        time_width: width of the base model's timestep embedding, None to leave the timestep out.
        condition_width: width of the base model's condition embedding, None to leave the condition out.
        frequency: see `ScaleEncoder`.
        inner_norm: see `ScaleEncoder`.
    """

    def __init__(
        self,
        width: int,
        time_width: int | None,
        condition_width: int | None,
        *,
        frequency: float = 1.0,
        inner_norm: bool = False,
    ) -> None:
        super().__init__()
        self.scale = ScaleEncoder(width, frequency, inner_norm)
        self.time = nn.Linear(time_width, width) if time_width else None
        self.condition = nn.Linear(condition_width, width) if condition_width else None

    def forward(self, guidance_scale: PerRow, time_features: Tensor, condition_features: Tensor | None = None) -> Codes:
        """The encoded call.

        Args:
            guidance_scale: one per row.
            time_features: `[batch, time_width]`, or `[steps, 1, time_width]` for a sampler's steps.
            condition_features: `[batch, condition_tokens, condition_width]`; not read where the condition is left out.
        """
        return Codes(
            self.scale(guidance_scale)[:, None],
            None if self.time is None else self.time(time_features)[..., None, :],
            None if self.condition is None else self.condition(condition_features),
        )
