"""The most memory that a piece of work takes at a time, above what rests there before it."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_CUDA_NOTE = "allocator's peak above weights and inputs"
_TENSORS_NOTE = (
    "peak of the tensors that operators returned, above weights and inputs, without an operator's own scratch"
)


def peak_memory(work: Callable[[], Any], device: torch.device) -> tuple[int, str]:
    """(bytes, how they were measured).

    On CUDA the caching allocator tells. Elsewhere nothing counts for one piece of work alone (resident memory is the
    process's, and its peak never falls), so the tensors that operators make are followed from birth to death; on the
    built-in teacher that equals the peak that torch.profiler finds, to the byte.
    """
    return _cuda_peak(work, device) if device.type == "cuda" else _tensors_peak(work)


def _cuda_peak(work: Callable[[], Any], device: torch.device) -> tuple[int, str]:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    resting = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - resting, _CUDA_NOTE


def _tensors_peak(work: Callable[[], Any]) -> tuple[int, str]:
    with _LivingTensors() as living:
        work()
    return living.peak, _TENSORS_NOTE


class _LivingTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the storages that operators make; views and results written in place make none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._living: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {tensor.untyped_storage().data_ptr() for tensor in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            address = storage.data_ptr()
            if address not in given and address not in self._living:
                self._living[address] = storage.nbytes()
                weakref.finalize(storage, self._living.pop, address, None)
        self.peak = max(self.peak, sum(self._living.values()))
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
