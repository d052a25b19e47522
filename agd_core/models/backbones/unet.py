"""UNets with cross-attention to a prompt: Stable Diffusion 1.x, 2.x (https://arxiv.org/abs/2112.10752), predicting
epsilon or v, and XL (https://arxiv.org/abs/2307.01952), which takes the pooled prompt and image sizes beside it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from agd_core.basics.errors import InputError
from agd_core.models.backbones.base import Backbone, Inlet
from agd_core.models.condition import Condition
from agd_core.models.denoiser import Latents, PerRow, Prediction
from agd_core.models.doors.doors import GuidanceEmbedding

_SIZES = 6
"""(height, width, top, left, target height, target width)."""


class UNetBackbone(Backbone):
    """diffusers' UNet2DConditionModel; with `addition_embed_type` "text_time" it is SDXL's.

    Sites are all cross-attentions: 16 of 16 in SD 1.x and 2.x, 70 of 70 in SDXL.
    """

    class_name = "UNet2DConditionModel"
    component = "unet"
    pipelines = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
    leading_arguments = ("sample", "timestep", "encoder_hidden_states")
    door = GuidanceEmbedding()
    attention = "attn2"
    timestep_embedder = "time_embedding"
    encoded = ("encoder_hidden_states", "null_encoder_hidden_states", "pooled", "null_pooled")
    start_tokens = 1

    @property
    def embedding_widths(self) -> tuple[int, int]:
        """The timestep's embedding without SDXL's size conditions, and the prompt's."""
        return self.network.time_embedding.linear_2.out_features, self.network.config.cross_attention_dim

    @property
    def inlets(self) -> tuple[Inlet, ...]:
        """Where diffusers adds a ControlNet's residuals: every skip connection, then what enters the first up block."""
        ups, maps = self.network.up_blocks, self._skipped()
        places = [(block, skip) for block in reversed(range(len(ups))) for skip in range(len(ups[block].resnets))]
        if len(places) != len(maps):
            raise InputError("methods: no guide is known for a UNet whose halves have unequal numbers of blocks")
        skips = [
            Inlet(f"up_blocks.{block}", width, "map", shrunk, skip)
            for (block, skip), (width, shrunk) in zip(places, maps, strict=True)
        ]
        (width, shrunk) = maps[-1]
        return *skips, Inlet("up_blocks.0", width, "map", shrunk)

    def _skipped(self) -> list[tuple[int, int]]:
        """(channels, how many times shrunk) of every feature map that the encoder hands to the decoder."""
        shrunk, maps = 1, [(int(self.network.config.block_out_channels[0]), 1)]
        for block in self.network.down_blocks:
            maps += [(resnet.out_channels, shrunk) for resnet in block.resnets]
            if block.downsamplers:
                shrunk *= 2
                maps.append((block.downsamplers[0].out_channels, shrunk))
        return maps

    def call(self, latents: Latents, timestep: PerRow, condition: Condition) -> Prediction:
        """Epsilon or v."""
        arguments = self.prompt_arguments(condition)
        output: Tensor = self.network(latents.to(self.dtype), timestep, **arguments, return_dict=False)[0]
        return output.float()

    def prompt_arguments(self, condition: Condition) -> dict[str, Any]:
        """What this network and a ControlNet of it are told of the prompt, by the names of their arguments."""
        added = {}
        if _takes_sizes(self.network.config):
            pooled, time_ids = condition["pooled"], condition["time_ids"]
            added = {"text_embeds": pooled.to(self.dtype), "time_ids": time_ids.to(self.dtype)}
        prompt = condition["encoder_hidden_states"].to(self.dtype)
        return {"encoder_hidden_states": prompt, "added_cond_kwargs": added}

    def condition_of(self, arguments: Mapping[str, Any]) -> Condition:
        """The encoded prompt, and SDXL's pooled prompt and sizes; an IP-Adapter's image tokens are not among them."""
        added = arguments.get("added_cond_kwargs") or {}
        return Condition(
            encoder_hidden_states=arguments["encoder_hidden_states"],
            pooled=added.get("text_embeds"),
            time_ids=added.get("time_ids"),
        )

    def prompt_condition(self, encoded: Mapping[str, Tensor], pixels: int) -> Condition:
        """The prompt's tokens; for SDXL its pooled form and the sizes: original and target as sampled, not cropped."""
        if not _takes_sizes(self.network.config):
            return Condition(**encoded)
        prompt = encoded["encoder_hidden_states"]
        sizes = torch.tensor([[pixels, pixels, 0, 0, pixels, pixels]], dtype=torch.float32).to(prompt.device)
        return Condition(**encoded, time_ids=sizes.repeat(len(prompt), 1))

    @classmethod
    def empty_condition(cls, config: Mapping[str, Any], rows: int, tokens: int) -> Condition:
        """`[rows, tokens, width]`; for SDXL also `[rows, pooled width]` and `[rows, 6]`."""
        prompt = torch.empty(rows, tokens, config["cross_attention_dim"])
        if not _takes_sizes(config):
            return Condition(encoder_hidden_states=prompt)
        pooled = config["projection_class_embeddings_input_dim"] - _SIZES * config["addition_time_embed_dim"]
        sizes = torch.empty(rows, _SIZES)
        return Condition(encoder_hidden_states=prompt, pooled=torch.empty(rows, pooled), time_ids=sizes)

    def embed_timestep(self, timestep: PerRow) -> Float[Tensor, "batch time_width"]:
        """The UNet's timestep embedder."""
        features: Tensor = self.network.time_embedding(self.network.time_proj(timestep).to(self.dtype))
        return features.float()


def _takes_sizes(config: Mapping[str, Any]) -> bool:
    return config.get("addition_embed_type") == "text_time"
