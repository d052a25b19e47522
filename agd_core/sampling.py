"""Stage 3's core: sample images with any denoiser, counting what it cost."""

import time
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from pydantic import Field
from torch import Tensor

from agd_core.base_models.base import BaseModel
from agd_core.config import NOT_IDENTITY, Config
from agd_core.denoiser import Denoiser
from agd_core.denoising import denoise
from agd_core.progress import Progress, ShouldStop, Stopped, never, silent
from agd_core.schedulers import SchedulerName, build_scheduler
from agd_core.seeding import derive_seed


class SampleConfig(Config):
    """Which images are sampled for the evaluation; every method gets the same noise and classes."""

    images: int = Field(5000, ge=2)
    """Images per sample set, balanced over the classes."""
    guidance_scales: tuple[float, ...] = Field((2.0,), min_length=1)
    """Guidance scales at which CFG and the adapters are compared; the first is the headline."""
    scheduler: SchedulerName = "ddim"
    """Sampler."""
    steps: int = Field(50, ge=1, le=1000)
    """Sampler steps."""
    curve_steps: tuple[int, ...] = ()
    """Further step counts, at the headline scale, for the plot of Frechet distance over NFE."""
    batch_size: int = Field(250, ge=1, json_schema_extra=NOT_IDENTITY)
    """Images sampled together."""
    seed: int = Field(1, ge=0)
    """Seeds every image's noise."""


@dataclass(frozen=True)
class SampleSet:
    """Images with the latents they were decoded from, and their measured cost."""

    images: UInt8[Tensor, "images height width channels"]
    latents: Float[Tensor, "images latent_channels latent_height latent_width"]
    labels: Int[Tensor, " images"]
    nfe: float
    """Network evaluations per image, counted by the denoiser."""
    denoising_seconds: float
    """Wall time of denoising alone, without decoding."""


def sample_images(
    denoiser: Denoiser,
    base_model: BaseModel,
    config: SampleConfig,
    guidance_scale: float,
    steps: int,
    on_progress: Progress = silent,
    should_stop: ShouldStop = never,
) -> SampleSet:
    """Sample class-balanced images; image i has class `i % classes` and its own noise from (seed, i).

    Raises:
        Stopped: when `should_stop` answered True between batches.
    """
    evaluations, started = denoiser.network_evaluations, time.perf_counter()
    labels = [index % len(base_model.class_names) for index in range(config.images)]
    latents, decoding_seconds, pixels = [], 0.0, []
    for first in range(0, config.images, config.batch_size):
        if should_stop():
            raise Stopped(f"stopped after {first} of {config.images} images; run the same command again")
        rows = range(first, min(first + config.batch_size, config.images))
        clean = denoise(
            denoiser,
            build_scheduler(config.scheduler, base_model.scheduler_config, steps),
            base_model.class_condition([labels[row] for row in rows]),
            torch.full((len(rows),), guidance_scale, device=base_model.device),
            [derive_seed(config.seed, "sample", row) for row in rows],
            base_model.latent_shape,
        )
        latents.append(clean.cpu())
        decoding_started = time.perf_counter()
        pixels.append(to_bytes(base_model.decode(clean)).cpu())
        decoding_seconds += time.perf_counter() - decoding_started
        on_progress(rows.stop, config.images)
    return SampleSet(
        images=torch.cat(pixels),
        latents=torch.cat(latents),
        labels=torch.tensor(labels),
        nfe=(denoiser.network_evaluations - evaluations) / config.images,
        denoising_seconds=time.perf_counter() - started - decoding_seconds,
    )


def to_bytes(images: Float[Tensor, "batch channels height width"]) -> UInt8[Tensor, "batch height width channels"]:
    """[-1, 1] to 0..255 by rounding (truncation would darken every image by half a level)."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
