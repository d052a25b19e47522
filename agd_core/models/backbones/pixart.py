"""PixArt-Sigma (https://arxiv.org/abs/2403.04692): a transformer that attends to a T5 prompt."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from agd_core.models.backbones.base import Backbone, Inlet, NetworkCall
from agd_core.models.condition import Condition
from agd_core.models.denoiser import Latents, PerRow, Prediction
from agd_core.models.doors.doors import DoubledBatch

_NO_SIZES = {"resolution": None, "aspect_ratio": None}
"""What diffusers' pipeline tells the network of the image's size: nothing, unlike PixArt-Alpha's."""
_NEVER = -10_000.0
"""What diffusers adds to the attention to a token that does not count."""


class PixArtBackbone(Backbone):
    """diffusers' PixArtTransformer2DModel. A mask says which of a prompt's 300 tokens count. Sites: cross-attention."""

    class_name = "PixArtTransformer2DModel"
    component = "transformer"
    pipelines = ("PixArtSigmaPipeline",)
    leading_arguments = ("hidden_states", "encoder_hidden_states", "timestep")
    door = DoubledBatch(("PixArtSigmaPipeline",), conditional_half=1)
    attention = "attn2"
    time_embedder = "adaln_single.emb"
    encoded = (
        "encoder_hidden_states",
        "encoder_hidden_states_mask",
        "null_encoder_hidden_states",
        "null_encoder_hidden_states_mask",
    )

    @property
    def embedding_widths(self) -> tuple[int, int]:
        """The timestep's embedding, and T5's."""
        return int(self.network.inner_dim), int(self.network.config.caption_channels)

    @property
    def inlets(self) -> tuple[Inlet, ...]:
        """The later half of the blocks."""
        return self.latter_blocks(int(self.network.inner_dim))

    def through(
        self, blocks: Iterable[Callable[..., Any]], call: NetworkCall, offset: Tensor
    ) -> Iterator[Float[Tensor, "batch tokens width"]]:
        """All blocks share one embedded timestep and one projected prompt."""
        network, condition, rows = self.network, call.condition, len(call.latents)
        hidden = network.pos_embed(call.latents.to(self.dtype)) + offset
        embedded, _ = network.adaln_single(call.timestep, _NO_SIZES, batch_size=rows, hidden_dtype=self.dtype)
        prompt = network.caption_projection(condition["encoder_hidden_states"].to(self.dtype))
        bias = (1 - condition["encoder_hidden_states_mask"].to(self.dtype))[:, None] * _NEVER
        for block in blocks:
            hidden = block(hidden, encoder_hidden_states=prompt, encoder_attention_mask=bias, timestep=embedded)
            yield hidden

    def call(self, latents: Latents, timestep: PerRow, condition: Condition) -> Prediction:
        """Epsilon, and the variance behind it."""
        output: Tensor = self.network(
            latents.to(self.dtype),
            condition["encoder_hidden_states"].to(self.dtype),
            timestep,
            added_cond_kwargs=_NO_SIZES,
            encoder_attention_mask=condition["encoder_hidden_states_mask"],
            return_dict=False,
        )[0]
        return output.float()

    def condition_of(self, arguments: Mapping[str, Any]) -> Condition:
        """The encoded prompt and its mask."""
        mask = arguments["encoder_attention_mask"]
        return Condition(encoder_hidden_states=arguments["encoder_hidden_states"], encoder_hidden_states_mask=mask)

    @classmethod
    def empty_condition(cls, config: Mapping[str, Any], rows: int, tokens: int) -> Condition:
        """`[rows, tokens, width]` and int64 `[rows, tokens]`."""
        prompt, mask = torch.empty(rows, tokens, config["caption_channels"]), torch.empty(rows, tokens).long()
        return Condition(encoder_hidden_states=prompt, encoder_hidden_states_mask=mask)

    @classmethod
    def prompt_tokens(cls, encoders: Sequence[Mapping[str, Any]]) -> int:
        """What diffusers' pipeline asks of T5."""
        return 300
