"""AGD offset adapter: one vector per call, added to every token; it does not look at the hidden states.

Source: arXiv 2503.07274; layer layout as in the authors' code (github.com/cristianpjensen/agd, models/additive.py).
"""

from collections.abc import Iterator
from itertools import repeat
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from agd_core.methods.agd.base import AdapterConfig
from agd_core.methods.agd.encoders import relu_mlp
from agd_core.methods.agd.layers import AdapterLayer, Codes, Prepared, cast


class OffsetConfig(AdapterConfig):
    """The authors' default for DiT; their H is 256."""

    encoder_inner_norm: ClassVar[bool] = True

    kind: Literal["agd-offset"] = "agd-offset"
    hidden_width: int = Field(256, ge=2, le=4096, multiple_of=2)
    encoder: Literal["per-layer", "shared"] = "per-layer"
    scale_output: bool = False

    def build_layer(self, width: int) -> "OffsetLayer":
        """An MLP whose last linear layer starts at zero."""
        return OffsetLayer(width, self.hidden_width)


class OffsetLayer(AdapterLayer):
    """Summed codes through Linear, ReLU, LayerNorm, Linear (H -> H -> I)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.net = relu_mlp(hidden, hidden, width, nn.LayerNorm(hidden))
        for parameter in self.net[-1].parameters():
            nn.init.zeros_(parameter)

    def prepare(self, codes: Codes, weight: Tensor) -> Prepared:
        """The whole offset `[batch, 1, width]`, the same for all tokens."""
        offset: Tensor = self.net(codes.pooled())
        return ((offset * weight[:, None])[..., None, :],)

    def steps(self, codes: Codes, weight: Tensor, dtype: torch.dtype) -> Iterator[Prepared]:
        """Every step's offset."""
        (offsets,) = cast(self.prepare(codes, weight), dtype)
        return zip(offsets, strict=True) if codes.time is not None else repeat((offsets,))

    @staticmethod
    def add(output: Tensor, hidden_states: Tensor, prepared: Prepared) -> Tensor:
        """The sum."""
        return output + prepared[0]
