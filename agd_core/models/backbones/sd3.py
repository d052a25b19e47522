"""Joint-attention transformers with flow matching (Stable Diffusion 3, https://arxiv.org/abs/2403.03206)."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from agd_core.models.backbones.base import Backbone, Inlet, NetworkCall
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
    other_stream = ("attn.add_q_proj", "attn.norm_added_q", "attn.to_add_out", "ff_context")
    encoded = ("encoder_hidden_states", "null_encoder_hidden_states", "pooled", "null_pooled")
    start_tokens = 1

    @property
    def embedding_widths(self) -> tuple[int, int]:
        """The timestep's embedding without the pooled prompt, and the prompt's."""
        return int(self.network.inner_dim), int(self.network.config.joint_attention_dim)

    @property
    def inlets(self) -> tuple[Inlet, ...]:
        """The later half of the blocks, of whose two streams the image's."""
        return self.latter_blocks(int(self.network.inner_dim))

    def through(
        self, blocks: Iterable[Callable[..., Any]], call: NetworkCall, offset: Tensor
    ) -> Iterator[Float[Tensor, "batch tokens width"]]:
        """The prompt's tokens go through the blocks beside the image's."""
        network, condition = self.network, call.condition
        hidden = network.pos_embed(call.latents.to(self.dtype)).contiguous() + offset
        embedded = network.time_text_embed(call.timestep, condition["pooled"].to(self.dtype))
        prompt = network.context_embedder(condition["encoder_hidden_states"].to(self.dtype))
        for block in blocks:
            prompt, hidden = block(hidden_states=hidden, encoder_hidden_states=prompt, temb=embedded)
            yield hidden

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
