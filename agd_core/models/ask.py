"""What a prediction is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from agd_core.basics.errors import InputError
from agd_core.basics.transfer import to_device
from agd_core.models.condition import Condition

UNKNOWN = Condition()
"""A null condition that nobody tells: a stock pipeline in which a student guides encodes none."""


@dataclass(frozen=True)
class Ask:
    """What a batch of predictions is asked for; everything shares the batch axis, on one device."""

    condition: Condition
    null: Condition
    """"No condition": the class after the last, the empty prompt, a negative prompt, or `UNKNOWN`."""
    guidance_scale: Float[Tensor, " batch"]
    """1.0 means off."""

    @classmethod
    def unguided(cls, condition: Condition) -> Ask:
        """A condition alone: the guidance scale is 1, so nobody looks at the null condition."""
        device = next(iter(condition.tensors().values())).device
        return cls(condition, condition, torch.ones(len(condition), device=device))

    @classmethod
    def of_columns(
        cls,
        conditions: Condition,
        rows: Mapping[str, np.ndarray],
        scalars: Mapping[str, np.ndarray],
        device: torch.device,
    ) -> Ask:
        """What stored trajectories were asked for; their columns are named as the fields here.

        Args:
            conditions: the table of conditions, on any device.
            rows: int64 `[batch]` each, rows of that table.
            scalars: float32 `[batch]` each.
            device: where the ask is needed.

        Raises:
            InputError: other columns than an ask has.
        """
        if (found := {*rows, *scalars}) != (known := {field.name for field in fields(cls)}):
            here, there = (", ".join(sorted(names)) for names in (known, found))
            raise InputError(f"the collection has the columns {there}, this version asks for {here}: collect again")
        asked: dict[str, Any] = {name: to_device(torch.as_tensor(column), device) for name, column in scalars.items()}
        asked |= {name: _taken(conditions, torch.as_tensor(column), device) for name, column in rows.items()}
        return cls(**asked)

    def __len__(self) -> int:
        return len(self.condition)

    def __getitem__(self, rows: slice | Tensor) -> Ask:
        return Ask(self.condition[rows], self.null[rows], self.guidance_scale[rows])


def _taken(conditions: Condition, rows: Tensor, device: torch.device) -> Condition:
    """Rows of a table; the same row for all, as the null condition mostly is, takes the memory of one."""
    if len(rows) < 2 or bool((rows != rows[0]).any()):
        return conditions.take(rows).to(device)
    one = conditions.take(rows[:1]).to(device)
    return Condition(**{name: tensor.expand(len(rows), *tensor.shape[1:]) for name, tensor in one.tensors().items()})
