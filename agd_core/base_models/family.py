"""What the configurations of all base-model families share."""

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Literal

import torch

from agd_core.base_models.base import BaseModel
from agd_core.base_models.folder import MODEL_INDEX, require_library, require_safe_folder
from agd_core.base_models.sources import pipeline_class, read_json, resolve_source
from agd_core.base_schedule import check_schedule
from agd_core.config import Config
from agd_core.errors import InputError, first_line
from agd_core.safe_files import confined, printable

_OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts of stock pipelines that no image of ours goes through."""


class FamilyConfig(Config):
    """Where a base model comes from; the class of a family adds its `kind` and its own settings."""

    pipelines: ClassVar[tuple[str, ...]]
    """Pipeline classes of diffusers whose folders hold such a model."""

    source: str
    """builtin:NAME, a folder in diffusers format, or a hub id; weights are read from safetensors files only."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision in which the base network runs; adapters keep float32 weights."""

    def build(self, device: torch.device) -> BaseModel:
        """Load the model.

        Raises:
            InputError: the source is missing, incomplete, or of another family.
        """
        folder = resolve_source(self.source, self.revision)
        require_safe_folder(folder)
        if (found := pipeline_class(folder)) not in self.pipelines:
            family = str(self.model_dump()["kind"])
            raise InputError(
                f"base model {self.source} is a {printable(found)}, not a {', '.join(self.pipelines)}: not of family "
                f"{family!r}"
            )
        _require_components(folder)
        _require_known_schedule(folder, self.source)
        _require_plain_weights(folder, self.source)
        try:
            return self.open(folder, device)
        except InputError:
            raise
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError) as error:
            reason = f"{type(error).__name__}, {printable(first_line(error))}"  # settings of other types than they have
            raise InputError(f"base model {self.source} cannot be used: {reason}") from error

    @abstractmethod
    def open(self, folder: Path, device: torch.device) -> BaseModel:
        """Load the model from a complete local folder."""

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as PyTorch knows it."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


def _require_components(folder: Path) -> None:
    """Every part that model_index.json names is there, whether it is loaded now or later.

    Raises:
        InputError: one is missing.
    """
    for name, named in read_json(folder / MODEL_INDEX).items():
        needed = isinstance(named, list) and named[0] is not None and not name.startswith("_") and name not in _OPTIONAL
        if not needed:
            continue
        require_library(folder / MODEL_INDEX, name, named[0])
        if not confined(folder, name).is_dir():
            missing = printable(folder / name)
            raise InputError(f"not a complete diffusers folder: {missing} is missing ({MODEL_INDEX} names it)")


def _require_known_schedule(folder: Path, source: str) -> None:
    """See `check_schedule`."""
    named = read_json(folder / MODEL_INDEX).get("scheduler")
    class_name = str(named[1]) if isinstance(named, list) and len(named) == 2 else None
    check_schedule(read_json(folder / "scheduler" / "scheduler_config.json"), class_name, f"base model {source}")


def _require_plain_weights(folder: Path, source: str) -> None:
    """No part is stored quantised.

    Raises:
        InputError: one is.
    """
    for path in sorted(folder.glob("*/config.json")):
        if found := read_json(path).get("quantization_config"):
            method = found.get("quant_method") if isinstance(found, dict) else None
            raise InputError(
                f"base model {source}: its {path.parent.name} is stored quantised ({method or 'quantization_config'}); "
                "distil the model that it was made from: an adapter of it loads into the quantised one"
            )
