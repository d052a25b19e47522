"""What a base-model family must know about itself; adapters, samplers and stages never name a model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from agd_core.ask import Ask
from agd_core.backbones import Backbone
from agd_core.base_models.prompt_length import CutPrompts
from agd_core.condition import Condition
from agd_core.denoiser import Latents, PerRow, Prediction
from agd_core.digest import digest
from agd_core.schedulers import is_flow_matching


class BaseModel(ABC):
    """A frozen network with its decoder, scheduler and conditioning; itself the unguided `Denoiser`.

    It is asked either for classes (`class_names` and `class_condition`) or for prompts (`prompt_condition`).
    """

    backbone: Backbone
    """The denoising network, in eval mode, without gradients."""
    latent_shape: tuple[int, int, int]
    """(channels, height, width) of one latent."""
    prediction_channels: int
    """Channels of a prediction: those of a latent, and as many more where a learned variance is kept."""
    scheduler_config: dict[str, Any]
    """The diffusers scheduler configuration that the model was trained with."""
    class_names: tuple[str, ...] = ()
    """Names of the classes, empty for a model that takes prompts."""
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
    def network(self) -> nn.Module:
        """The denoising network itself."""
        module: nn.Module = self.backbone.network
        return module

    @property
    def network_evaluations(self) -> int:
        """Rows that went through the network so far."""
        return self._network_evaluations

    def predict(self, latents: Latents, timestep: PerRow, ask: Ask) -> Prediction:
        """The plain conditional prediction; the rest of the ask is ignored."""
        self._network_evaluations += latents.shape[0]
        return self.evaluate_network(latents, timestep, ask.condition)

    def evaluate_network(self, latents: Latents, timestep: PerRow, condition: Condition) -> Prediction:
        """Call the network once; what is not kept of its answer is cut off."""
        prediction: Tensor = self.backbone.call(latents, timestep, condition)
        return prediction[:, : self.prediction_channels]

    @abstractmethod
    def null_condition(self, batch: int) -> Condition:
        """The condition that means "no condition", for a batch."""

    def class_condition(self, labels: Sequence[int]) -> Condition:
        """The condition of class labels, one row each; only of models with classes."""
        raise TypeError(f"{type(self).__name__} takes prompts, not classes")

    def prompt_condition(self, prompts: Sequence[str]) -> Condition:
        """The condition of prompts, one row each; only of models that take prompts."""
        raise TypeError(f"{type(self).__name__} takes classes, not prompts")

    def cut_prompts(self, prompts: Sequence[str]) -> CutPrompts | None:
        """What the text encoders do not read of prompts; None where they read all of them whole."""
        return None

    @abstractmethod
    def decode(self, latents: Latents) -> Float[Tensor, "batch image_channels image_height image_width"]:
        """Scaled latents to images in [-1, 1]."""

    @property
    def parameters(self) -> int:
        """Parameters of the network that its inputs can reach (rows of unused classes do not count)."""
        return self.backbone.parameters

    @property
    def prediction_type(self) -> str:
        """What the network predicts: "epsilon", "v_prediction" or "flow"."""
        if is_flow_matching(self.scheduler_config):
            return "flow"
        return str(self.scheduler_config.get("prediction_type", "epsilon"))

    def network_digest(self) -> str:
        """Identity of the network as it runs: its weights, its precision, and what is kept of its answer."""
        parts = {"weights": self.fingerprint, "dtype": str(self.dtype), "channels": self.prediction_channels}
        return digest(parts)

    def pipeline_digest(self) -> str:
        """Identity of everything that shapes an image: network, precision, decoder, scheduler, size."""
        scheduler = {key: value for key, value in self.scheduler_config.items() if not key.startswith("_")}
        parts = {"network": self.network_digest(), "decoder": self.decoder_fingerprint, "scheduler": scheduler}
        return digest({**parts, "predicts": self.prediction_type, "latent_shape": list(self.latent_shape)})
