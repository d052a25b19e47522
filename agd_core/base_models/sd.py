"""Stable Diffusion 1.x and 2.x (https://arxiv.org/abs/2112.10752), predicting epsilon or v."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from agd_core.base_models.text_to_image import TextToImage, TextToImageConfig
from agd_core.condition import Condition


class SDConfig(TextToImageConfig):
    """A Stable Diffusion 1.x or 2.x base model: a diffusers folder or a hub id."""

    pipelines = ("StableDiffusionPipeline",)

    kind: Literal["sd"] = "sd"

    def open(self, folder: Path, device: torch.device) -> "SD":
        """Load the model from a local folder."""
        return SD(folder, self, device)


class SD(TextToImage):
    """A UNet with one text encoder. Whether it predicts epsilon or v stands in its scheduler's configuration."""

    network_class = "UNet2DConditionModel"

    def condition_of_tensors(self, encoded: Sequence[Tensor]) -> Condition:
        """The prompt's tokens."""
        return Condition(encoder_hidden_states=encoded[0])
