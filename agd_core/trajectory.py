"""Stage 1's core: which trajectories to collect, and collecting them (AGD, arXiv 2503.07274, Algorithm 1)."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from agd_core.base_models.base import BaseModel
from agd_core.config import NOT_IDENTITY, Config
from agd_core.denoiser import Denoiser
from agd_core.denoising import Step, denoise
from agd_core.errors import NumericError
from agd_core.records import PlannedTrajectory
from agd_core.schedulers import SchedulerName, build_scheduler
from agd_core.seeding import derive_seed, generator


class CollectConfig(Config):
    """Which guided trajectories are recorded."""

    trajectories: int = Field(4000, ge=1)
    """How many, balanced over the classes (the paper: 4 for each of the 1000 ImageNet classes)."""
    guidance_scale_min: float = Field(1.0, ge=0, le=100)
    """Lower end of the range from which each trajectory draws its guidance scale (the paper: 1)."""
    guidance_scale_max: float = Field(6.0, ge=0, le=100)
    """Upper end of that range (the paper: 6 for DiT)."""
    scheduler: SchedulerName = "ddim"
    """Sampler that walks the trajectories."""
    steps: int = Field(50, ge=1, le=1000)
    """Sampler steps."""
    kept_steps: int | None = Field(None, ge=1)
    """Store at most so many steps of each trajectory, one from each of so many equal parts; None stores all."""
    dtype: Literal["float16", "float32"] = "float16"
    """Stored type; the network's input is rounded to it before the teacher sees it."""
    shard_trajectories: int = Field(32, ge=1)
    """Trajectories per shard, the unit of work that is committed, resumed and lost as a whole."""
    batch_size: int = Field(64, ge=1, json_schema_extra=NOT_IDENTITY)
    """Trajectories sampled together, within a shard."""
    seed: int = Field(0, ge=0)
    """Seeds guidance scales, kept steps and every trajectory's noise."""

    @model_validator(mode="after")
    def _check(self) -> "CollectConfig":
        if self.guidance_scale_min >= self.guidance_scale_max:
            low, high = self.guidance_range
            raise ValueError(f"guidance_scale_min {low:g} must be below guidance_scale_max {high:g}")
        return self

    @property
    def stored_steps(self) -> int:
        """How many steps of each trajectory are stored."""
        return min(self.kept_steps or self.steps, self.steps)

    @property
    def guidance_range(self) -> tuple[float, float]:
        """(lowest, highest) guidance scale."""
        return self.guidance_scale_min, self.guidance_scale_max


def plan_trajectories(config: CollectConfig, classes: int) -> list[PlannedTrajectory]:
    """The plan: balanced classes, guidance scales uniform in the range, kept steps stratified over time.

    Row i depends only on the settings and i, so a longer plan begins with the shorter one.
    """
    return [_planned(index, classes, config) for index in range(config.trajectories)]


def collect_block(
    teacher: Denoiser,
    base_model: BaseModel,
    planned: Sequence[PlannedTrajectory],
    config: CollectConfig,
) -> np.ndarray:
    """Run guided sampling for these trajectories and keep (input, guided prediction) at the planned steps.

    The sampler advances with the guided prediction, so the stored states are those that guided sampling visits.

    Returns:
        `[trajectories, kept_steps, 2, channels, height, width]`; the third axis as in `agd_core.records`.

    Raises:
        NumericError: a value does not fit the stored type.
    """
    batches = [planned[i : i + config.batch_size] for i in range(0, len(planned), config.batch_size)]
    return np.concatenate([_collect_batch(teacher, base_model, batch, config) for batch in batches])


def _planned(index: int, classes: int, config: CollectConfig) -> PlannedTrajectory:
    rng = generator(config.seed, "plan", index)
    low, high = config.guidance_range
    scale = low + (high - low) * float(torch.rand((), generator=rng, dtype=torch.float64))
    kept = tuple(_stratified(config.steps, config.stored_steps, rng))
    seed = derive_seed(config.seed, "trajectory", index)
    return PlannedTrajectory(index, seed, index % classes, float(np.float32(scale)), kept)


def _stratified(steps: int, kept: int, rng: torch.Generator) -> Iterator[int]:
    """One random step from each of `kept` equal parts of the sampler's steps."""
    edges = [round(part * steps / kept) for part in range(kept + 1)]
    for low, high in pairwise(edges):
        yield low + int(torch.randint(high - low, (), generator=rng))


def _collect_batch(
    teacher: Denoiser, base_model: BaseModel, planned: Sequence[PlannedTrajectory], config: CollectConfig
) -> np.ndarray:
    slots = np.full((len(planned), config.steps), -1)
    for row, trajectory in enumerate(planned):
        slots[row, list(trajectory.steps)] = range(len(trajectory.steps))
    latents = np.empty((len(planned), len(planned[0].steps), 2, *base_model.latent_shape), dtype=config.dtype)
    dtype: torch.dtype = getattr(torch, config.dtype)

    def keep(step: Step) -> None:
        rows = np.flatnonzero(slots[:, step.index] >= 0)
        if rows.size:
            pair = torch.stack([step.latents, step.prediction], dim=1).to(dtype).cpu().numpy()
            latents[rows, slots[rows, step.index]] = pair[rows]

    denoise(
        teacher,
        build_scheduler(config.scheduler, base_model.scheduler_config, config.steps),
        base_model.class_condition([trajectory.class_label for trajectory in planned]),
        torch.tensor([trajectory.guidance_scale for trajectory in planned], device=base_model.device),
        [trajectory.seed for trajectory in planned],
        base_model.latent_shape,
        observer=keep,
        input_dtype=dtype,
    )
    if not np.isfinite(latents).all():
        raise NumericError(f"a latent or prediction does not fit {config.dtype}; collect in float32 instead")
    return latents
