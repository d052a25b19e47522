"""Diffusion transformers with class labels (DiT, https://arxiv.org/abs/2212.09748)."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from agd_core.models.backbones.base import Backbone, Inlet, NetworkCall
from agd_core.models.condition import Condition
from agd_core.models.denoiser import Latents, PerRow, Prediction
from agd_core.models.doors.doors import DoubledBatch


class DiTBackbone(Backbone):
    """diffusers' DiT: one timestep and label embedder per block, of which the first is read. Sites: self-attention."""

    class_name = "DiTTransformer2DModel"
    component = "transformer"
    pipelines = ("DiTPipeline",)
    leading_arguments = ("hidden_states", "timestep", "class_labels")
    door = DoubledBatch(("DiTPipeline",), conditional_half=0)
    attention = "attn1"
    time_embedder = "transformer_blocks.0.norm1.emb"
    any_size = False

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self.classes = int(network.config.num_embeds_ada_norm)

    @property
    def width(self) -> int:
        """Channels of the hidden states."""
        return int(self.network.config.num_attention_heads * self.network.config.attention_head_dim)

    @property
    def embedding_widths(self) -> tuple[int, int]:
        """Both embeddings are as wide as the hidden states."""
        return self.width, self.width

    @property
    def inlets(self) -> tuple[Inlet, ...]:
        """The later half of the blocks."""
        return self.latter_blocks(self.width)

    def through(
        self, blocks: Iterable[Callable[..., Any]], call: NetworkCall, offset: Tensor
    ) -> Iterator[Float[Tensor, "batch tokens width"]]:
        """Every block embeds timestep and label by itself."""
        hidden = self.network.pos_embed(call.latents.to(self.dtype)) + offset
        for block in blocks:
            hidden = block(hidden, timestep=call.timestep, class_labels=call.condition["class_labels"])
            yield hidden

    def call(self, latents: Latents, timestep: PerRow, condition: Condition) -> Prediction:
        """Epsilon, and the variance behind it where it was learnt."""
        inputs, labels = latents.to(self.dtype), condition["class_labels"]
        output: Tensor = self.network(inputs, timestep=timestep, class_labels=labels, return_dict=False)[0]
        return output.float()

    def condition_of(self, arguments: Mapping[str, Any]) -> Condition:
        """The class labels."""
        return Condition(class_labels=arguments["class_labels"])

    @classmethod
    def empty_condition(cls, config: Mapping[str, Any], rows: int, tokens: int) -> Condition:
        """int64 `[rows]`."""
        return Condition(class_labels=torch.empty(rows, dtype=torch.int64))

    def embed_condition(self, condition: Condition) -> Float[Tensor, "batch 1 condition_width"]:
        """The first block's label table, one token per row."""
        features: Tensor = self.network.get_submodule(self.time_embedder).class_embedder(condition["class_labels"])
        return features.float().unsqueeze(1)

    def reachable_parameters(self, classes: int) -> int:
        """All but the rows of unused classes, of which every block has its own."""
        return self.parameters - (self.classes - classes) * self.width * len(self.sites)
