"""Which pairs a training step sees: a pure function of (seed, epoch, position), so any step can be resumed exactly.

Nothing is stored but a key: an epoch's order is a permutation over the pairs that needs no memory.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agd_core.basics.errors import InputError
from agd_core.basics.permutation import Permutation
from agd_core.basics.seeding import derive_seed


class Order(ABC):
    """Which pairs each step of a training run sees.

    Step b takes positions `[b * batch_size, (b + 1) * batch_size)` of the endless sequence of epochs, so a batch that
    crosses an epoch's end takes its rest from the next one. Each rank takes a contiguous slice of that batch, cut as
    `np.array_split` cuts: the slices of all ranks, joined, are the same batch for every world size.
    """

    batch_size: int
    """Pairs per step over all ranks."""
    seed: int
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        if not 1 <= self.world_size <= self.batch_size:
            raise InputError(f"world_size is {self.world_size}; allowed: 1 to {self.batch_size}, the batch size")
        if not 0 <= self.rank < self.world_size:
            raise InputError(f"rank is {self.rank}; allowed: 0 to {self.world_size - 1}")
        if self.epoch_pairs < 1:
            raise InputError("there are no pairs to train on")

    @property
    @abstractmethod
    def epoch_pairs(self) -> int:
        """How many pairs an epoch has; each comes exactly once."""

    @abstractmethod
    def at(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """The pairs at these positions of one epoch, int64 `[n]` to int64 `[n]`."""

    def pairs(self, step: int) -> np.ndarray:
        """This rank's pairs of one step, int64 `[batch_size / world_size]`."""
        epochs, positions = np.divmod(self._positions(step), self.epoch_pairs)
        span = range(int(epochs[0]), int(epochs[-1]) + 1)
        return np.concatenate([self.at(epoch, positions[epochs == epoch]) for epoch in span])

    def state(self, step: int) -> dict[str, int]:
        """Where the run stands before this step; plain data to be recorded in a checkpoint."""
        epoch, position = divmod(step * self.batch_size, self.epoch_pairs)
        return {
            "seed": self.seed,
            "examples": self.epoch_pairs,
            "batch_size": self.batch_size,
            "epoch": epoch,
            "position": position,
        }

    def _positions(self, step: int) -> np.ndarray:
        share, longer_ranks = divmod(self.batch_size, self.world_size)
        first = step * self.batch_size + self.rank * share + min(self.rank, longer_ranks)
        return np.arange(first, first + share + (self.rank < longer_ranks), dtype=np.int64)


@dataclass(frozen=True)
class BatchOrder(Order):
    """Every epoch is a new shuffle of all pairs; for readers with random access."""

    examples: int
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1

    @property
    def epoch_pairs(self) -> int:
        return self.examples

    def at(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        return Permutation(self.examples, derive_seed(self.seed, "epoch", epoch)).forward(positions)


@dataclass(frozen=True)
class StreamOrder(Order):
    """Every epoch visits whole tars in a new order, and each tar's samples as they are stored, so reads are contiguous.

    The export was shuffled once: its sample at position p is the pair `stored.forward(p)`, and tar k holds positions
    `[k * tar_samples, (k + 1) * tar_samples)`. Only the last tar may hold fewer.
    """

    stored: Permutation
    tar_samples: int
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.tar_samples < 1:
            raise InputError(f"tar_samples is {self.tar_samples}; at least 1 is needed")
        super().__post_init__()

    @property
    def epoch_pairs(self) -> int:
        return self.stored.size

    @property
    def tars(self) -> int:
        """How many tars the export has."""
        return -(-self.stored.size // self.tar_samples)

    def at(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        visits = Permutation(self.tars, derive_seed(self.seed, "tars", epoch))
        turns, samples = np.divmod(self._as_if_full(positions, visits), self.tar_samples)
        return self.stored.forward(visits.forward(turns) * self.tar_samples + samples)

    def _as_if_full(self, positions: np.ndarray, visits: Permutation) -> np.ndarray:
        """Positions counted as if the last tar were full: those after it move up by what it lacks."""
        lacking = self.tars * self.tar_samples - self.stored.size
        turn = int(visits.inverse(np.array([self.tars - 1]))[0])
        later = positions >= (turn + 1) * self.tar_samples - lacking
        return np.where(later, positions + lacking, positions)


def batch_indices(examples: int, batch_size: int, seed: int, step: int) -> Tensor:
    """One step of a `BatchOrder` as a tensor, int64 `[batch_size]`."""
    return torch.from_numpy(BatchOrder(examples, batch_size, seed).pairs(step))
