"""What all families that take prompts share: text encoders and VAE that come and go, and a size."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from agd_core.backbones import backbone_of
from agd_core.base_models.base import BaseModel
from agd_core.base_models.decoder import Decoder
from agd_core.base_models.family import FamilyConfig
from agd_core.base_models.prompt_encoder import PromptEncoder
from agd_core.base_models.prompt_length import CutPrompts, cut_prompts
from agd_core.base_models.sources import load_component, read_json, stored_fingerprint
from agd_core.condition import Condition
from agd_core.denoiser import Latents
from agd_core.errors import InputError


class TextToImageConfig(FamilyConfig):
    """Settings of every family that takes prompts."""

    resolution: int | None = Field(None, ge=8, le=4096)
    """Pixels per side; None: as the network was trained."""


class TextToImage(BaseModel):
    """A network that takes prompts. Its text encoders and its VAE are loaded when they are first asked, rest on the
    CPU and visit the device; training asks neither.
    """

    network_class: ClassVar[str]
    """The network's class in diffusers."""

    def __init__(self, folder: Path, config: TextToImageConfig, device: torch.device) -> None:
        import diffusers

        super().__init__()
        self.device, self.dtype, self._folder = device, config.torch_dtype, folder
        self.decoder = Decoder(folder, device)
        self.decoder_fingerprint = self.decoder.fingerprint
        self.scheduler_config = read_json(folder / "scheduler" / "scheduler_config.json")
        self.encoder = PromptEncoder(folder, self.dtype, device)
        kind: Any = getattr(diffusers, self.network_class)
        part = folder / ("unet" if (folder / "unet").is_dir() else "transformer")
        network: Any = load_component(kind, part, self.dtype, device)
        self.backbone = backbone_of(network)
        self.fingerprint = stored_fingerprint(part)
        self.prediction_channels = network.config.out_channels
        side = self._latent_side(config, network.config.sample_size)
        self.latent_shape = (network.config.in_channels, side, side)
        self._check_channels(config.source)

    def _latent_side(self, config: TextToImageConfig, trained: int) -> int:
        if config.resolution is None:
            return trained
        if config.resolution % (8 * self.decoder.factor):
            allowed = 8 * self.decoder.factor
            raise InputError(f"base_model.resolution {config.resolution} is no multiple of {allowed}")
        return config.resolution // self.decoder.factor

    def _check_channels(self, source: str) -> None:
        taken, given = self.latent_shape[0], self.prediction_channels
        if taken != given:
            raise InputError(
                f"base model {source} takes {taken} channels and predicts {given}: an inpainting or image-conditioned "
                "network cannot be distilled from prompts alone; an adapter of its text-to-image sibling loads into it"
            )

    @property
    def pixels(self) -> int:
        """Pixels per side of an image."""
        return self.latent_shape[1] * self.decoder.factor

    def prompt_condition(self, prompts: Sequence[str]) -> Condition:
        """Through the stock pipeline's `encode_prompt`."""
        return self.condition_of_tensors(self.encoder.encode(prompts))

    def cut_prompts(self, prompts: Sequence[str]) -> CutPrompts | None:
        """As the stock pipeline cuts them."""
        return cut_prompts(self._folder, prompts)

    def null_condition(self, batch: int) -> Condition:
        """The stock pipeline's own "no prompt": an empty one, or zeros where the model says so."""
        return self._null.take(torch.zeros(batch, dtype=torch.int64, device=self.device))

    @cached_property
    def _null(self) -> Condition:
        return self.condition_of_tensors(self.encoder.encode_null())

    @abstractmethod
    def condition_of_tensors(self, encoded: Sequence[Tensor]) -> Condition:
        """The condition made of what the text encoders answered."""

    def decode(self, latents: Latents) -> Float[Tensor, "batch image_channels image_height image_width"]:
        """Through the VAE in float32."""
        return self.decoder.decode(latents)
