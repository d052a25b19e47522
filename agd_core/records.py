"""What a trajectory is on its way between collection, storage and training; numpy only.

The core reads and writes trajectories through the two protocols at the end, so it never learns a storage format.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

INPUT, TARGET = 0, 1
"""Positions on the K axis of `latents`: the network's input, and the guided prediction to be learnt."""


@dataclass(frozen=True)
class PlannedTrajectory:
    """One trajectory to be collected; a pure function of (configuration, index)."""

    index: int
    seed: int
    """Seeds the starting noise and the sampler's noise."""
    class_label: int
    guidance_scale: float
    """Constant along the trajectory."""
    steps: tuple[int, ...]
    """Sampler steps to keep, ascending."""


@dataclass(frozen=True)
class StepBatch:
    """Random (trajectory, step) pairs for training, row-aligned."""

    latents: np.ndarray
    """`[batch, 2, channels, height, width]`."""
    timesteps: np.ndarray
    """float32 `[batch]`."""
    class_labels: np.ndarray
    """int64 `[batch]`."""
    guidance_scales: np.ndarray
    """float32 `[batch]`."""


@runtime_checkable
class TrajectoryWriter(Protocol):
    """Where collected trajectories go, in units that are either wholly there or not at all."""

    def missing_units(self) -> list[int]:
        """Units of the plan that are not committed, or no longer intact, in plan order."""
        ...

    def planned(self, unit: int) -> Sequence[PlannedTrajectory]:
        """The trajectories of one unit."""
        ...

    def commit(self, unit: int, latents: np.ndarray) -> None:
        """Store one unit, `[trajectories, kept_steps, 2, C, H, W]`, durably; it exists once this returns."""
        ...


@runtime_checkable
class TrajectoryReader(Protocol):
    """Random access to stored (trajectory, step) pairs."""

    @property
    def pairs(self) -> int:
        """How many pairs there are."""
        ...

    def read(self, pairs: np.ndarray) -> StepBatch:
        """The pairs of these indices in `[0, pairs)`, in the order given."""
        ...
