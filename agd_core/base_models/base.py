"""What a base-model family must know about itself; adapters, samplers and stages never name a model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from agd_core.condition import Condition
from agd_core.denoiser import Latents, PerRow
from agd_core.digest import digest


@dataclass(frozen=True)
class AdapterSite:
    """A module whose output an adapter may add to."""

    path: str
    """Dotted path inside the network."""
    width: int
    """Channels of the hidden states that enter and leave it."""


class BaseModel(ABC):
    """A frozen network with its decoder, scheduler and conditioning; itself the unguided `Denoiser`."""

    network: nn.Module
    """The denoising network, in eval mode, without gradients."""
    latent_shape: tuple[int, int, int]
    """(channels, height, width) of one latent."""
    scheduler_config: dict[str, Any]
    """The diffusers scheduler configuration that the model was trained with."""
    class_names: tuple[str, ...]
    """Names of the classes, empty for a model without classes."""
    device: torch.device
    dtype: torch.dtype
    """Precision in which the network runs."""
    fingerprint: str
    """Identity of the network's weights as they are stored; the precision they are loaded in does not matter."""
    decoder_fingerprint: str
    """The same for the decoder."""

    def __init__(self) -> None:
        self._network_evaluations = 0

    @property
    def network_evaluations(self) -> int:
        """Rows that went through the network so far."""
        return self._network_evaluations

    def predict(self, latents: Latents, timestep: PerRow, condition: Condition, guidance_scale: PerRow) -> Latents:
        """The plain conditional prediction; `guidance_scale` is ignored."""
        self._network_evaluations += latents.shape[0]
        return self.evaluate_network(latents, timestep, condition)

    @abstractmethod
    def evaluate_network(self, latents: Latents, timestep: PerRow, condition: Condition) -> Latents:
        """Call the network once."""

    @abstractmethod
    def null_condition(self, batch: int) -> Condition:
        """The condition that means "no condition", for a batch."""

    @abstractmethod
    def class_condition(self, labels: Sequence[int]) -> Condition:
        """The condition of class labels, one row each."""

    @abstractmethod
    def decode(self, latents: Latents) -> Float[Tensor, "batch image_channels image_height image_width"]:
        """Scaled latents to images in [-1, 1]."""

    @abstractmethod
    def adapter_sites(self) -> tuple[AdapterSite, ...]:
        """Where adapters may add: every attention the AGD paper adapts."""

    @abstractmethod
    def embed_timestep(self, timestep: PerRow) -> Float[Tensor, "batch time_width"]:
        """The base model's own timestep embedding."""

    @abstractmethod
    def embed_condition(self, condition: Condition) -> Float[Tensor, "batch tokens condition_width"]:
        """The base model's own embedding of the condition, one or more tokens per row."""

    @property
    @abstractmethod
    def embedding_widths(self) -> tuple[int, int]:
        """Widths of `embed_timestep` and of `embed_condition`."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """Parameters of the network that its inputs can reach (rows of unused classes do not count)."""

    def network_digest(self) -> str:
        """Identity of the network as it runs: its weights and its precision."""
        return digest({"weights": self.fingerprint, "dtype": str(self.dtype)})

    def pipeline_digest(self) -> str:
        """Identity of everything that shapes an image: network, precision, decoder, scheduler."""
        scheduler = {key: value for key, value in self.scheduler_config.items() if not key.startswith("_")}
        parts = {"network": self.network_digest(), "decoder": self.decoder_fingerprint, "scheduler": scheduler}
        return digest(parts)
