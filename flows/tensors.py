"""Tensors that a stage reads back from its artefact: what lies there may come from anybody."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import confined, open_tensors, printable
from storage.artefacts import Artefact

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Form(NamedTuple):
    """What a tensor must be."""

    dimensions: int
    dtypes: tuple[torch.dtype, ...] = FLOATS
    optional: bool = False


def read_tensors(
    artefact: Artefact, name: str, forms: Mapping[str, Form], rows: slice = slice(None)
) -> dict[str, Tensor]:
    """Tensors of one of an artefact's safetensors files; nothing else of it is read.

    Args:
        artefact: the artefact.
        name: of the file.
        forms: which tensors, and what they must be; all but scalars have equally many rows.
        rows: which of them; scalars are read whole.

    Raises:
        InputError: no such file, or other tensors in it.
    """
    path = confined(artefact.path, name)
    with open_tensors(path) as file:
        stored = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        shapes = {key: part.get_shape() for key, part in stored.items()}
        tensors = {key: stored[key][rows if shapes[key] else ...] for key in forms if key in stored}
    wrong = [key for key, form in forms.items() if not _fits(tensors.get(key), form)]
    if wrong or len({shape[0] for shape in shapes.values() if shape}) > 1:
        reason = f"tensor {wrong[0]} is missing or another" if wrong else "its tensors have different numbers of rows"
        raise InputError(f"{printable(path)} is not what a stage writes: {reason}")
    return tensors


def _fits(tensor: Tensor | None, form: Form) -> bool:
    if tensor is None:
        return form.optional
    return tensor.ndim == form.dimensions and tensor.dtype in form.dtypes
