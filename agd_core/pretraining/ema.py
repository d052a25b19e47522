"""Exponential moving average of a module's weights."""

import copy

import torch
from torch import nn


class Ema:
    """Keeps `average = decay * average + (1 - decay) * weights` with a short warm-up of the decay.

    The warm-up, `min(decay, (1 + step) / (10 + step))`, keeps early random weights out of the average.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = module
        self.decay = decay
        self.average = copy.deepcopy(module).requires_grad_(False)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Fold the module's current weights into the average."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.module.parameters()), weight)
