"""The guidance embedding that diffusers' pipelines hand to a UNet, made and read backwards.

A pipeline whose UNet says `time_cond_proj_dim = n` gives it `sin` and `cos` of `1000 * (guidance_scale - 1) * r` for
n / 2 rates r that fall from 1 to 1e-4 (`get_guidance_scale_embedding`, https://arxiv.org/abs/2210.03142).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from agd_core.models.denoiser import PerRow

WIDTH = 8
"""Asked of the pipelines: four rates, 21.5 apart, from which any scale below 32 can be read, in bfloat16 too."""
_RATES = tuple(1000.0 * 10_000.0 ** (-index / (WIDTH // 2 - 1)) for index in range(WIDTH // 2))


def encode(guidance_scale: PerRow, width: int) -> Float[Tensor, "batch width"]:
    """The embedding of guidance scales, float32, as `get_guidance_scale_embedding` makes it of (scale - 1).

    Args:
        guidance_scale: 1 is no guidance, whose embedding is that of Meng et al.'s w = 0.
        width: even, above 2.
    """
    device, count = guidance_scale.device, width // 2
    slowest = torch.tensor(10_000.0, device=device).log()
    rates = torch.exp(torch.arange(count, dtype=torch.float32, device=device) * -(slowest / (count - 1)))
    angles = ((guidance_scale.float() - 1) * 1000.0)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def decode(embedding: Float[Tensor, "batch 8"]) -> PerRow:
    """The guidance scales of an embedding's rows, float32.

    The slowest angle is never a full turn away; each faster one says the same more precisely, once the slower ones have
    said how many turns it has made.
    """
    sines, cosines = embedding.float().chunk(2, dim=1)
    angles = torch.atan2(sines, cosines)  # [B, WIDTH / 2]
    excess: Tensor = angles[:, -1] / _RATES[-1]
    for index in reversed(range(WIDTH // 2 - 1)):
        turns = torch.round((excess * _RATES[index] - angles[:, index]) / math.tau)
        excess = (angles[:, index] + math.tau * turns) / _RATES[index]
    return 1 + excess
