"""What both guides share: an external network, whose features come in at the second half of the frozen base.

Source: Plug-and-Play Diffusion Distillation (Hsiao et al., https://arxiv.org/abs/2406.01954). There a guide takes the
guidance scale and the text, and its features are added into the middle block and the decoder of a UNet. Ours: what is
added is multiplied by (guidance_scale - 1), so that the student is the base exactly at scale 1; and on transformers,
which have no decoder, the features join what enters each block of the later half.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn

from agd_core.basics.seeding import derive_seed
from agd_core.methods.attached import GuidedCall
from agd_core.methods.base import MethodConfig, Trained
from agd_core.methods.guide.attach import AttachedGuide
from agd_core.models.backbones import Backbone, Inlet
from agd_core.models.denoiser import Denoiser, rowwise
from agd_core.models.model import BaseModel


class GuideConfig(MethodConfig):
    """Settings that both guides have."""

    about: ClassVar[str] = (
        "It is the guide network of Plug-and-Play Diffusion Distillation "
        "([arXiv 2406.01954](https://arxiv.org/abs/2406.01954)), a network of its own beside the frozen base, whose "
        "features are added in the second half of the base."
    )
    tags: ClassVar[tuple[str, ...]] = ("plug-and-play-diffusion-distillation", "arxiv:2406.01954")

    @abstractmethod
    def build_network(self, backbone: Backbone) -> "GuideNetwork":
        """The external network; what it answers must be exactly zero before training.

        Raises:
            InputError: this base is none that the guide knows.
        """

    def build(self, backbone: Backbone, seed: int = 0) -> "Guide":
        """The guide of this base.

        Raises:
            InputError: this base is none that the guide knows.
        """
        inlets = backbone.inlets
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "guide"))
            return Guide(self, inlets, self.build_network(backbone))


class GuideNetwork(nn.Module, ABC):
    """An external network."""

    recomputes = False
    """Whether activations are computed again in the backward pass instead of being kept."""

    def recompute(self, shall: bool) -> None:
        """Keep no activations for the backward pass, or keep them."""
        self.recomputes = shall

    @abstractmethod
    def forward(self, call: GuidedCall, latents: Tensor) -> Sequence[Tensor]:
        """What it adds at every inlet of the base, in the inlet's layout.

        Args:
            call: timestep, condition, guidance scale, and the base, whose embeddings it may ask.
            latents: `[batch, channels, *sides]`, as the base is given them.
        """


class Guide(Trained):
    """A guide as it is trained and saved; its weights are float32, its arithmetic has the base's precision.

    Args:
        config: its kind and sizes.
        inlets: where its features come in.
        network: it makes them.
    """

    def __init__(self, config: GuideConfig, inlets: tuple[Inlet, ...], network: GuideNetwork) -> None:
        super().__init__(config)
        self.sites = self._inlets = inlets
        self.guide = network

    def attach(self, network: nn.Module) -> AttachedGuide:
        """Let the features into the network."""
        return AttachedGuide(network, self._inlets, self.features)

    @contextmanager
    def installed(self, model: BaseModel, checkpointing: bool = False) -> Iterator[Denoiser]:
        """As every method; with `checkpointing` the guide keeps no activations either."""
        self.guide.recompute(checkpointing)
        try:
            with super().installed(model, checkpointing) as student:
                yield student
        finally:
            self.guide.recompute(False)

    def features(self, call: GuidedCall) -> list[Tensor]:
        """What is added at every inlet, in the base's precision.

        Raises:
            ValueError: the call has no latents.
        """
        if call.latents is None:
            raise ValueError("a guide needs the latents of the call")
        dtype, excess = call.backbone.dtype, call.ask.guidance_scale - 1
        weight = excess.clamp(min=0) if call.off_at_one else excess
        with torch.autocast(call.latents.device.type, dtype, enabled=dtype is not torch.float32):
            found = self.guide(call, call.latents)
        return [(each * rowwise(weight, each)).to(dtype) for each in found]
