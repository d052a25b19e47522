"""Seeded weights for miniatures: predictions of order 1 that feel their condition, nothing left at zero."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from agd_core.basics.seeding import generator

_NO_GAINS: Mapping[str, float] = {}


@contextmanager
def untouched_random_state() -> Iterator[None]:
    """Libraries draw first weights that `fill` overwrites; the caller's random state does not move."""
    with torch.random.fork_rng(devices=[]):
        yield


@torch.no_grad()
def fill(module: nn.Module, seed: str, gains: Mapping[str, float] = _NO_GAINS) -> Any:
    """Overwrite every parameter with normal values of a scale that keeps activations near 1; returns the module.

    Matrices and kernels get a standard deviation of 1 / sqrt(fan in), embeddings 1, norms 1 +- 0.1, biases 0.1.
    Each parameter has a generator of its own, so that no other layer shifts its values.

    Args:
        seed: part of every parameter's seed, e.g. "tiny-sd/unet".
        gains: parameter name ending -> factor, for what shall weigh more or less than that.
    """
    tables = {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.Embedding)}
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator("miniature", seed, name))
        gain = next((factor for ending, factor in gains.items() if name.endswith(ending)), 1.0)
        parameter.copy_(gain * _scaled(name, noise, name in tables))
    return module.eval()


def _scaled(name: str, noise: torch.Tensor, is_table: bool) -> torch.Tensor:
    if name.endswith("bias"):
        return 0.1 * noise
    if noise.ndim == 1:
        return 1 + 0.1 * noise
    return noise if is_table else noise / float(noise[0].numel()) ** 0.5
