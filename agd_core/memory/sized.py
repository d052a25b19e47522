"""A model at a size and in a precision: what goes into its network, in shapes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agd_core.memory.full_size import FullSizeModel
from agd_core.memory.peak_memory import LivingTensors
from agd_core.models.condition import Condition

_CUDA_GRANULARITY = 512


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
    """Round every allocation as CUDA's allocator does."""

    def living(self) -> LivingTensors:
        """A fresh count."""
        return LivingTensors(_CUDA_GRANULARITY if self.on_cuda else 1)

    def network(self) -> Any:
        """The denoising network in its precision, on the meta device."""
        return nn.Module.to(self.model.network(), self.dtype)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(channels, *sides) of one latent."""
        return *self.model.kind.latent_shape(self.model.network_config)[:-2], self.latent_side, self.latent_side

    def latents(self, rows: int, *axes: int) -> Tensor:
        """float32 `[rows, *axes, *latent_shape]`."""
        return torch.empty(rows, *axes, *self.latent_shape)

    def conditions(self, rows: int) -> Condition:
        """What the model is conditioned on, in the type in which a plan holds it."""
        dtype = torch.float16 if self.dtype is torch.float16 else torch.float32
        condition = self.model.kind.empty_condition(self.model.network_config, rows, self.model.prompt_tokens)
        tensors = condition.tensors().items()
        return Condition(**{name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors})

    def kept(self, prediction: Tensor) -> Tensor:
        """What is kept of the network's answer."""
        return prediction[:, : self.slots * self.latent_shape[0]]
