"""Tensors that a stage reads back from its artefact: what lies there may come from anybody."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor

from agd_core.checkpoint import load_tensors
from agd_core.errors import InputError, first_line
from agd_core.safe_files import confined, printable, require_regular
from storage.artefacts import Artefact

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Form(NamedTuple):
    """What a tensor must be."""

    dimensions: int
    dtypes: tuple[torch.dtype, ...] = FLOATS
    optional: bool = False


def read_tensors(artefact: Artefact, name: str, forms: Mapping[str, Form]) -> dict[str, Tensor]:
    """The tensors of one of an artefact's safetensors files.

    Args:
        artefact: the artefact.
        name: of the file.
        forms: what its tensors must be; all but scalars have equally many rows.

    Raises:
        InputError: no such file, or other tensors in it.
    """
    path = confined(artefact.path, name)
    require_regular(path)
    try:
        tensors, _ = load_tensors(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{printable(path)} is not what a stage writes: {printable(first_line(error))}") from error
    wrong = [key for key, form in forms.items() if not _fits(tensors.get(key), form)]
    if wrong or len({len(tensor) for tensor in tensors.values() if tensor.ndim}) > 1:
        reason = f"tensor {wrong[0]} is missing or another" if wrong else "its tensors have different numbers of rows"
        raise InputError(f"{printable(path)} is not what a stage writes: {reason}")
    return tensors


def _fits(tensor: Tensor | None, form: Form) -> bool:
    if tensor is None:
        return form.optional
    return tensor.ndim == form.dimensions and tensor.dtype in form.dtypes
