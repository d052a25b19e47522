"""Our default adapter: a bottleneck MLP on the hidden states, modulated by the encoded call.

Not in the AGD paper. It sees the hidden states, as the paper's cross-attention adapter does, but spends its
parameters on a transformation of them instead of on attention over three tokens. The modulation is FiLM
(https://arxiv.org/abs/1709.07871); the bottleneck follows Houlsby et al. (https://arxiv.org/abs/1902.00751).
docs/adapters.md compares the kinds under equal parameters.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from agd_core.methods.agd.base import AdapterConfig
from agd_core.methods.agd.encoders import pooled
from agd_core.methods.agd.layers import AdapterLayer, Codes, HiddenStates


class ModulatedMlpConfig(AdapterConfig):
    """A bottleneck per site; its scale and shift come from a shared code of width H."""

    kind: Literal["agd-modulated-mlp"] = "agd-modulated-mlp"
    hidden_width: int = Field(24, ge=2, le=4096, multiple_of=2)
    bottleneck_width: int = Field(48, ge=1, le=4096)
    """Width of the per-site bottleneck."""
    encoder: Literal["per-layer", "shared"] = "shared"
    scale_output: bool = True
    guidance_frequency: float = Field(0.1, gt=0, le=1)

    def build_layer(self, width: int) -> "ModulatedMlpLayer":
        """A bottleneck whose output projection starts at zero."""
        return ModulatedMlpLayer(width, self.bottleneck_width, self.hidden_width, leading=1 + self.use_timestep)


class ModulatedMlpLayer(AdapterLayer):
    """Down (I -> r), SiLU(h * (1 + scale) + shift) with scale and shift from the code, up (r -> I)."""

    def __init__(self, width: int, bottleneck: int, hidden: int, leading: int) -> None:
        super().__init__()
        self.leading = leading
        self.down = nn.Linear(width, bottleneck)
        self.modulation = nn.Linear(hidden, 2 * bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden_states: HiddenStates, codes: Codes) -> Tensor:
        """Offset `[batch, tokens, width]`."""
        code = nn.functional.silu(pooled(codes, self.leading))  # [B, H]
        scale, shift = self.modulation(code)[:, None].chunk(2, dim=-1)  # [B, 1, r] each
        inner = nn.functional.silu(torch.addcmul(shift, self.down(hidden_states), 1 + scale))  # [B, T, r]
        offset: Tensor = self.up(inner)
        return offset
