"""AGD cross-attention adapter: hidden states attend to the encoded guidance scale, timestep and condition.

Source: arXiv 2503.07274; layer layout as in the authors' code (github.com/cristianpjensen/agd, models/attention.py).
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from agd_core.methods.agd.base import AdapterConfig
from agd_core.methods.agd.layers import AdapterLayer, Codes, HiddenStates

_MAX_PERIOD = 10_000.0


class CrossAttentionConfig(AdapterConfig):
    """The authors' default for Stable Diffusion; their H is 320."""

    kind: Literal["agd-cross-attention"] = "agd-cross-attention"
    hidden_width: int = Field(320, ge=2, le=4096, multiple_of=2)
    encoder: Literal["per-layer", "shared"] = "per-layer"
    scale_output: bool = False

    def build_layer(self, width: int) -> "CrossAttentionLayer":
        """A single-head cross-attention whose output projection starts at zero."""
        return CrossAttentionLayer(width, self.hidden_width)


class CrossAttentionLayer(AdapterLayer):
    """q from the hidden states (I -> H), k and v from the codes (H -> H), one head, out (H -> I)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, hidden, bias=False)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.value = nn.Linear(hidden, hidden, bias=False)
        self.out = nn.Linear(hidden, width)
        for projection in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(projection.weight)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, hidden_states: HiddenStates, codes: Codes) -> Tensor:
        """Offset `[batch, tokens, width]`."""
        placed = codes + _positions(codes.shape[1], codes.shape[2], codes.device)  # [B, S, H]
        query, key, value = self.query(hidden_states), self.key(placed), self.value(placed)
        attended = nn.functional.scaled_dot_product_attention(
            query[:, None], key[:, None], value[:, None]
        )  # [B, 1, T, H]
        offset: Tensor = self.out(attended[:, 0])
        return offset


def _positions(length: int, width: int, device: torch.device) -> Float[Tensor, "length width"]:
    """Fixed sinusoidal table: first half sines, second half cosines, for any length."""
    rates = torch.exp(-math.log(_MAX_PERIOD) * torch.arange(0, width, 2, device=device) / width)  # [H/2]
    angles = torch.arange(length, device=device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
