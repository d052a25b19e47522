"""What every adapter kind shares: its configuration, its layer interface, and the network of layers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from agd_core.adapters.encoders import ConditionEncoder
from agd_core.backbones.base import AdapterSite
from agd_core.config import NOT_IDENTITY, Config
from agd_core.denoiser import PerRow
from agd_core.seeding import derive_seed

HiddenStates = Float[Tensor, "batch tokens width"]
Codes = Float[Tensor, "batch code_tokens hidden"]


@dataclass(frozen=True)
class AdapterInputs:
    """What an adapter learns about one network call, beside the hidden states at its site."""

    guidance_scale: PerRow
    time_features: Float[Tensor, "batch time_width"]
    condition_features: Float[Tensor, "batch condition_tokens condition_width"]


class AdapterLayer(nn.Module, ABC):
    """Computes what is added to the output of one attention block."""

    @abstractmethod
    def forward(self, hidden_states: HiddenStates, codes: Codes) -> Tensor:
        """Offset `[batch, tokens, width]` (or `[batch, 1, width]`) from the block's input and the encoded call."""


class AdapterConfig(Config, ABC):
    """Settings that every adapter kind has; `kind` and the defaults come from the kind's own file."""

    encoder_inner_norm: ClassVar[bool] = False
    """Whether the guidance-scale MLP has a LayerNorm inside, see `ScaleEncoder`."""

    name: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64, json_schema_extra=NOT_IDENTITY)
    """How reports call this adapter, and its folder's name; its kind where not given."""
    hidden_width: int = Field(ge=2, le=4096, multiple_of=2)
    """Width H of the adapter's own hidden layers."""
    use_timestep: bool = True
    """Tell the adapter the timestep, through the base model's own embedding."""
    use_condition: bool = True
    """Tell the adapter the class or prompt, through the base model's own embedding."""
    encoder: Literal["per-layer", "shared"]
    """One condition encoder per layer (the authors' form) or one for all layers (far fewer parameters)."""
    scale_output: bool
    """Multiply what is added by (guidance_scale - 1): the student is then the base model exactly at scale 1."""
    guidance_frequency: float = Field(1.0, gt=0, le=1)
    """Factor on the guidance scale before its Fourier features; above 1 they become a hash of the scale."""

    @property
    def method(self) -> str:
        """The kind, e.g. "agd-offset"."""
        return str(self.model_dump()["kind"])

    @property
    def label(self) -> str:
        """The name, or the kind where no name is given."""
        return self.name or self.method

    @abstractmethod
    def build_layer(self, width: int) -> AdapterLayer:
        """One layer for a site of this width; it must add exactly zero before training."""

    def build_encoder(self, time_width: int, condition_width: int) -> ConditionEncoder:
        """The encoder of guidance scale, timestep and condition that this kind uses."""
        return ConditionEncoder(
            self.hidden_width,
            time_width if self.use_timestep else None,
            condition_width if self.use_condition else None,
            frequency=self.guidance_frequency,
            inner_norm=self.encoder_inner_norm,
        )


class Adapter(nn.Module):
    """All layers of one adapter, one per site, with their encoders; float32 whatever the base runs in.

    Args:
        config: the adapter's kind and sizes.
        sites: where it attaches, from the base model.
        embedding_widths: widths of the base model's timestep and condition embeddings.
        seed: initialises the weights; equal seeds give equal adapters.
    """

    def __init__(
        self, config: AdapterConfig, sites: Sequence[AdapterSite], embedding_widths: tuple[int, int], seed: int = 0
    ) -> None:
        super().__init__()
        self.config = config
        self.sites = tuple(sites)
        encoders = 1 if config.encoder == "shared" else len(self.sites)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "adapter"))
            self.encoders = nn.ModuleList(config.build_encoder(*embedding_widths) for _ in range(encoders))
            self.layers = nn.ModuleList(config.build_layer(site.width) for site in self.sites)

    def encode(self, inputs: AdapterInputs) -> list[Codes]:
        """The encoded call for every layer; with a shared encoder it is computed once."""
        codes = [
            encoder(inputs.guidance_scale, inputs.time_features, inputs.condition_features) for encoder in self.encoders
        ]
        return codes * (len(self.layers) // len(codes))

    def parameter_count(self) -> int:
        """Trainable parameters."""
        return sum(p.numel() for p in self.parameters())
