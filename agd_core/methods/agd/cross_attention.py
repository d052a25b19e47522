"""AGD cross-attention adapter: hidden states attend to the encoded guidance scale, timestep and condition.

Source: arXiv 2503.07274; layer layout as in the authors' code (github.com/cristianpjensen/agd, models/attention.py).
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from agd_core.methods.agd.base import AdapterConfig
from agd_core.methods.agd.layers import AdapterLayer, Codes, Prepared, cast

_MAX_PERIOD = 10_000.0
_TIME = 1
"""Place of the timestep among the tokens."""


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

    def prepare(self, codes: Codes, weight: Tensor) -> Prepared:
        """Keys `[batch, I, code_tokens]` and values `[batch, code_tokens, I]`, see `_met`."""
        tokens = codes.tokens()
        keys, values = self._met(tokens + _positions(tokens.shape[1], tokens.shape[2], tokens.device))
        return keys.transpose(1, 2), values * weight[:, None, None]

    def steps(self, codes: Codes, weight: Tensor, dtype: torch.dtype) -> Iterator[Prepared]:
        """The same two tensors for all steps, into which each writes the timestep's key and value."""
        if codes.time is None:
            return repeat(cast(self.prepare(codes, weight), dtype))
        times = codes.time[:, 0] + _positions(2, codes.time.shape[-1], codes.time.device)[_TIME]  # [steps, 1, H]
        first = codes.time[0].expand(len(codes.scale), -1, -1)
        whole = cast(self.prepare(replace(codes, time=first), weight), dtype)
        return _rewritten(whole, self._met(times), weight)

    def _met(self, placed: Tensor) -> tuple[Tensor, Tensor]:
        """What the hidden states meet themselves, (keys, values) `[..., tokens, I]`.

        `(h Q) (t K)' = h (t K Q')'`, and the weights of attention sum to 1, so that the output's projection, with its
        bias, can go before the sum over tokens: few tokens are projected instead of all hidden states.
        """
        keys = self.key(placed) @ self.query.weight * self.key.out_features**-0.5
        return keys, self.out(self.value(placed))

    @staticmethod
    def add(output: Tensor, hidden_states: Tensor, prepared: Prepared) -> Tensor:
        """Single-head attention of the hidden states to the tokens."""
        keys, values = (each.expand(len(output), -1, -1) for each in prepared)
        attention = torch.bmm(hidden_states, keys).softmax(dim=-1)  # [B, T, S]
        return torch.baddbmm(output, attention, values)


def _rewritten(whole: Prepared, times: Prepared, weight: Tensor) -> Iterator[Prepared]:
    """The whole, which may be in half precision, with the key and value of every step's time, `[steps, 1, I]` each."""
    for key, value in zip(*times, strict=True):
        whole[0][..., _TIME] = key
        whole[1][:, _TIME] = value * weight[:, None]
        yield whole


def _positions(length: int, width: int, device: torch.device) -> Float[Tensor, "length width"]:
    """Fixed sinusoidal table: first half sines, second half cosines, for any length."""
    rates = torch.exp(-math.log(_MAX_PERIOD) * torch.arange(0, width, 2, device=device) / width)  # [H/2]
    angles = torch.arange(length, device=device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
