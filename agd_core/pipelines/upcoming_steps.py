"""What an adapter needs of a stock pipeline's next steps, made for all of them together.

A pipeline hands its network one timestep after another out of its scheduler's table, beside the same condition. At the
second call of such a row the steps that remain are prepared; nothing is read from the device to recognise it.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from agd_core.methods.attached import Attached, GuidedCall


class UpcomingSteps:
    """Remembers the last call, and what was prepared for those after it."""

    def __init__(self) -> None:
        self.forget()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy of the network, in memory or in a file, has a row of calls of its own."""
        return UpcomingSteps, ()

    def forget(self) -> None:
        """The next call begins a new row."""
        self._asked: tuple[Any, ...] = ()
        self._next = 0
        self._steps: Iterator[GuidedCall] | None = None
        self._codes: Any = None
        """Of the step before the next."""

    def encode(self, attached: Attached, call: GuidedCall, timestep: Any) -> None:
        """Give a call its codes.

        Args:
            attached: the method that acts.
            call: of the network, made without gradients.
            timestep: as the pipeline gave it: an element of its scheduler's table, if the row is to be recognised.
        """
        table, index = _place(timestep)
        if table is None or torch.is_grad_enabled():
            self.forget()
        elif self._is_next(attached, call, table) and not self._is_past(index):
            call.have_codes(lambda call: self._prepared(attached, call, table, index))
        call.have_codes(attached.encode)

    def _is_past(self, index: int) -> bool:
        """Whether a step comes back that is over, and not the last one once more."""
        return self._steps is not None and index < self._next - 1

    def _is_next(self, attached: Attached, call: GuidedCall, table: Tensor) -> bool:
        """Whether the call asks for the same as the last one did."""
        asked = attached, call.off_at_one, table, call.ask.guidance_scale, *call.ask.condition.tensors().values()
        before, self._asked = self._asked, tuple(map(_with_version, asked))
        if len(before) == len(asked) and all(map(_is_same, before, self._asked)):
            return True
        self._steps = None
        return False

    def _prepared(self, attached: Attached, call: GuidedCall, table: Tensor, index: int) -> Any:
        if self._steps is None:
            rest = table[index:].to(call.timestep.device, torch.float32)
            self._steps, self._next = attached.steps(replace(call, timestep=rest, latents=None)), index
        if index >= self._next:
            self._codes = next(islice(self._steps, index - self._next, None)).codes
            self._next = index + 1
        codes = self._codes
        if self._next == len(table):
            self.forget()
        return codes


def _place(timestep: Any) -> tuple[Tensor | None, int]:
    """(table, index) of a timestep that is one element of a table, maybe for several rows; None where it is none."""
    table = timestep._base if isinstance(timestep, Tensor) and not timestep.is_inference() else None
    if table is None or table.ndim != 1 or table.stride() != (1,) or any(timestep.stride()):
        return None, 0
    return table, timestep.storage_offset() - table.storage_offset()


def _with_version(thing: Any) -> Any:
    """A tensor with the number of its last change; to hold it keeps its memory from being another's."""
    return (thing, None if thing.is_inference() else thing._version) if isinstance(thing, Tensor) else thing


def _is_same(one: Any, other: Any) -> bool:
    """Whether two tensors are the same unchanged memory, and what is no tensor the same object."""
    if not isinstance(one, tuple):
        return one is other
    return one[1] is not None and one[1] == other[1] and _layout(one[0]) == _layout(other[0])


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device
