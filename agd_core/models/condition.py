"""What a denoiser is conditioned on: named tensors that share the batch axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from agd_core.basics.errors import InputError
from agd_core.basics.transfer import to_device

MASK = "_mask"
"""Ends the name of a mask: `NAME_mask` `[batch, tokens]` stands beside `NAME` `[batch, tokens, ...]`."""


class Condition:
    """Conditioning tensors of a batch by name, e.g. `Condition(class_labels=labels)`; what is None is left out.

    A network reads what it needs by name; slicing, joining and storing follow by themselves. Rows of unequal numbers of
    tokens can be joined where a mask says which tokens count, see `cat`.
    """

    __slots__ = ("_tensors",)

    def __init__(self, **tensors: Tensor | None) -> None:
        self._tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], device: torch.device) -> Condition:
        """From row-aligned arrays by name, as a trajectory plan holds them."""
        return cls(**{name: torch.from_numpy(array).to(device) for name, array in arrays.items()})

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The tensors as arrays by name; numpy has no bfloat16, so it becomes float32, losslessly."""
        tensors = {name: tensor.detach().cpu() for name, tensor in self._tensors.items()}
        return {name: (t.float() if t.dtype is torch.bfloat16 else t).numpy() for name, t in tensors.items()}

    @classmethod
    def cat(cls, conditions: Sequence[Condition]) -> Condition:
        """Join conditions of one kind along the batch; tensors with a mask are filled up with zeros to the longest.

        Raises:
            InputError: one lacks a tensor of another, or rows differ in their tokens and have no mask.
        """
        names = dict.fromkeys(name for condition in conditions for name in condition._tensors)
        masked = {each for name in names if name.endswith(MASK) for each in (name, name.removesuffix(MASK))}
        columns = {name: [condition[name] for condition in conditions] for name in names}
        return cls(**{name: _joined(name, parts, name in masked) for name, parts in columns.items()})

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return dict(self._tensors)

    def __len__(self) -> int:
        return next(iter(self._tensors.values())).shape[0]

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    @overload
    def __getitem__(self, key: str) -> Tensor: ...
    @overload
    def __getitem__(self, key: slice | Tensor) -> Condition: ...
    def __getitem__(self, key: str | slice | Tensor) -> Tensor | Condition:
        """The tensor of this name, or the condition of these rows.

        Raises:
            InputError: there is no tensor of this name.
        """
        if not isinstance(key, str):
            return Condition(**{name: tensor[key] for name, tensor in self._tensors.items()})
        if key not in self._tensors:
            raise InputError(f"a condition with {key} is needed; this one has {', '.join(self._tensors) or 'nothing'}")
        return self._tensors[key]

    def take(self, rows: Tensor) -> Condition:
        """The rows of these numbers, int64 `[batch]`; faster than slicing where rows are large."""
        return Condition(**{name: tensor.index_select(0, rows) for name, tensor in self._tensors.items()})

    def to(self, device: torch.device) -> Condition:
        """The same condition on another device."""
        return Condition(**{name: to_device(tensor, device) for name, tensor in self._tensors.items()})


def _joined(name: str, parts: Sequence[Tensor], masked: bool) -> Tensor:
    lengths = {part.shape[1] for part in parts if part.ndim > 1}
    if len(lengths) < 2:
        return torch.cat(list(parts))
    if not masked:
        found = " and ".join(map(str, sorted(lengths)))
        raise InputError(f"rows of {name} with {found} tokens cannot be joined without {name}{MASK} beside them")
    missing = ((part, max(lengths) - part.shape[1]) for part in parts)
    return torch.cat([pad(part, (*(0, 0) * (part.ndim - 2), 0, few)) for part, few in missing])
