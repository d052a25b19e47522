"""Folders with weights in transformers format that a person gives; never executed or fetched."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from agd_core.basics.digest import digest, file_digest
from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable
from agd_core.models.folder import require_safe_folder
from agd_core.models.reading import load_component, read_settings

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
"""Glob patterns of a folder's weights: one file, or its parts."""
_REASON_CHARACTERS = 160


def model_folder(weights: Path | None, extractor: str, model_type: str) -> Path:
    """The given folder, proved to be one in transformers format that holds this type of model.

    Raises:
        InputError: no folder is given, it has no readable config.json, or holds another type of model.
    """
    if weights is None:
        raise InputError(
            f"extractor {extractor} needs a folder with its weights ({CONFIG} and model.safetensors, as transformers "
            "saves them); name it in evaluate.extractor_weights"
        )
    if weights.is_dir():
        require_safe_folder(weights)
    if (found := read_settings(weights / CONFIG, "transformers").get("model_type")) != model_type:
        raise InputError(f"extractor {extractor}: {weights} holds a model of type {found!r}, not {model_type!r}")
    return weights


def load_network(kind: Any, folder: Path, device: torch.device) -> Any:
    """One frozen network of a folder in transformers format, float32, from safetensors only.

    Raises:
        InputError: weights are missing, unreadable or of other shapes.
    """
    with _without_progress_bar():
        return load_component(kind, folder, torch.float32, device)


def folder_identity(folder: Path, patterns: Sequence[str]) -> str:
    """sha256 over the names and sha256 of all files that match: weights, and the settings that they are used with."""
    paths = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    return digest({path.name: file_digest(path) for path in paths})


def reason(error: Exception) -> str:
    """An error's text as the end of one line."""
    return printable(" ".join(str(error).split()))[:_REASON_CHARACTERS] or type(error).__name__


def missing_package(extractor: str, error: ImportError) -> InputError:
    """What to tell when an extractor's package is not installed."""
    return InputError(f"extractor {extractor} needs the package {error.name}; pip install 'agd-pipeline[metrics]'")


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Silence transformers while it loads; what others have set is put back."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
