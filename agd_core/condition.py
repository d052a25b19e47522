"""What a denoiser is conditioned on, as tensors that share the batch axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """Conditioning tensors of a batch; a field that a base-model family does not use stays None.

    A further kind of conditioning is one more field: slicing, joining and storing follow by themselves.
    """

    class_labels: Tensor | None = None
    """int64 `[batch]`, rows of the model's label table."""
    encoder_hidden_states: Tensor | None = None
    """float `[batch, tokens, width]`, the encoded prompt."""
    pooled: Tensor | None = None
    """float `[batch, width]`, the pooled prompt (SDXL's text_embeds, SD3's pooled_projections)."""
    time_ids: Tensor | None = None
    """float `[batch, 6]`, SDXL's original size, crop corner and target size."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], device: torch.device) -> Condition:
        """From row-aligned arrays by field name, as a trajectory plan holds them."""
        return cls(**{name: torch.from_numpy(array).to(device) for name, array in arrays.items()})

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The tensors as arrays by field name; numpy has no bfloat16, so it becomes float32, losslessly."""
        tensors = {name: tensor.detach().cpu() for name, tensor in self.tensors().items()}
        return {name: (t.float() if t.dtype is torch.bfloat16 else t).numpy() for name, t in tensors.items()}

    @classmethod
    def cat(cls, conditions: Sequence[Condition]) -> Condition:
        """Join conditions of one kind along the batch."""
        names = conditions[0].tensors()
        return cls(**{name: torch.cat([condition.tensors()[name] for condition in conditions]) for name in names})

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are present, by field name."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}

    def __len__(self) -> int:
        return next(iter(self.tensors().values())).shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Condition:
        return Condition(**{name: tensor[rows] for name, tensor in self.tensors().items()})

    def take(self, rows: Tensor) -> Condition:
        """The rows of these numbers, int64 `[batch]`; faster than slicing where rows are large."""
        return Condition(**{name: tensor.index_select(0, rows) for name, tensor in self.tensors().items()})

    def to(self, device: torch.device) -> Condition:
        """The same condition on another device."""
        return Condition(**{name: tensor.to(device) for name, tensor in self.tensors().items()})
