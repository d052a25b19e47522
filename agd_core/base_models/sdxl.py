"""Stable Diffusion XL (https://arxiv.org/abs/2307.01952): two text encoders, and image sizes as a condition."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from agd_core.base_models.text_to_image import TextToImage, TextToImageConfig
from agd_core.condition import Condition


class SDXLConfig(TextToImageConfig):
    """An SDXL base model: a diffusers folder or a hub id."""

    pipelines = ("StableDiffusionXLPipeline",)

    kind: Literal["sdxl"] = "sdxl"

    def open(self, folder: Path, device: torch.device) -> "SDXL":
        """Load the model from a local folder."""
        return SDXL(folder, self, device)


class SDXL(TextToImage):
    """A UNet that also takes the pooled prompt and the sizes: original and target as sampled here, nothing cropped."""

    network_class = "UNet2DConditionModel"

    def condition_of_tensors(self, encoded: Sequence[Tensor]) -> Condition:
        """The prompt's tokens, its pooled form, and (height, width, top, left, target height, target width)."""
        prompt, pooled = encoded
        sizes = torch.tensor([[self.pixels, self.pixels, 0, 0, self.pixels, self.pixels]], dtype=torch.float32)
        return Condition(
            encoder_hidden_states=prompt, pooled=pooled, time_ids=sizes.to(self.device).repeat(len(prompt), 1)
        )
