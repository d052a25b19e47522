"""What a trajectory is on its way between collection, storage and training; numpy only.

The core reads and writes trajectories through the protocols at the end, so it never learns a storage format.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from agd_core.basics.digest import digest

INPUT, TARGET = 0, 1
"""Positions on the K axis of `latents`: the network's input, and the first slot of the guided prediction to be learnt.

A slot has as many channels as a latent. The prediction takes the slots from `TARGET` on: one, or a second one for the
variance that a network has learned (what DiT's authors' models emit, https://arxiv.org/abs/2212.09748).
"""

StoredType = Literal["float16", "bfloat16", "float32"]
"""Types in which latents and predictions are stored."""
CARRIERS: dict[StoredType, str] = {"float16": "float16", "bfloat16": "uint16", "float32": "float32"}
"""The numpy type that carries each stored type; numpy has no bfloat16, so its bits travel as uint16."""


@dataclass(frozen=True)
class PlannedTrajectory:
    """One trajectory to be collected; a pure function of (configuration, index)."""

    index: int
    seed: int
    """Seeds the starting noise and the sampler's noise."""
    rows: Mapping[str, int]
    """What it is asked for, as rows of the plan's conditions: "condition" and "null", see `agd_core.models.ask`."""
    scalars: Mapping[str, float]
    """What it is asked for in numbers, constant along the trajectory: "guidance_scale"."""
    steps: tuple[int, ...]
    """Sampler steps to keep, ascending."""
    class_label: int | None = None
    """For people: the class behind the condition, if it is one."""
    prompt: str | None = None
    """For people: the text behind the condition, if it is one."""
    split: str = "train"
    """What the trajectory is for."""


@dataclass(frozen=True)
class CollectionPlan:
    """Everything that is decided before the first trajectory is collected; immutable.

    A work unit is what is committed, resumed and lost as a whole: a whole number of shards, a shard being a whole
    number of trajectories. Only the last of either may be shorter.
    """

    trajectories: tuple[PlannedTrajectory, ...]
    timesteps: tuple[float, ...]
    """The value handed to the network at every sampler step."""
    conditions: Mapping[str, np.ndarray]
    """Condition tensors by name, one row per distinct condition (a class, a prompt), null ones too."""
    latent_shape: tuple[int, ...]
    dtype: StoredType
    shard_trajectories: int
    unit_trajectories: int
    identity: Mapping[str, Any]
    """Plain data: the settings and digests that shape every unit's content, however many there are.

    A store of another identity is refused.
    """
    prediction_slots: int = 1
    """Slots of `latent_shape` that a prediction takes: 1, or 2 where a learned variance is stored with it."""

    def __post_init__(self) -> None:
        if self.prediction_slots not in (1, 2):
            raise ValueError(f"a prediction takes 1 slot, or 2 with a learned variance, not {self.prediction_slots}")
        if self.unit_trajectories % self.shard_trajectories:
            raise ValueError(
                f"a unit of {self.unit_trajectories} trajectories is no multiple of {self.shard_trajectories}, "
                "the shard size: two writers could meet in one shard"
            )

    @property
    def stored_steps(self) -> int:
        """How many steps of each trajectory are stored."""
        return len(self.trajectories[0].steps)

    @property
    def pairs(self) -> int:
        """Trajectories times stored steps: how many (state, guided prediction) pairs training can read."""
        return len(self.trajectories) * self.stored_steps

    @property
    def pair_shape(self) -> tuple[int, ...]:
        """Shape of one stored pair: `(K, *latent_shape)`, K = 1 + `prediction_slots`."""
        return 1 + self.prediction_slots, *self.latent_shape

    @property
    def prediction_channels(self) -> int:
        """Channels of a prediction."""
        return self.prediction_slots * self.latent_shape[0]

    @property
    def pair_bytes(self) -> int:
        """Bytes of one stored pair."""
        return int(np.prod(self.pair_shape)) * np.dtype(CARRIERS[self.dtype]).itemsize

    @property
    def shards(self) -> int:
        """How many shards the plan has."""
        return -(-len(self.trajectories) // self.shard_trajectories)

    @property
    def units(self) -> int:
        """How many work units the plan has."""
        return -(-len(self.trajectories) // self.unit_trajectories)

    def unit(self, unit: int) -> tuple[PlannedTrajectory, ...]:
        """The trajectories of one unit.

        Raises:
            ValueError: the plan has no such unit.
        """
        if not 0 <= unit < self.units:
            raise ValueError(f"unit {unit} is not of this plan: its units are 0 to {self.units - 1}")
        first = unit * self.unit_trajectories
        return self.trajectories[first : first + self.unit_trajectories]

    def unit_shards(self, unit: int) -> range:
        """The shards of one unit."""
        per_unit = self.unit_trajectories // self.shard_trajectories
        return range(unit * per_unit, min((unit + 1) * per_unit, self.shards))

    def shard_size(self, shard: int) -> int:
        """How many trajectories one shard holds; the last may hold fewer."""
        return min(self.shard_trajectories, len(self.trajectories) - shard * self.shard_trajectories)

    def unit_of(self, shard: int) -> int:
        """The unit that a shard belongs to."""
        return shard * self.shard_trajectories // self.unit_trajectories

    @cached_property
    def settings_id(self) -> str:
        """sha256 of what all units have in common: identity, layout, timesteps and the conditions' bytes.

        Timesteps count as what is stored of them, float32. The usual one slot is not named.
        """
        layout = [*self.latent_shape, self.dtype, self.shard_trajectories, self.unit_trajectories]
        return digest(
            {
                "identity": dict(self.identity),
                "timesteps": np.asarray(self.timesteps, dtype=np.float32).tolist(),
                "conditions": {name: array_digest(array) for name, array in self.conditions.items()},
                "layout": layout if self.prediction_slots == 1 else [*layout, self.prediction_slots],
            }
        )

    @cached_property
    def unit_ids(self) -> tuple[str, ...]:
        """sha256 of what each unit holds: `settings_id` and its trajectories, scalars as float32.

        Plans of the same settings share the ids of the full units that they have in common, whatever their lengths.
        """
        columns = {name: column.tolist() for name, column in self.scalars.items()}
        scalars = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        rows = [
            vars(row) | {"rows": dict(row.rows), "scalars": rounded}
            for row, rounded in zip(self.trajectories, scalars, strict=True)
        ]
        starts = range(0, len(rows), self.unit_trajectories)
        units = [rows[start : start + self.unit_trajectories] for start in starts]
        return tuple(digest({"settings": self.settings_id, "trajectories": unit}) for unit in units)

    @cached_property
    def dataset_id(self) -> str:
        """sha256 of the whole plan, the conditions' bytes included: the same for equal plans, wherever they are."""
        return digest({"settings": self.settings_id, "units": list(self.unit_ids)})

    @cached_property
    def step_table(self) -> np.ndarray:
        """The kept sampler steps, int64 `[trajectories, stored_steps]`."""
        return np.asarray([trajectory.steps for trajectory in self.trajectories], dtype=np.int64)

    @cached_property
    def timestep_table(self) -> np.ndarray:
        """What the network was given at the kept steps, float32 `[trajectories, stored_steps]`."""
        table: np.ndarray = np.asarray(self.timesteps, dtype=np.float32)[self.step_table]
        return table

    @cached_property
    def rows(self) -> Mapping[str, np.ndarray]:
        """Rows of the condition tensors by what they stand for, int64 `[trajectories]` each."""
        every = [trajectory.rows for trajectory in self.trajectories]
        return {name: np.asarray([rows[name] for rows in every], dtype=np.int64) for name in every[0]}

    @cached_property
    def scalars(self) -> Mapping[str, np.ndarray]:
        """The numbers that are asked for, float32 `[trajectories]` each."""
        every = [trajectory.scalars for trajectory in self.trajectories]
        return {name: np.asarray([scalars[name] for scalars in every], dtype=np.float32) for name in every[0]}


@dataclass(frozen=True)
class StepBatch:
    """(trajectory, step) pairs for training, row-aligned."""

    latents: np.ndarray
    """`[batch, K, *latent_shape]`; for bfloat16 its bits as uint16, see `CARRIERS`."""
    timesteps: np.ndarray
    """float32 `[batch]`."""
    rows: Mapping[str, np.ndarray]
    """By name int64 `[batch]`, rows of the plan's condition tensors; whoever trains keeps those at hand."""
    scalars: Mapping[str, np.ndarray]
    """By name float32 `[batch]`."""


def array_digest(array: np.ndarray) -> str:
    """sha256 of an array's type, shape and bytes."""
    import hashlib

    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def step_batch(plan: CollectionPlan, pairs: np.ndarray, latents: np.ndarray) -> StepBatch:
    """Join stored latents with what the plan knows about their pairs.

    Args:
        plan: the plan of the store that they were read from.
        pairs: int64 `[batch]`; pair = trajectory * stored_steps + slot.
        latents: `[batch, K, *latent_shape]`, in the same order.
    """
    trajectories, slots = np.divmod(pairs, plan.stored_steps)
    return StepBatch(
        latents=latents,
        timesteps=plan.timestep_table[trajectories, slots],
        rows={name: column[trajectories] for name, column in plan.rows.items()},
        scalars={name: column[trajectories] for name, column in plan.scalars.items()},
    )


@runtime_checkable
class UnitWriter(Protocol):
    """Takes the pairs of one unit in any order; nothing of it exists before the unit is committed."""

    @property
    def wanted(self) -> Sequence[PlannedTrajectory]:
        """Trajectories of the unit that are still to be computed; the rest was found finished."""
        ...

    def put(self, trajectory: int, slot: int, pair: np.ndarray) -> None:
        """Add one pair, `[K, *latent_shape]` in the carrier type.

        Args:
            trajectory: its index in the plan.
            slot: position among its kept steps.
            pair: network input, then the slots of the guided prediction.
        """
        ...


@runtime_checkable
class TrajectoryReader(Protocol):
    """Random access to stored (trajectory, step) pairs."""

    @property
    def plan(self) -> CollectionPlan:
        """What was collected."""
        ...

    def read(self, pairs: np.ndarray) -> StepBatch:
        """The pairs of these indices in `[0, plan.pairs)`, in the order given."""
        ...


@runtime_checkable
class TrajectoryStore(TrajectoryReader, Protocol):
    """Where collected trajectories go, in units that are either wholly there or not at all."""

    def missing_units(self) -> list[int]:
        """Units of the plan that are not committed, or no longer intact, in plan order."""
        ...

    def write_unit(self, unit: int) -> AbstractContextManager[UnitWriter]:
        """Write one unit; it is committed, durably, when the block ends without an error.

        Raises:
            ValueError: a pair is missing, or is not of this unit.
        """
        ...

    def content_digest(self) -> str:
        """Identity of plan and latents; equal content gives equal digests in every backend.

        Raises:
            ValueError: a unit is missing.
        """
        ...
