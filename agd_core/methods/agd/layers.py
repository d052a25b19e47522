"""What sits at one site of an adapter, and what it hears of a call.

A layer works in two parts. `prepare` makes tensors of its weights and the encoded call, in float32; `add` takes the
hidden states through these tensors alone, in the network's precision. A sampler's steps are prepared together, before
the first of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Prepared = tuple[Tensor, ...]
"""What `AdapterLayer.add` needs. Tensors of rows have the batch axis first, of length 1 where all rows are alike."""


@dataclass(frozen=True)
class Codes:
    """The encoded call, as tokens of width H; what is left out of a method is None."""

    scale: Tensor
    """`[batch, 1, H]`, of the guidance scale."""
    time: Tensor | None = None
    """`[batch, 1, H]` for one call; `[steps, 1, 1, H]` for a sampler's steps, which all rows share."""
    condition: Tensor | None = None
    """`[batch, tokens, H]`."""

    def tokens(self) -> Tensor:
        """All of one call in a row, `[batch, code_tokens, H]`: guidance scale, timestep, condition."""
        return torch.cat([each for each in (self.scale, self.time, self.condition) if each is not None], dim=1)

    def pooled(self) -> Tensor:
        """Scale, timestep and the mean of the condition's tokens in one sum: `[batch, H]`, or `[steps, batch, H]`."""
        total = self.scale if self.time is None else self.scale + self.time
        if self.condition is not None:
            total = total + self.condition.mean(dim=1, keepdim=True)
        return total.squeeze(-2)


class AdapterLayer(nn.Module, ABC):
    """Adds to the output of one module of the network."""

    @abstractmethod
    def prepare(self, codes: Codes, weight: Tensor) -> Prepared:
        """Everything that follows from the layer's weights and the call.

        Args:
            codes: the encoded call.
            weight: `[batch]`, by which what is added is multiplied.
        """

    @abstractmethod
    def steps(self, codes: Codes, weight: Tensor, dtype: torch.dtype) -> Iterator[Prepared]:
        """The same in this precision for each of a sampler's steps; one is used up before the next is taken."""

    def prepared_size(self, width: int, rows: int) -> int:
        """At most so many numbers of each step are made before the first one: an offset for every row.

        Args:
            width: of the module's output.
            rows: 1 where all are alike.
        """
        return width * rows

    @staticmethod
    @abstractmethod
    def add(output: Tensor, hidden_states: Tensor, prepared: Prepared) -> Tensor:
        """The module's output `[batch, ..., width]` with what is added, from what has entered the module."""


def cast(prepared: Prepared, dtype: torch.dtype) -> Prepared:
    """What meets the hidden states has their precision."""
    return prepared if prepared[0].dtype is dtype else tuple(each.to(dtype) for each in prepared)


def add_product(output: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """`output + left @ right` in one go: `[..., width]`, `[..., inner]` and `[inner, width]`.

    Not in place: others, such as caches of a module's answers, may hold the output.
    """
    return torch.addmm(output.flatten(0, -2), left.flatten(0, -2), right).view(output.shape)
