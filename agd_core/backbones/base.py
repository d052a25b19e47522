"""What must be known about a class of denoising networks: how it is called, what it embeds, where adapters sit.

A backbone looks at one of diffusers' networks and changes nothing of it. Base models, students and stock pipelines all
reach their network through it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from agd_core.condition import Condition
from agd_core.denoiser import Latents, PerRow, Prediction


@dataclass(frozen=True)
class AdapterSite:
    """A module whose output an adapter may add to."""

    path: str
    """Dotted path inside the network."""
    width: int
    """Channels of the hidden states that enter and leave it."""


@dataclass(frozen=True)
class NetworkCall:
    """What a network was called with, in our words."""

    latents: Tensor
    """`[batch, channels, height, width]`."""
    timestep: PerRow
    condition: Condition


class Backbone(ABC):
    """One of diffusers' denoising networks, in the words of this project."""

    class_name: ClassVar[str]
    """Its class in diffusers."""
    component: ClassVar[str]
    """What pipelines call it: "unet" or "transformer"."""
    leading_arguments: ClassVar[tuple[str, ...]]
    """Names of the arguments of its `forward` that callers may give by position."""

    def __init__(self, network: Any) -> None:
        self.network = network

    @property
    @abstractmethod
    def sites(self) -> tuple[AdapterSite, ...]:
        """Every attention that the AGD paper adapts, in the order of the network's modules."""

    @property
    @abstractmethod
    def embedding_widths(self) -> tuple[int, int]:
        """Widths of `embed_timestep` and of `embed_condition`."""

    @abstractmethod
    def call(self, latents: Latents, timestep: PerRow, condition: Condition) -> Prediction:
        """Evaluate the network once; its raw output in float32."""

    @abstractmethod
    def condition_of(self, arguments: Mapping[str, Any]) -> Condition:
        """The condition among the named arguments of a call."""

    @abstractmethod
    def embed_timestep(self, timestep: PerRow) -> Float[Tensor, "batch time_width"]:
        """The network's own timestep embedding, float32."""

    @abstractmethod
    def embed_condition(self, condition: Condition) -> Float[Tensor, "batch tokens condition_width"]:
        """The network's own view of the condition, one or more tokens per row, float32."""

    def named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments of a call by name."""
        return dict(zip(self.leading_arguments, args, strict=False)) | dict(kwargs)

    def read_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> NetworkCall:
        """What somebody else, such as a stock pipeline, called the network with."""
        arguments = self.named(args, kwargs)
        latents: Tensor = arguments[self.leading_arguments[0]]
        timestep = torch.as_tensor(arguments["timestep"], device=latents.device).float()
        return NetworkCall(latents, timestep.expand(latents.shape[0]), self.condition_of(arguments))

    @property
    def dtype(self) -> torch.dtype:
        """Precision in which the network runs."""
        dtype: torch.dtype = self.network.dtype
        return dtype

    @property
    def parameters(self) -> int:
        """All parameters of the network."""
        return sum(p.numel() for p in self.network.parameters())
