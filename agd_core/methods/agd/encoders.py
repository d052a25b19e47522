"""Encoders of guidance scale, timestep and condition into one space, shared by every adapter kind.

The forms are those of the AGD reference implementation (arXiv 2503.07274): random Fourier features of the
guidance scale through a two-layer MLP, and linear projections of the base model's own embeddings.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

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

    def forward(
        self,
        guidance_scale: PerRow,
        time_features: Float[Tensor, "batch time_width"],
        condition_features: Float[Tensor, "batch condition_tokens condition_width"],
    ) -> Float[Tensor, "batch code_tokens hidden"]:
        """1 + 1 + condition_tokens codes per row, fewer where a part is left out."""
        tokens = [self.scale(guidance_scale)[:, None]]  # [B, 1, H]
        if self.time is not None:
            tokens.append(self.time(time_features)[:, None])  # [B, 1, H]
        if self.condition is not None:
            tokens.append(self.condition(condition_features))  # [B, L, H]
        return torch.cat(tokens, dim=1)


def pooled(codes: Float[Tensor, "batch code_tokens hidden"], leading: int) -> Float[Tensor, "batch hidden"]:
    """Sum of the `leading` single tokens (scale, timestep) and the mean of the condition's tokens."""
    total = codes[:, :leading].sum(dim=1)
    return total + codes[:, leading:].mean(dim=1) if codes.shape[1] > leading else total
