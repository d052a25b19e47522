"""Our default adapter: a bottleneck MLP on the hidden states, modulated by the encoded call.

Not in the AGD paper. It sees the hidden states, as the paper's cross-attention adapter does, but spends its
parameters on a transformation of them instead of on attention over three tokens. The modulation is FiLM
(https://arxiv.org/abs/1709.07871); the bottleneck follows Houlsby et al. (https://arxiv.org/abs/1902.00751).
docs/adapters.md compares the kinds under equal parameters.
"""

from collections.abc import Iterator
from itertools import repeat
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from agd_core.methods.agd.base import AdapterConfig
from agd_core.methods.agd.layers import AdapterLayer, Codes, Prepared, add_product, cast

_SILU_IS_1 = 1.2784645427610738
"""SiLU of it is 1."""


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
        return ModulatedMlpLayer(width, self.bottleneck_width, self.hidden_width)


class ModulatedMlpLayer(AdapterLayer):
    """Down (I -> r), SiLU(h * (1 + scale) + shift) with scale and shift from the code, up (r -> I)."""

    def __init__(self, width: int, bottleneck: int, hidden: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.modulation = nn.Linear(hidden, 2 * bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def prepare(self, codes: Codes, weight: Tensor) -> Prepared:
        """(factor, shift, down, up) and the weight `[batch, 1, 1]`, which is in up where all rows have the same."""
        return *self._modulated(codes), *self._weights(weight)

    def steps(self, codes: Codes, weight: Tensor, dtype: torch.dtype) -> Iterator[Prepared]:
        """Only factor and shift differ."""
        weights, modulated = cast(self._weights(weight), dtype), cast(self._modulated(codes), dtype)
        each = zip(*modulated, strict=True) if codes.time is not None else repeat(modulated)
        return ((*one, *weights) for one in each)

    def _modulated(self, codes: Codes) -> Prepared:
        """(factor, shift), `[batch, 1, r + 1]` each: a last channel is 1 behind the SiLU and carries the bias of up."""
        code = nn.functional.silu(codes.pooled())  # [B, H]
        scale, shift = self.modulation(code)[..., None, :].chunk(2, dim=-1)  # [B, 1, r] each
        factor = 1 + scale
        return pad(factor, (0, 1)), pad(torch.addcmul(shift, factor, self.down.bias), (0, 1), value=_SILU_IS_1)

    def _weights(self, weight: Tensor) -> Prepared:
        """Down and up, `[r + 1, I]` each, and the weight where rows differ."""
        down, up = pad(self.down.weight, (0, 0, 0, 1)), torch.cat([self.up.weight.t(), self.up.bias[None]])
        return (down, up * weight) if len(weight) == 1 else (down, up, weight[:, None, None])

    @staticmethod
    def add(output: Tensor, hidden_states: Tensor, prepared: Prepared) -> Tensor:
        """Down, modulation, SiLU, up."""
        factor, shift, down, up, *weight = prepared
        inner = nn.functional.linear(hidden_states, down)  # [B, T, r + 1]
        inner = nn.functional.silu(torch.addcmul(shift, inner, factor))
        return add_product(output, inner * weight[0] if weight else inner, up)
