"""The most memory that a piece of work takes at a time, above what rests there before it."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_CUDA_NOTE = "allocator's peak above weights and inputs"
_TENSORS_NOTE = (
    "peak of the tensors that operators returned, above weights and inputs, without an operator's own scratch"
)

OTHER = "activations"
"""What storages are called that nobody named."""
_LOOKING = {torch.ops.prim.device.default}
"""Operators that make nothing, called often."""


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
    with LivingTensors() as living:
        work()
    return living.peak, _TENSORS_NOTE


class LivingTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the storages that operators make; views and results written in place make none.

    Works on any device, and on fake tensors, whose storages have a size and no memory.

    Args:
        granularity: bytes are rounded up to a multiple of this, as CUDA's allocator rounds to 512.
    """

    def __init__(self, granularity: int = 1) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        """The most bytes that lived at a time."""
        self.parts: dict[str, int] = {}
        """Those bytes by name."""
        self._granularity = granularity
        self._living: dict[int, tuple[int, str]] = {}
        self._bytes: Counter[str] = Counter()

    def name(self, tensors: Iterable[Tensor], name: str) -> None:
        """Count the storages of these tensors, whether they were followed before or not, under a name."""
        for tensor in tensors:
            self._follow(tensor.untyped_storage(), name)
        self._look()

    def reset(self) -> None:
        """Forget the peak so far; what lives now is the peak from here on."""
        self.peak, self.parts = 0, {}
        self._look()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _LOOKING:
            return func(*args, **(kwargs or {}))
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if storage._cdata not in given and storage._cdata not in self._living:
                self._follow(storage, OTHER)
        self._look()
        return result

    def _follow(self, storage: torch.UntypedStorage, name: str) -> None:
        size = -(-storage.nbytes() // self._granularity) * self._granularity
        if (known := self._living.get(storage._cdata)) is None:
            weakref.finalize(storage, self._forget, storage._cdata)
        else:
            self._bytes[known[1]] -= known[0]
        self._living[storage._cdata] = size, name
        self._bytes[name] += size

    def _forget(self, address: int) -> None:
        if (known := self._living.pop(address, None)) is not None:
            size, name = known
            self._bytes[name] -= size

    def _look(self) -> None:
        total = self._bytes.total()
        if total > self.peak:
            self.peak, self.parts = total, {name: size for name, size in self._bytes.items() if size}


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
