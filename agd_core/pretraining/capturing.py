"""A training step's forward and backward pass as CUDA graphs.

A small network on a large card waits for the processor, which launches hundreds of kernels one by one; a graph launches
them at once. See https://docs.pytorch.org/docs/stable/generated/torch.cuda.make_graphed_callables.html
"""

from typing import Any

import torch
from torch import Tensor, nn


class _Sample(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        given = self.network(*inputs)
        sample: Tensor = given if isinstance(given, Tensor) else given.sample
        return sample


class Captured:
    """Calls a module, on a CUDA device as graphs captured at the first call.

    The inputs of all calls have the shapes and types of the first ones'. The module may draw no random number, and
    autocast must not cache what it casts.

    Args:
        module: takes tensors and gives a tensor, or what diffusers' networks give.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = _Sample(module)
        self._call: Any = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The module's output; on CUDA the next call overwrites it."""
        if self._call is None:
            self._call = self._captured(inputs)
        output: Tensor = self._call(*inputs)
        return output

    def _captured(self, inputs: tuple[Tensor, ...]) -> Any:
        if inputs[0].device.type != "cuda":
            return self._module
        examples = tuple(tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in inputs)
        return torch.cuda.make_graphed_callables(self._module, examples)
