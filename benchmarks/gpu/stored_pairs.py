"""Pairs of noise as a collection would hold them, in memory or in a store, for trainings whose losses mean nothing."""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from agd_core.data.records import CollectionPlan, PlannedTrajectory, StepBatch, step_batch
from agd_core.memory import Sized
from benchmarks.gpu.networks import SCALE, drawn
from storage.objects import LocalObjects
from storage.trajectories.zarr_store import ZarrTrajectoryStore

_CONDITIONS = 8
"""Distinct ones."""
_DISTINCT = 64
"""Pairs that differ; the others are these again."""


class RandomPairs:
    """A `TrajectoryReader` whose pairs lie in memory."""

    def __init__(self, sized: Sized, trajectories: int, steps: int) -> None:
        self.plan = plan_of(sized, trajectories, steps)
        self._shape = (min(_DISTINCT, self.plan.pairs), *self.plan.pair_shape)

    @cached_property
    def pairs(self) -> np.ndarray:
        """float16 `[pairs, K, *latent_shape]`."""
        return drawn(torch.empty(self._shape), 0).half().numpy()

    def read(self, pairs: np.ndarray) -> StepBatch:
        """The pairs of these indices."""
        return step_batch(self.plan, pairs, self.pairs[pairs % len(self.pairs)])

    def written(self, root: Path) -> ZarrTrajectoryStore:
        """The same in a store in this folder."""
        store = ZarrTrajectoryStore.prepare(LocalObjects(root), self.plan)
        for unit in range(self.plan.units):
            with store.write_unit(unit) as writer:
                for trajectory in self.plan.unit(unit):
                    for slot in range(self.plan.stored_steps):
                        pair = trajectory.index * self.plan.stored_steps + slot
                        writer.put(trajectory.index, slot, self.pairs[pair % len(self.pairs)])
        return store


def plan_of(sized: Sized, trajectories: int, steps: int) -> CollectionPlan:
    """A collection of so many trajectories of so many stored steps at one guidance scale."""
    tensors = sized.conditions(_CONDITIONS).tensors().items()
    conditions = {name: drawn(tensor, 1).numpy() for name, tensor in tensors}
    kept, scalars = tuple(range(steps)), {"guidance_scale": SCALE}
    rows = tuple(
        PlannedTrajectory(index, index, {"condition": index % _CONDITIONS, "null": 0}, scalars, kept)
        for index in range(trajectories)
    )
    timesteps = tuple(float(999 - step) for step in range(steps))
    shard = min(8, trajectories)
    return CollectionPlan(rows, timesteps, conditions, sized.latent_shape, "float16", shard, shard, {"pairs": "random"})
