"""What a prediction is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from agd_core.condition import Condition


@dataclass(frozen=True)
class Ask:
    """What a batch of predictions is asked for; everything shares the batch axis, on one device."""

    condition: Condition
    null: Condition
    """"No condition": the class after the last, the empty prompt, or a negative prompt."""
    guidance_scale: Float[Tensor, " batch"]
    """1.0 means off."""

    @classmethod
    def unguided(cls, condition: Condition) -> Ask:
        """A condition alone: the guidance scale is 1, so nobody looks at the null condition."""
        device = next(iter(condition.tensors().values())).device
        return cls(condition, condition, torch.ones(len(condition), device=device))

    def __len__(self) -> int:
        return len(self.condition)

    def __getitem__(self, rows: slice | Tensor) -> Ask:
        return Ask(self.condition[rows], self.null[rows], self.guidance_scale[rows])
