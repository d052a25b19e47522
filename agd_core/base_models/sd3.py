"""Stable Diffusion 3 (https://arxiv.org/abs/2403.03206): flow matching and joint attention."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from agd_core.base_models.text_to_image import TextToImage, TextToImageConfig
from agd_core.condition import Condition
from agd_core.schedulers import IMAGE_TOKENS


class SD3Config(TextToImageConfig):
    """An SD3 base model: a diffusers folder or a hub id."""

    pipelines = ("StableDiffusion3Pipeline",)

    kind: Literal["sd3"] = "sd3"

    def open(self, folder: Path, device: torch.device) -> "SD3":
        """Load the model from a local folder."""
        return SD3(folder, self, device)


class SD3(TextToImage):
    """A transformer with three text encoders; the third, T5, may be missing from the folder."""

    network_class = "SD3Transformer2DModel"

    def __init__(self, folder: Path, config: SD3Config, device: torch.device) -> None:
        super().__init__(folder, config, device)
        if self.scheduler_config.get("use_dynamic_shifting"):
            patches = self.latent_shape[1] // int(self.backbone.network.config.patch_size)
            self.scheduler_config[IMAGE_TOKENS] = patches**2

    def condition_of_tensors(self, encoded: Sequence[Tensor]) -> Condition:
        """The tokens of all encoders in one row (77 of CLIP, 256 of T5), and the pooled prompt."""
        return Condition(encoder_hidden_states=encoded[0], pooled=encoded[1])
