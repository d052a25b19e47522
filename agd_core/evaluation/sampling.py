"""Stage 3's core: sample images with any denoiser, counting what it cost."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float, Int, UInt8
from pydantic import Field, model_validator
from torch import Tensor

from agd_core.basics.config import NOT_IDENTITY, Config, Place
from agd_core.basics.progress import Progress, ShouldStop, Stopped, never, silent
from agd_core.basics.seeding import derive_seed
from agd_core.data.subjects import Subjects
from agd_core.models.ask import Ask
from agd_core.models.denoiser import Denoiser
from agd_core.models.denoising import denoise
from agd_core.models.model import BaseModel
from agd_core.models.schedulers import SchedulerName, build_scheduler

Steps = Annotated[int, Field(ge=1, le=1000)]
Scale = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SampleConfig(Config):
    """Which images are sampled for the evaluation; every method gets the same noise and subjects."""

    images: int = Field(5000, ge=2)
    """Images per sample set, balanced over classes or prompts."""
    guidance_scales: tuple[Scale, ...] = Field((2.0,), min_length=1)
    """Guidance scales at which the teacher and the adapters are compared; the first is the headline."""
    scheduler: SchedulerName = "ddim"
    """Sampler."""
    steps: Steps = 50
    """Sampler steps."""
    curve_steps: tuple[Steps, ...] = ()
    """Further step counts, at the headline scale, for the plot of Frechet distance over NFE."""
    sweep_schedulers: tuple[SchedulerName, ...] = ()
    """Further samplers for `agd sweep`, which tries every scale with every step count and every sampler."""
    prompts: Place | None = Field(None, json_schema_extra=NOT_IDENTITY)
    """For models that take prompts: a text, Parquet or WebDataset file of them, or builtin:everyday-1000."""
    prompt_count: int | None = Field(None, ge=1, json_schema_extra=NOT_IDENTITY)
    """How many of the prompts; None takes all."""
    batch_size: int = Field(250, ge=1, json_schema_extra=NOT_IDENTITY)
    """Images sampled together."""
    seed: int = Field(1, ge=0)
    """Seeds every image's noise."""

    @model_validator(mode="after")
    def _check(self) -> "SampleConfig":
        points = [*self.guidance_scales, *(f"{steps} steps" for steps in (self.steps, *self.curve_steps))]
        if len(set(points)) < len(points):
            raise ValueError("guidance_scales, and steps together with curve_steps, must name every value once")
        if len({self.scheduler, *self.sweep_schedulers}) <= len(self.sweep_schedulers):
            raise ValueError("scheduler together with sweep_schedulers must name every sampler once")
        return self

    @property
    def guidance_scale(self) -> float:
        """The headline's."""
        return self.guidance_scales[0]

    def at(self, guidance_scale: float, steps: int, scheduler: SchedulerName) -> "SampleConfig":
        """The settings of one sample set: of this point, and of no other."""
        point = {"guidance_scales": (guidance_scale,), "steps": steps, "scheduler": scheduler}
        return self.model_copy(update={**point, "curve_steps": (), "sweep_schedulers": ()})


@dataclass(frozen=True)
class SampleSet:
    """Images with the latents they were decoded from, and their measured cost."""

    images: UInt8[Tensor, "images height width channels"]
    latents: Float[Tensor, "images latent_channels latent_height latent_width"]
    labels: Int[Tensor, " images"]
    """Number of each image's subject: its class or prompt."""
    nfe: float
    """Network evaluations per image, counted by the denoiser."""
    denoising_seconds: float
    """Wall time of denoising alone: neither encoding of prompts nor decoding is in it."""


def sample_images(
    denoiser: Denoiser,
    subjects: Subjects,
    config: SampleConfig,
    on_progress: Progress = silent,
    should_stop: ShouldStop = never,
) -> SampleSet:
    """Sample images balanced over their subjects; image i has subject `i % len(subjects)` and noise from (seed, i).

    Args:
        denoiser: who is asked.
        subjects: what for.
        config: the headline's guidance scale, steps and sampler are meant, see `SampleConfig.at`.
        on_progress: told the images that are done.
        should_stop: asked between batches.

    Raises:
        Stopped: when `should_stop` answered True between batches.
    """
    labels = [index % len(subjects) for index in range(config.images)]
    whole: dict[str, Tensor] = {}
    seconds = 0.0
    evaluations = denoiser.network_evaluations
    for first in range(0, config.images, config.batch_size):
        if should_stop():
            raise Stopped(f"stopped after {first} of {config.images} images; run the same command again")
        rows = range(first, min(first + config.batch_size, config.images))
        ask = subjects.ask(labels[rows.start : rows.stop], config.guidance_scale)
        started = time.perf_counter()
        latents = _denoised(denoiser, subjects.base_model, config, rows, ask)
        seconds += time.perf_counter() - started
        batch = {"latents": latents, "images": to_bytes(subjects.base_model.decode(latents))}
        _put(batch, whole, rows, config.images)
        on_progress(rows.stop, config.images)
    return SampleSet(
        **whole,
        labels=torch.tensor(labels),
        nfe=(denoiser.network_evaluations - evaluations) / config.images,
        denoising_seconds=seconds,
    )


def _put(batch: Mapping[str, Tensor], whole: dict[str, Tensor], rows: range, count: int) -> None:
    """Put a batch at its rows of tensors on the CPU with `count` rows, made with the first: no set is held twice."""
    for name, part in batch.items():
        if name not in whole:
            whole[name] = torch.empty((count, *part.shape[1:]), dtype=part.dtype)
        whole[name][rows.start : rows.stop] = part


def _denoised(
    denoiser: Denoiser,
    base_model: BaseModel,
    config: SampleConfig,
    rows: range,
    ask: Ask,
) -> Tensor:
    """The latents of these images; on a GPU they are there when this returns."""
    latents = denoise(
        denoiser,
        build_scheduler(config.scheduler, base_model.scheduler_config, config.steps),
        ask,
        [derive_seed(config.seed, "sample", row) for row in rows],
        base_model.latent_shape,
    )
    if latents.is_cuda:
        torch.cuda.synchronize()
    return latents


def to_bytes(images: Float[Tensor, "batch channels height width"]) -> UInt8[Tensor, "batch height width channels"]:
    """[-1, 1] to 0..255 by rounding (truncation would darken every image by half a level)."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
