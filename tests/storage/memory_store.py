"""Trajectories in arrays of this process: the smallest `TrajectoryStore`, for tests and experiments."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from agd_core.data.records import CARRIERS, CollectionPlan, PlannedTrajectory, StepBatch, UnitWriter, step_batch
from storage.trajectories.pairs import (
    check_pair,
    checksums,
    content_digest,
    pair_magnitudes,
    require_pairs,
    shard_content,
)


class MemoryTrajectoryStore:
    """Holds all latents in one array."""

    def __init__(self, plan: CollectionPlan) -> None:
        self.plan = plan
        shape = (len(plan.trajectories), plan.stored_steps, *plan.pair_shape)
        self._latents = np.zeros(shape, dtype=CARRIERS[plan.dtype])
        self._committed: set[int] = set()

    def missing_units(self) -> list[int]:
        """Units that were not committed."""
        return [unit for unit in range(self.plan.units) if unit not in self._committed]

    @contextmanager
    def write_unit(self, unit: int) -> Iterator[UnitWriter]:
        """Write one unit; it appears when the block ends without an error."""
        writer = _MemoryUnitWriter(self.plan, unit)
        yield writer
        if not writer.written.all():
            raise ValueError(f"unit {unit} is not complete: {np.count_nonzero(~writer.written)} pairs are missing")
        first = unit * self.plan.unit_trajectories
        self._latents[first : first + len(writer.latents)] = writer.latents
        self._committed.add(unit)

    def read(self, pairs: np.ndarray) -> StepBatch:
        """The pairs of these indices.

        Raises:
            IndexError: the plan has no such pair.
            ValueError: a pair of a unit that is not committed.
        """
        require_pairs(np.asarray(pairs), self.plan)
        trajectories, slots = np.divmod(np.asarray(pairs), self.plan.stored_steps)
        if absent := set((trajectories // self.plan.unit_trajectories).tolist()) - self._committed:
            raise ValueError(f"unit {min(absent)} is not committed")
        return step_batch(self.plan, np.asarray(pairs), self._latents[trajectories, slots])

    def content_digest(self) -> str:
        """Identity of plan and latents.

        Raises:
            ValueError: a unit is missing.
        """
        if missing := self.missing_units():
            raise ValueError(f"unit {missing[0]} is not committed")
        size, pair_shape = self.plan.shard_trajectories, self.plan.pair_shape
        shards = [self._latents[first : first + size] for first in range(0, len(self._latents), size)]
        return content_digest(self.plan, [shard_content(checksums(shard.reshape(-1, *pair_shape))) for shard in shards])


class _MemoryUnitWriter:
    def __init__(self, plan: CollectionPlan, unit: int) -> None:
        self._plan, self._planned = plan, plan.unit(unit)
        self.latents = np.zeros((len(self._planned), plan.stored_steps, *plan.pair_shape), CARRIERS[plan.dtype])
        self.written = np.zeros(self.latents.shape[:2], dtype=bool)

    @property
    def wanted(self) -> Sequence[PlannedTrajectory]:
        return self._planned

    def put(self, trajectory: int, slot: int, pair: np.ndarray) -> None:
        check_pair(pair, self._plan)
        pair_magnitudes(pair, self._plan, trajectory)
        row = trajectory - self._planned[0].index
        if not (0 <= row < len(self._planned) and 0 <= slot < self._plan.stored_steps):
            raise ValueError(f"trajectory {trajectory}, slot {slot} is not of this unit")
        if self.written[row, slot]:
            raise ValueError(f"trajectory {trajectory}, slot {slot} is there already")
        self.latents[row, slot], self.written[row, slot] = pair, True
