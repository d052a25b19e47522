"""Low-rank adapters of the attention's own projections (LoRA, https://arxiv.org/abs/2106.09685).

A LoRA knows no guidance scale: it is trained for one, and its weight is the dial to others. The file has peft's names,
so peft and diffusers load it; diffusers' pipelines then guide in one pass with `guidance_scale=1`.
"""

from typing import ClassVar, Literal

from pydantic import Field

from agd_core.methods.agd.layers import Codes
from agd_core.methods.attached import GuidedCall
from agd_core.methods.low_rank import LowRank, LowRankConfig, LowRankLayers
from agd_core.models.backbones import Backbone


class LoraConfig(LowRankConfig):
    """A low-rank matrix beside every projection that is named.

    At another guidance scale than its own, its weight is (guidance_scale - 1) / (its own - 1): 0 without guidance.
    """

    about: ClassVar[str] = (
        "It is a LoRA ([arXiv 2106.09685](https://arxiv.org/abs/2106.09685)) of the attention's projections, in peft's "
        "format: at weight 1 it stands for one guidance scale, and its weight is the dial to others."
    )

    kind: Literal["lora"] = "lora"
    guidance_scale: float = Field(5.0, gt=1, le=1000)
    """The scale that it stands for at weight 1; best in the middle of what is collected."""

    def build(self, backbone: Backbone, seed: int = 0) -> "Lora":
        """One matrix for every layer of the network that is named.

        Raises:
            InputError: a target names none.
        """
        return Lora(self, backbone, seed)


class Lora(LowRankLayers):
    """A low-rank layer for every one that is named, with one weight for all of them.

    Args:
        config: rank and guidance scale.
        backbone: the network, maybe on the meta device.
        seed: of the initial weights.
    """

    def __init__(self, config: LoraConfig, backbone: Backbone, seed: int) -> None:
        super().__init__(config, backbone, LowRank, scale_output=False, seed=seed)
        self.guidance_scale = config.guidance_scale

    def encode(self, call: GuidedCall) -> list[Codes]:
        """The weight of every row, for every layer."""
        weight = (call.ask.guidance_scale - 1) / (self.guidance_scale - 1)
        return [Codes(weight[:, None, None])] * len(self.sites)
