"""Stage 1's core: which trajectories to collect, and collecting them (AGD, arXiv 2503.07274, Algorithm 1)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from agd_core.basics.config import IDENTITY_IF_SET, NOT_IDENTITY, Config, Place
from agd_core.basics.progress import ShouldStop, never
from agd_core.basics.seeding import derive_seed, generator
from agd_core.data.recorder import Recorder
from agd_core.data.records import CollectionPlan, PlannedTrajectory, StoredType, UnitWriter
from agd_core.data.states import Batch, States
from agd_core.data.subjects import Subjects
from agd_core.models.ask import Ask
from agd_core.models.condition import Condition
from agd_core.models.model import BaseModel
from agd_core.models.schedulers import SchedulerName, build_scheduler


class CollectConfig(Config):
    """Which trajectories are recorded."""

    trajectories: int | None = Field(None, ge=1, json_schema_extra=NOT_IDENTITY)
    """How many, balanced over classes or prompts; None collects what training will read (see reads_per_pair)."""
    reads_per_pair: float = Field(4.0, gt=0, json_schema_extra=NOT_IDENTITY)
    """How often training reads each stored pair where trajectories is None."""
    guidance_scale_min: float = Field(1.0, ge=0, le=100)
    """Lower end of the range from which each trajectory draws its guidance scale (the paper: 1)."""
    guidance_scale_max: float = Field(6.0, ge=0, le=100)
    """Upper end of that range (the paper: 6 for DiT)."""
    scheduler: SchedulerName = "ddim"
    """Sampler that walks the trajectories."""
    steps: int = Field(50, ge=1, le=1000)
    """Sampler steps."""
    states: Literal["guided", "noised"] = Field("guided", json_schema_extra=IDENTITY_IF_SET)
    """Where the guided teacher is asked: on the way of guided sampling (the paper), or at images with noise added."""
    images: Place | None = Field(None, json_schema_extra=NOT_IDENTITY)
    """Real images to be noised, with their classes or captions: a folder, Parquet or WebDataset files, or
    builtin:fashion-mnist; None noises the teacher's own, each of which costs a whole guided trajectory."""
    kept_steps: int | None = Field(None, ge=1)
    """Store at most so many steps of each trajectory, one from each of so many equal parts; None stores all."""
    dtype: StoredType = "float16"
    """Stored type; the network's input is rounded to it before the teacher sees it."""
    shard_trajectories: int = Field(32, ge=1)
    """Trajectories per shard, the object that is written and checked as a whole."""
    unit_trajectories: int | None = Field(None, ge=1)
    """Trajectories per unit of work, a multiple of the shard's; committed and resumed as a whole; None: one shard."""
    prompts: Place | None = Field(None, json_schema_extra=NOT_IDENTITY)
    """For models that take prompts: a text, Parquet or WebDataset file of them, or builtin:everyday-500."""
    prompt_count: int | None = Field(None, ge=1, json_schema_extra=NOT_IDENTITY)
    """How many of the prompts; None takes all (the paper: 500 captions of COCO)."""
    negative_prompt: str | None = Field(
        None, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]*$", json_schema_extra=NOT_IDENTITY
    )
    """What guidance leads away from instead of no prompt, here and in the evaluation; counts with the guidance rule."""
    batch_size: int = Field(64, ge=1, json_schema_extra=NOT_IDENTITY)
    """Trajectories sampled together, within a unit."""
    seed: int = Field(0, ge=0)
    """Seeds guidance scales, kept steps and every trajectory's noise."""

    @model_validator(mode="after")
    def _check(self) -> "CollectConfig":
        if self.guidance_scale_min >= self.guidance_scale_max:
            low, high = self.guidance_range
            raise ValueError(f"guidance_scale_min {low:g} must be below guidance_scale_max {high:g}")
        if self.unit_trajectories and self.unit_trajectories % self.shard_trajectories:
            raise ValueError(
                f"unit_trajectories {self.unit_trajectories} must be a multiple of "
                f"shard_trajectories {self.shard_trajectories}"
            )
        if self.images and self.states != "noised":
            raise ValueError("images are noised: they need states noised")
        return self

    @property
    def stored_steps(self) -> int:
        """How many steps of each trajectory are stored."""
        return min(self.kept_steps or self.steps, self.steps)

    @property
    def guidance_range(self) -> tuple[float, float]:
        """(lowest, highest) guidance scale."""
        return self.guidance_scale_min, self.guidance_scale_max

    def sized(self, reads: int, conditions: int) -> "CollectConfig":
        """These settings with the number of trajectories decided.

        Args:
            reads: how many pairs training will read (its steps times its batch size).
            conditions: how many conditions share the trajectories; the number is rounded up to a multiple of it.
        """
        if self.trajectories is not None:
            return self
        needed = math.ceil(reads / (self.reads_per_pair * self.stored_steps))
        return self.model_copy(update={"trajectories": max(1, math.ceil(needed / conditions)) * conditions})


