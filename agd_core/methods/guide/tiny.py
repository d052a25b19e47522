"""guide-tiny: a small pyramid of convolutions and attention beside the frozen base, about 1 % of its parameters.

The paper (https://arxiv.org/abs/2406.01954) has such a guide; its layout was not published, so this one is ours. It
sees the latents, and by the base's own embeddings the timestep and the prompt or class; the guidance scale has an
encoder. Every inlet has a 1x1 convolution that begins at zero, on the pyramid's feature map of the inlet's size.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from agd_core.methods.agd.encoders import ConditionEncoder
from agd_core.methods.agd.layers import Codes
from agd_core.methods.attached import GuidedCall
from agd_core.methods.guide.base import GuideConfig, GuideNetwork
from agd_core.models.backbones import Backbone, Inlet

_GROUPS = 8
"""Of every normalisation; channels are a multiple of it."""
_HEAD_CHANNELS = 32
"""Of an attention's head, or fewer where there are fewer channels."""


class TinyGuideConfig(GuideConfig):
    """A pyramid as narrow and as deep as is said here."""

    kind: Literal["guide-tiny"] = "guide-tiny"
    width_fraction: float = Field(0.2, gt=0, le=1)
    """Channels at each size of the pyramid, as a part of the base's there."""
    depth: int = Field(4, ge=1, le=64)
    """Residual blocks in all, spread over the pyramid's sizes; one at each at least."""
    code_width: int = Field(128, ge=2, le=4096, multiple_of=2)
    """Width H of the encoded guidance scale, timestep and condition."""
    guidance_frequency: float = Field(0.1, gt=0, le=1)
    """Factor on the guidance scale before its Fourier features; above 1 they become a hash of the scale."""

    def build_network(self, backbone: Backbone) -> "TinyGuide":
        """A pyramid with one level for every size of feature map at the base's inlets."""
        encoder = ConditionEncoder(self.code_width, *backbone.embedding_widths, frequency=self.guidance_frequency)
        return TinyGuide(encoder, self.code_width, self._levels(backbone.inlets), backbone)

    def _levels(self, inlets: Sequence[Inlet]) -> dict[int, tuple[int, int]]:
        """(channels, residual blocks) by how many times the sides are shrunk, the largest map first."""
        widths = {size: max(i.width for i in inlets if i.shrunk == size) for size in sorted({i.shrunk for i in inlets})}
        blocks = -(-self.depth // len(widths))
        return {size: (self._channels(width), blocks) for size, width in widths.items()}

    def _channels(self, width: int) -> int:
        return max(1, round(width * self.width_fraction / _GROUPS)) * _GROUPS


class TinyGuide(GuideNetwork):
    """The pyramid.

    Args:
        encoder: of guidance scale, timestep and condition.
        code_width: its width H.
        levels: see `TinyGuideConfig`.
        backbone: the base, of which the inlets' widths and the latents' channels are read.
    """

    def __init__(
        self, encoder: ConditionEncoder, code_width: int, levels: dict[int, tuple[int, int]], backbone: Backbone
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self._inlets, self._channels = backbone.inlets, backbone.latent_channels
        self._sizes = tuple(levels)
        self.levels, before, entering = nn.ModuleList(), 1, self._channels
        for size, (channels, blocks) in levels.items():
            self.levels.append(PyramidLevel(entering, channels, size // before, blocks, code_width, attends=size > 1))
            before, entering = size, channels
        self.heads = nn.ModuleList(nn.Conv2d(levels[i.shrunk][0], i.width, 1) for i in self._inlets)
        for parameter in self.heads.parameters():
            nn.init.zeros_(parameter)

    def forward(self, call: GuidedCall, latents: Tensor) -> Sequence[Tensor]:
        """What is added at every inlet."""
        backbone = call.backbone
        time, condition = backbone.embed_timestep(call.timestep), backbone.embed_condition(call.ask.condition)
        codes = self.encoder(call.ask.guidance_scale, time, condition)
        maps = dict(zip(self._sizes, self._maps(latents[:, : self._channels], codes), strict=True))
        found = (head(maps[inlet.shrunk]) for head, inlet in zip(self.heads, self._inlets, strict=True))
        return [
            each if inlet.layout == "map" else each.flatten(2).transpose(1, 2)
            for each, inlet in zip(found, self._inlets, strict=True)
        ]

    def _maps(self, hidden: Tensor, codes: Codes) -> Iterator[Tensor]:
        """The feature map of every level."""
        pooled, tokens = nn.functional.silu(codes.pooled()), codes.tokens()
        for level in self.levels:
            args = level, hidden, pooled, tokens
            hidden = checkpoint(*args, use_reentrant=False) if self.recomputes else level(*args[1:])
            yield hidden


class PyramidLevel(nn.Module):
    """One size: a convolution that shrinks, residual blocks, attention.

    Args:
        entering: channels of the level before.
        channels: of this one.
        stride: how many times it shrinks the sides.
        blocks: residual ones.
        code_width: H.
        attends: whether it has an attention.
    """

    def __init__(
        self, entering: int, channels: int, stride: int, blocks: int, code_width: int, *, attends: bool
    ) -> None:
        super().__init__()
        self.enter = nn.Conv2d(entering, channels, 3, stride, padding=1)
        self.blocks = nn.ModuleList(ModulatedResidual(channels, code_width) for _ in range(blocks))
        self.attention = MapAttention(channels, code_width) if attends else None

    def forward(self, hidden: Tensor, pooled: Tensor, tokens: Tensor) -> Tensor:
        """`[batch, channels, *sides]` from `[batch, entering, *sides]` and the codes `[batch, H]`, `[batch, n, H]`."""
        hidden = self.enter(hidden)
        for block in self.blocks:
            hidden = block(hidden, pooled)
        output: Tensor = hidden if self.attention is None else self.attention(hidden, tokens)
        return output


class ModulatedResidual(nn.Module):
    """Two 3x3 convolutions; the second one's normalisation is scaled and shifted by the code."""

    def __init__(self, channels: int, code_width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(_GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.modulation = nn.Linear(code_width, 2 * channels)
        self.second = nn.Sequential(nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, hidden: Tensor, pooled: Tensor) -> Tensor:
        """The same shape."""
        scale, shift = self.modulation(pooled)[:, :, None, None].chunk(2, dim=1)
        inner = self.norm(self.first(hidden))
        output: Tensor = hidden + self.second(inner * (1 + scale) + shift)
        return output


class MapAttention(nn.Module):
    """Attention of a feature map's pixels to one another and to the encoded call."""

    def __init__(self, channels: int, code_width: int) -> None:
        super().__init__()
        self.heads = max(1, channels // _HEAD_CHANNELS)
        while channels % self.heads:
            self.heads -= 1
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.query = nn.Linear(channels, channels, bias=False)
        self.own = nn.Linear(channels, 2 * channels, bias=False)
        self.told = nn.Linear(code_width, 2 * channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """The same shape; `tokens` are the codes `[batch, n, H]`."""
        pixels = self.norm(hidden).flatten(2).transpose(1, 2).contiguous()
        keys, values = torch.cat([self.own(pixels), self.told(tokens)], dim=1).chunk(2, dim=2)
        query, keys, values = (self._split(each) for each in (self.query(pixels), keys, values))
        mixed = nn.functional.scaled_dot_product_attention(query, keys, values)
        output: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return hidden + output.transpose(1, 2).reshape(hidden.shape)

    def _split(self, tokens: Tensor) -> Tensor:
        """`[batch, heads, n, channels of one]`."""
        rows, count, _ = tokens.shape
        return tokens.view(rows, count, self.heads, -1).transpose(1, 2)
