"""Joint-attention transformers with flow matching (Stable Diffusion 3, https://arxiv.org/abs/2403.03206)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from agd_core.models.backbones.base import Backbone
from agd_core.models.condition import Condition
from agd_core.models.denoiser import Latents, PerRow, Prediction
from agd_core.models.doors.doors import DoubledBatch

_T5_TOKENS = 256
"""What diffusers' pipeline asks of T5, whatever T5 could take."""


class SD3Backbone(Backbone):
    """diffusers' SD3Transformer2DModel. Adapters add to the image stream of its joint attention."""

    class_name = "SD3Transformer2DModel"
    component = "transformer"
    pipelines = ("StableDiffusion3Pipeline",)
    leading_arguments = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep")
    door = DoubledBatch(
        ("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline"),
        conditional_half=1,
    )
    attention = "attn"
    time_embedder = "time_text_embed"
    encoded = ("encoder_hidden_states", "null_encoder_hidden_states", "pooled", "null_pooled")

    @property
    def embedding_widths(self) -> tuple[int, int]:
        """The timestep's embedding without the pooled prompt, and the prompt's."""
        return int(self.network.inner_dim), int(self.network.config.joint_attention_dim)

    def call(self, latents: Latents, timestep: PerRow, condition: Condition) -> Prediction:
        """The flow's velocity."""
        prompt, pooled = condition["encoder_hidden_states"], condition["pooled"]
        output: Tensor = self.network(
            latents.to(self.dtype), prompt.to(self.dtype), pooled.to(self.dtype), timestep, return_dict=False
        )[0]
        return output.float()

    def condition_of(self, arguments: Mapping[str, Any]) -> Condition:
        """The encoded prompt and its pooled form."""
        return Condition(
            encoder_hidden_states=arguments["encoder_hidden_states"], pooled=arguments["pooled_projections"]
        )

    @classmethod
    def empty_condition(cls, config: Mapping[str, Any], rows: int, tokens: int) -> Condition:
        """`[rows, tokens, width]` and `[rows, pooled width]`."""
        prompt = torch.empty(rows, tokens, config["joint_attention_dim"])
        return Condition(encoder_hidden_states=prompt, pooled=torch.empty(rows, config["pooled_projection_dim"]))

    @classmethod
    def prompt_tokens(cls, encoders: Sequence[Mapping[str, Any]]) -> int:
        """CLIP's tokens and behind them T5's, or as many zeros where T5 is missing."""
        return super().prompt_tokens(encoders) + _T5_TOKENS

    def image_tokens(self, latent_shape: Sequence[int]) -> int:
        """One for every patch."""
        return math.prod(latent_shape[1:]) // int(self.network.config.patch_size) ** 2
