"""A model at a size and in a precision: what goes into its network, in shapes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agd_core.condition import Condition
from agd_core.full_size import FullSizeModel
from agd_core.peak_memory import LivingTensors

_CUDA_GRANULARITY = 512
_TIME_IDS = 6


@dataclass(frozen=True)
class Sized:
    """A model at a size and in a precision."""

    model: FullSizeModel
    latent_side: int
    """Height and width of a latent."""
    dtype: torch.dtype = torch.float32
    """Precision in which the network runs."""
    slots: int = 1
    """Latents' worth of channels that are kept of the network's answer: 2 where a learned variance is kept."""
    on_cuda: bool = True
    """Round every allocation as CUDA's allocator does, and step the optimizer over all parameters at once."""

    def living(self) -> LivingTensors:
        """A fresh count."""
        return LivingTensors(_CUDA_GRANULARITY if self.on_cuda else 1)

    def network(self) -> Any:
        """The denoising network in its precision, on the meta device."""
        return nn.Module.to(self.model.network(), self.dtype)

    def latents(self, rows: int, *axes: int) -> Tensor:
        """float32 `[rows, *axes, channels, side, side]`."""
        channels = self.model.network_config["in_channels"]
        return torch.empty(rows, *axes, channels, self.latent_side, self.latent_side)

    def conditions(self, rows: int) -> Condition:
        """What the model is conditioned on, in the type in which a plan holds it."""
        dtype = torch.float16 if self.dtype is torch.float16 else torch.float32
        make = _CONDITIONS[str(self.model.network_config["_class_name"])]
        tensors = make(self.model.network_config, rows, self.model.prompt_tokens)
        return Condition(**{k: t.to(dtype) if t.is_floating_point() else t for k, t in tensors.items()})

    def kept(self, prediction: Tensor) -> Tensor:
        """What is kept of the network's answer."""
        return prediction[:, : self.slots * self.model.network_config["in_channels"]]


def _labels(config: Mapping[str, Any], rows: int, tokens: int) -> dict[str, Tensor]:
    return {"class_labels": torch.empty(rows, dtype=torch.int64)}


def _unet_conditions(config: Mapping[str, Any], rows: int, tokens: int) -> dict[str, Tensor]:
    prompt = {"encoder_hidden_states": torch.empty(rows, tokens, config["cross_attention_dim"])}
    if config.get("addition_embed_type") != "text_time":
        return prompt
    pooled = config["projection_class_embeddings_input_dim"] - _TIME_IDS * config["addition_time_embed_dim"]
    sizes = {"pooled": torch.empty(rows, pooled), "time_ids": torch.empty(rows, _TIME_IDS)}
    return prompt | sizes


def _joint_conditions(config: Mapping[str, Any], rows: int, tokens: int) -> dict[str, Tensor]:
    return {
        "encoder_hidden_states": torch.empty(rows, tokens, config["joint_attention_dim"]),
        "pooled": torch.empty(rows, config["pooled_projection_dim"]),
    }


_CONDITIONS: dict[str, Callable[[Mapping[str, Any], int, int], dict[str, Tensor]]] = {
    "DiTTransformer2DModel": _labels,
    "UNet2DConditionModel": _unet_conditions,
    "SD3Transformer2DModel": _joint_conditions,
}
