"""A LoRA that knows the guidance scale: its inner vector is multiplied by a gate of scale and timestep.

Ours. A LoRA (https://arxiv.org/abs/2106.09685) is one matrix `B A` for one guidance scale; here it is `B diag(g) A`,
where the gate `g` of as many entries as the rank follows from the call, as FiLM's factors do
(https://arxiv.org/abs/1709.07871). For one scale and timestep it is an ordinary LoRA, and costs what that costs.
"""

from collections.abc import Iterator
from functools import partial
from itertools import repeat
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from agd_core.basics.seeding import derive_seed
from agd_core.methods.agd.encoders import ConditionEncoder
from agd_core.methods.agd.layers import Codes, Prepared, cast
from agd_core.methods.attached import GuidedCall
from agd_core.methods.low_rank import Adaptable, LowRank, LowRankConfig, LowRankLayers
from agd_core.models.backbones import Backbone


class GatedLoraConfig(LowRankConfig):
    """A low-rank matrix beside every projection that is named; its gate comes from a code of width H, and is 0 at 1."""

    about: ClassVar[str] = (
        "It is a LoRA ([arXiv 2106.09685](https://arxiv.org/abs/2106.09685)) of the attention's projections whose "
        "inner vector is multiplied by a gate of guidance scale and timestep: the scale stays free to choose."
    )

    kind: Literal["gated-lora"] = "gated-lora"
    hidden_width: int = Field(24, ge=2, le=4096, multiple_of=2)
    """Width H of the code, which all layers share."""
    use_timestep: bool = True
    """Tell the gate the timestep, through the base model's own embedding."""
    guidance_frequency: float = Field(0.1, gt=0, le=1)
    """Factor on the guidance scale before its Fourier features; above 1 they become a hash of the scale."""

    def build(self, backbone: Backbone, seed: int = 0) -> "GatedLora":
        """One matrix and one gate for every layer of the network that is named.

        Raises:
            InputError: a target names none.
        """
        return GatedLora(self, backbone, seed)


class GatedLowRank(LowRank):
    """`B(g * A(x))` with `g = (guidance_scale - 1) (1 + W SiLU(code) + b)`, an entry for each of the rank's."""

    def __init__(self, beside: Adaptable, rank: int, hidden: int) -> None:
        super().__init__(beside, rank)
        self.modulation = nn.Linear(hidden, rank)

    def gate(self, codes: Codes, weight: Tensor) -> Tensor:
        """`[batch, rank]`, or `[steps, batch, rank]`."""
        gate: Tensor = 1 + self.modulation(nn.functional.silu(codes.pooled()))
        return gate * weight[:, None]

    def steps(self, codes: Codes, weight: Tensor, dtype: torch.dtype) -> Iterator[Prepared]:
        """Only the gate differs, or B where all rows have the same."""
        if codes.time is None:
            return repeat(cast(self.prepare(codes, weight), dtype))
        gates = self.gate(codes, weight)
        down, up = cast((self.lora_A.weight, self.up), dtype)
        if gates.shape[1] == 1:
            return ((down, each) for each in (gates.mT * self.up).to(dtype))
        return ((down, up, each) for each in gates.to(dtype))

    def prepared_size(self, width: int, rows: int) -> int:
        """A whole B where all rows are alike."""
        return self.lora_B.weight.numel() if rows == 1 else rows * len(self.lora_A.weight)


class GatedLora(LowRankLayers):
    """A gated low-rank layer for every one that is named, and the encoder of the code that their gates share.

    Args:
        config: rank and widths.
        backbone: the network, maybe on the meta device.
        seed: of the initial weights.
    """

    def __init__(self, config: GatedLoraConfig, backbone: Backbone, seed: int) -> None:
        layer = partial(GatedLowRank, hidden=config.hidden_width)
        super().__init__(config, backbone, layer, scale_output=True, seed=seed)
        time_width = backbone.embedding_widths[0] if config.use_timestep else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "gated-lora"))
            self.encoder = ConditionEncoder(config.hidden_width, time_width, None, frequency=config.guidance_frequency)

    def encode(self, call: GuidedCall) -> list[Codes]:
        """The code of scale and timestep, for every layer."""
        times = call.backbone.embed_timestep(call.timestep.flatten()).view(*call.timestep.shape, -1)
        return [self.encoder(call.ask.guidance_scale, times)] * len(self.sites)
