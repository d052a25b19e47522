"""What every adapter kind shares: its configuration, and the module of layers and encoders."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from agd_core.basics.seeding import derive_seed
from agd_core.methods.agd.attach import AttachedLayers
from agd_core.methods.agd.encoders import ConditionEncoder
from agd_core.methods.agd.layers import AdapterLayer, Codes
from agd_core.methods.attached import GuidedCall
from agd_core.methods.base import MethodConfig, Trained
from agd_core.models.backbones import AdapterSite, Backbone


class AdapterConfig(MethodConfig):
    """Settings that every adapter kind has; `kind` and the defaults come from the kind's own file."""

    about: ClassVar[str] = (
        "The method is Adapter Guidance Distillation (AGD), [arXiv 2503.07274](https://arxiv.org/abs/2503.07274): the "
        "base model stays as it is, and the guidance scale stays free to choose."
    )
    tags: ClassVar[tuple[str, ...]] = ("adapter-guidance-distillation", "arxiv:2503.07274")
    encoder_inner_norm: ClassVar[bool] = False
    """Whether the guidance-scale MLP has a LayerNorm inside, see `ScaleEncoder`."""

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

    def build(self, backbone: Backbone, seed: int = 0) -> "Adapter":
        """An adapter in every attention block that the paper adapts."""
        return Adapter(self, backbone.sites, backbone.embedding_widths, seed)


class Adapter(Trained):
    """All layers of one adapter, one per site, with their encoders.

    Args:
        config: the adapter's kind and sizes.
        sites: where it attaches.
        embedding_widths: widths of the network's timestep and condition embeddings.
        seed: initialises the weights; equal seeds give equal adapters.
    """

    def __init__(
        self, config: AdapterConfig, sites: Sequence[AdapterSite], embedding_widths: tuple[int, int], seed: int = 0
    ) -> None:
        super().__init__(config)
        self.sites = tuple(sites)
        self._scale_output = config.scale_output
        encoders = 1 if config.encoder == "shared" else len(self.sites)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "adapter"))
            self.encoders = nn.ModuleList(config.build_encoder(*embedding_widths) for _ in range(encoders))
            self.layers = nn.ModuleList(config.build_layer(site.width) for site in self.sites)

    def attach(self, network: nn.Module) -> AttachedLayers:
        """Add every layer's offset to what its site puts out."""
        return AttachedLayers(network, self.sites, self.layers, self.encode, self._scale_output)

    def encode(self, call: GuidedCall) -> list[Codes]:
        """The encoded call for every layer; with a shared encoder it is computed once."""
        time_features = call.backbone.embed_timestep(call.timestep.flatten())
        time_features = time_features.view(*call.timestep.shape, -1)
        condition_features = call.backbone.embed_condition(call.ask.condition)
        codes = [encoder(call.ask.guidance_scale, time_features, condition_features) for encoder in self.encoders]
        return codes * (len(self.layers) // len(codes))
