"""A file of weights that a person gives; nothing in it is executed."""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable, read_bytes

MOST_WEIGHTS_BYTES = 4 << 30
"""The networks that read such a file have a tenth of that."""


def read_state(path: Path) -> tuple[dict[str, Tensor], str]:
    """A network's tensors by name, and the sha256 of the very bytes that they were read from.

    Args:
        path: a safetensors file, or a PyTorch state dict with any other suffix; nothing in it is executed.

    Raises:
        InputError: the file cannot be read, or holds anything but tensors by name.
    """
    content = read_bytes(path, MOST_WEIGHTS_BYTES)
    try:
        state = _parse(content, path.suffix)
    except Exception as error:  # a damaged file may raise anything
        raise InputError(
            f"{printable(path)} holds no plain tensors by name (safetensors or a PyTorch state dict)"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{printable(path)} holds other things than tensors by name (a PyTorch state dict)")
    return state, hashlib.sha256(content).hexdigest()


def _parse(content: bytes, suffix: str) -> Any:
    if suffix == ".safetensors":
        return load_safetensors(content)
    _require_unpacked(content)
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _require_unpacked(content: bytes) -> None:
    """PyTorch stores without compression; a packed archive could hold any number of bytes.

    Raises:
        ValueError: the archive holds more than its own size.
    """
    buffer = io.BytesIO(content)
    if zipfile.is_zipfile(buffer) and sum(part.file_size for part in zipfile.ZipFile(buffer).infolist()) > len(content):
        raise ValueError("a packed archive")