def plan_collection(
    config: CollectConfig,
    subjects: Subjects,
    identity: dict[str, Any],
    conditions: Mapping[str, np.ndarray] | None = None,
) -> CollectionPlan:
    """The plan: balanced subjects, guidance scales uniform in the range, kept steps stratified over time.

    Row i depends only on the settings and i, so a longer plan begins with the shorter one.

    Args:
        config: with its number of trajectories decided, see `CollectConfig.sized`.
        subjects: what the teacher is asked for; each is one row of the plan's condition tensors.
        identity: plain data that tells this content from any other.
        conditions: the subjects' condition tensors, where they are known already.
    """
    if config.trajectories is None:
        raise ValueError("the number of trajectories is not decided yet: call sized()")
    base_model = subjects.base_model
    schedule = build_scheduler(config.scheduler, base_model.scheduler_config, config.steps).timesteps
    shard = min(config.shard_trajectories, config.trajectories)
    return CollectionPlan(
        trajectories=tuple(_planned(index, subjects, config) for index in range(config.trajectories)),
        timesteps=tuple(schedule.to(torch.float32).tolist()),
        conditions=conditions or _conditions(subjects),
        latent_shape=base_model.latent_shape,
        dtype=config.dtype,
        shard_trajectories=shard,
        unit_trajectories=shard if shard < config.shard_trajectories else config.unit_trajectories or shard,
        identity=identity,
        prediction_slots=base_model.prediction_channels // base_model.latent_shape[0],
    )


def planned_ask(plan: CollectionPlan, trajectories: Sequence[int], device: torch.device) -> Ask:
    """What these trajectories of a plan are asked for."""
    rows, scalars = (
        {name: column[list(trajectories)] for name, column in columns.items()} for columns in (plan.rows, plan.scalars)
    )
    return Ask.of_columns(Condition.from_arrays(plan.conditions, torch.device("cpu")), rows, scalars, device)


def collect_unit(
    states: States,
    base_model: BaseModel,
    plan: CollectionPlan,
    writer: UnitWriter,
    config: CollectConfig,
    should_stop: ShouldStop = never,
) -> None:
    """Ask the teacher at the states of what a unit wants; hand (input, guided prediction) to its writer.

    Batches are cut from the whole unit and asked for whole, whatever is wanted of them: a network's answers depend, in
    their last bits, on the size of the batch, and a resumed unit must equal an unbroken one.

    Args:
        states: where the teacher is asked, see `CollectConfig.states`.
        base_model: below the teacher.
        plan: of the collection.
        writer: of the unit.
        config: the collection's.
        should_stop: asked at every step.

    Raises:
        NumericError: a value is not finite, or does not fit the stored type.
        Stopped: between two sampler steps, when `should_stop` answered True; the unit is then not complete.
    """
    new_scheduler = partial(build_scheduler, config.scheduler, base_model.scheduler_config, config.steps)
    wanted = {trajectory.index for trajectory in writer.wanted}
    unit = plan.unit(min(wanted) // plan.unit_trajectories) if wanted else ()
    for first in range(0, len(unit), config.batch_size):
        batch = unit[first : first + config.batch_size]
        if wanted.intersection(trajectory.index for trajectory in batch):
            asked = planned_ask(plan, [trajectory.index for trajectory in batch], base_model.device)
            recorder = Recorder(batch, wanted, writer, plan, config.scheduler, base_model.dtype, should_stop)
            states.record(Batch(batch, asked, base_model.latent_shape, new_scheduler), recorder)


def network_evaluations(config: CollectConfig, states: States, per_step: Sequence[int]) -> int:
    """How many network evaluations a whole collection takes.

    Args:
        config: with its number of trajectories decided.
        states: how they come about.
        per_step: evaluations of the teacher for one row at each of the sampler's steps.
    """
    count = config.trajectories or 0
    return states.evaluations(per_step, count, (_drawn(config, index)[1] for index in range(count)))


def _conditions(subjects: Subjects) -> dict[str, np.ndarray]:
    """Every subject's condition, then the null condition."""
    asked = subjects.condition(range(len(subjects)))
    return Condition.cat([asked, subjects.null(1)]).to_arrays()


def _planned(index: int, subjects: Subjects, config: CollectConfig) -> PlannedTrajectory:
    scale, kept = _drawn(config, index)
    seed, subject = derive_seed(config.seed, "trajectory", index), index % len(subjects)
    prompt = subjects.prompts[subject] if subjects.prompts else None
    label = None if prompt else subject
    rows, scalars = {"condition": subject, "null": len(subjects)}, {"guidance_scale": float(np.float32(scale))}
    return PlannedTrajectory(index, seed, rows, scalars, kept, class_label=label, prompt=prompt)


def _drawn(config: CollectConfig, index: int) -> tuple[float, tuple[int, ...]]:
    """Guidance scale and kept steps of a trajectory."""
    rng = generator(config.seed, "plan", index)
    low, high = config.guidance_range
    scale = low + (high - low) * float(torch.rand((), generator=rng, dtype=torch.float64))
    return scale, tuple(_stratified(config.steps, config.stored_steps, rng))


def _stratified(steps: int, kept: int, rng: torch.Generator) -> Iterator[int]:
    """One random step from each of `kept` equal parts of the sampler's steps."""
    edges = [round(part * steps / kept) for part in range(kept + 1)]
    for low, high in pairwise(edges):
        yield low + int(torch.randint(high - low, (), generator=rng))
