"""The weights of an adapter, read from a file that anybody may have made: every tensor is checked by name.

What is looked at first is the file's list of tensors, so a file that does not fit costs no memory.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agd_core.basics.errors import InputError, first_line
from agd_core.basics.safe_files import open_tensors, printable

MOST_BYTES = 64 << 30
"""More than any adapter has, and than a whole fine-tuned network of 17 billion parameters."""
_LARGEST = torch.finfo(torch.float16).max
"""A larger weight is infinite in float16, in which most pipelines run. Training comes nowhere near: Adam moves a weight
by about the learning rate per step, so that 65504 is millions of steps away."""
_MOST_ROWS = 4096
"""Where the adapter leaves their number to the file."""
_TYPES = ("F32", "F16", "BF16")
"""As safetensors calls them; we write F32."""


def read_weights(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, as float32.

    Args:
        path: the file.
        shapes: of every tensor that must be there, and nothing else may be; one without rows may have some, at most
            4096, such as the tokens of a prompt.

    Raises:
        InputError: no such file, damaged, or a tensor that is missing, unknown, of another shape or type, or that holds
            what is no weight: NaN, infinity, a value beyond 65504.
    """
    try:
        with open_tensors(path) as file:
            _check_list(file, shapes)
            weights = {name: file.get_tensor(name).float() for name in shapes}
        for name, tensor in weights.items():
            _check_numbers(name, tensor)
    except InputError as error:
        reason = printable(first_line(error))
        raise InputError(f"{printable(path)} does not hold this adapter's weights: {reason}") from error
    return weights


def _check_list(file: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare names, shapes and types with those of the adapter."""
    found = set(file.keys())
    if missing := sorted(shapes.keys() - found):
        raise InputError(f"{len(missing)} of {len(shapes)} tensors are missing, e.g. {missing[0]}")
    if unknown := sorted(found - shapes.keys()):
        raise InputError(f"{len(unknown)} tensors are not this adapter's, e.g. {unknown[0]}")
    for name, shape in shapes.items():
        tensor = file.get_slice(name)
        if not _fits(other := tuple(tensor.get_shape()), shape):
            raise InputError(f"tensor {name} has shape {list(other)} instead of {list(shape)}")
        if (kind := tensor.get_dtype()) not in _TYPES:
            raise InputError(f"tensor {name} is of type {kind}; weights are {', '.join(_TYPES)}")


def _fits(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """The same shape, or any number of rows where none is wanted."""
    return found == wanted or (wanted[:1] == (0,) and found[1:] == wanted[1:] and 0 < found[0] <= _MOST_ROWS)


def _check_numbers(name: str, tensor: Tensor) -> None:
    if not tensor.isfinite().all():
        raise InputError(f"tensor {name} holds NaN or infinite values")
    if tensor.numel() and (largest := float(tensor.abs().max())) > _LARGEST:
        raise InputError(f"tensor {name} holds a value of {largest:.3g}; weights are at most {_LARGEST:g}")
