"""Joint-attention transformers with flow matching (Stable Diffusion 3, https://arxiv.org/abs/2403.03206)."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from agd_core.backbones.base import AdapterSite, Backbone
from agd_core.condition import Condition
from agd_core.denoiser import Latents, PerRow, Prediction


class SD3Backbone(Backbone):
    """diffusers' SD3Transformer2DModel. Adapters add to the image stream of its joint attention."""

    class_name = "SD3Transformer2DModel"
    component = "transformer"
    leading_arguments = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep")

    @property
    def sites(self) -> tuple[AdapterSite, ...]:
        """The joint attention of every block."""
        blocks, width = len(self.network.transformer_blocks), int(self.network.inner_dim)
        return tuple(AdapterSite(f"transformer_blocks.{i}.attn", width) for i in range(blocks))

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

    def embed_timestep(self, timestep: PerRow) -> Float[Tensor, "batch time_width"]:
        """The transformer's timestep embedder."""
        embedder = self.network.time_text_embed
        features: Tensor = embedder.timestep_embedder(embedder.time_proj(timestep).to(self.dtype))
        return features.float()

    def embed_condition(self, condition: Condition) -> Float[Tensor, "batch tokens condition_width"]:
        """The prompt's tokens as the text encoders give them."""
        return condition["encoder_hidden_states"].float()
