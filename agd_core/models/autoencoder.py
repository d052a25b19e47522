"""The VAE between images and latents: loaded when it is first needed, and on the device only while it works."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from agd_core.models.denoiser import Latents
from agd_core.models.reading import load_component, read_settings, stored_fingerprint, weights_variant

PIXELS_TOGETHER = 1 << 20
"""Images are held together up to so many pixels, which bounds memory: one image of 1024 x 1024."""
Pictures = Float[Tensor, "batch image_channels *sides"]


class Autoencoder:
    """The VAE of a diffusers folder, in float32 whatever the network runs in: SDXL's overflows in float16.

    Args:
        folder: of the pipeline.
        device: where it works; it rests on the CPU.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._folder, self._device = folder / "vae", device
        config = read_settings(self._folder / "config.json")
        self.factor: int = 2 ** (len(config["block_out_channels"]) - 1)
        """Pixels per latent element and side."""
        self.image_channels: int = config.get("in_channels", 3)
        """1 for grey images, 3 for colour."""
        self.fingerprint = stored_fingerprint(self._folder)

    @cached_property
    def vae(self) -> Any:
        """The network itself."""
        from diffusers import AutoencoderKL

        return load_component(
            AutoencoderKL, self._folder, torch.float32, torch.device("cpu"), weights_variant(self._folder)
        )

    @torch.no_grad()
    def decode(self, latents: Latents) -> Pictures:
        """Latents as samplers leave them to images in [-1, 1]."""
        rows = max(1, PIXELS_TOGETHER // (math.prod(latents.shape[2:]) * self.factor**2))
        scale, shift = self._statistics(latents)
        with self._on_device() as vae:
            return torch.cat(
                [
                    vae.decode(latents[first : first + rows].float() * scale + shift).sample.clamp(-1, 1)
                    for first in range(0, len(latents), rows)
                ]
            )

    @torch.no_grad()
    def encode(self, images: Pictures) -> Latents:
        """Images in [-1, 1] to latents as samplers leave them, float32: the means of the encoder's posterior.

        Each image goes through by itself, so its latents do not depend on the images beside it.
        """
        with self._on_device() as vae:
            means = torch.cat(
                [vae.encode(image.to(self._device)).latent_dist.mean for image in torch.split(images.float(), 1)]
            )
        scale, shift = self._statistics(means)
        return (means - shift) / scale

    @contextmanager
    def _on_device(self) -> Iterator[Any]:
        self.vae.to(self._device)
        try:
            yield self.vae
        finally:
            self.vae.to("cpu")

    def _statistics(self, latents: Latents) -> tuple[Tensor, Tensor]:
        """Factor and summand that undo what encoding did: by channel where the VAE names statistics."""
        config = self.vae.config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        scale = torch.tensor(std if mean and std else [1.0]) / config.scaling_factor
        shift = torch.tensor(mean if mean and std else [config.get("shift_factor") or 0.0])
        sides = (1,) * (latents.ndim - 2)
        return scale.view(-1, *sides).to(latents.device), shift.view(-1, *sides).to(latents.device)
