"""Which examples a training step sees: a pure function of (seed, step), so any step can be resumed exactly."""

from functools import lru_cache

import torch
from torch import Tensor

from agd_core.seeding import generator


def batch_indices(examples: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Indices int64 `[batch_size]` of one step.

    Epochs are shuffled without replacement. A batch that crosses an epoch's end takes its rest from the
    next epoch, so every example is seen once per epoch and any batch size works, even above `examples`.
    """
    first = step * batch_size
    positions = range(first, first + batch_size)
    parts = []
    for epoch in range(first // examples, (first + batch_size - 1) // examples + 1):
        start, stop = epoch * examples, (epoch + 1) * examples
        parts.append(
            _epoch_order(examples, seed, epoch)[max(positions.start, start) - start : min(positions.stop, stop) - start]
        )
    return torch.cat(parts)


@lru_cache(maxsize=4)
def _epoch_order(examples: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(examples, generator=generator(seed, "epoch", epoch))
