"""Where a model comes from and how it runs; what it is, its folder says."""

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from agd_core.basics.config import Config
from agd_core.basics.errors import InputError, first_line
from agd_core.basics.safe_files import confined, printable
from agd_core.models.backbones import Backbone
from agd_core.models.base_schedule import check_schedule
from agd_core.models.folder import MODEL_INDEX, require_library, require_safe_folder
from agd_core.models.model import BaseModel
from agd_core.models.reading import network_class, read_settings
from agd_core.models.sources import resolve_source

_OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts of stock pipelines that no image of ours goes through."""


class BaseModelConfig(Config):
    """The model to distil, whatever its class: a diffusers folder, a hub id or a built-in one."""

    source: str = "builtin:fashion-dit"
    """builtin:NAME, a folder in diffusers format, or a hub id; weights are read from safetensors files only."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision in which the base network runs; adapters keep float32 weights."""
    resolution: int | None = Field(None, ge=8, le=4096)
    """Pixels per side, for networks that take any; None: as the network was trained."""
    learned_variance: Literal["drop", "keep"] = "drop"
    """Whether the variance that some networks predict beside epsilon is collected, learnt and used (by ddpm alone)."""

    @model_validator(mode="before")
    @classmethod
    def _no_kind(cls, settings: Any) -> Any:
        """Presets of earlier versions named what the model is."""
        if isinstance(settings, dict) and "kind" in settings:
            raise ValueError(
                "kind is no setting any more: the source's own model_index.json says what it is; leave it out"
            )
        return settings

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as PyTorch knows it."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    def build(self, device: torch.device) -> BaseModel:
        """Load the model.

        Raises:
            InputError: the source is missing, incomplete, of an unknown class, or a setting does not fit it.
        """
        folder = resolve_source(self.source, self.revision)
        require_safe_folder(folder)
        kind = network_class(folder, self.source)
        _require_components(folder)
        _require_known_schedule(folder, self.source)
        _require_plain_weights(folder, self.source)
        try:
            return self._opened(folder, kind, device)
        except InputError:
            raise
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError) as error:
            reason = f"{type(error).__name__}, {printable(first_line(error))}"  # settings of other types than they have
            raise InputError(f"base model {self.source} cannot be used: {reason}") from error

    def _opened(self, folder: Path, kind: type[Backbone], device: torch.device) -> BaseModel:
        model = BaseModel(folder, kind, self.torch_dtype, device)
        taken, given = model.prediction_channels, model.predicted_channels
        if given not in (taken, 2 * taken):
            raise InputError(
                f"base model {self.source} takes {taken} channels and predicts {given}: an inpainting or "
                "image-conditioned network cannot be distilled from prompts alone; an adapter of its text-to-image "
                "sibling loads into it"
            )
        if self.resolution is not None:
            model.resize(self.resolution)
        if self.learned_variance == "keep" and given == taken:
            raise InputError(
                f"base_model.learned_variance=keep: {self.source} predicts {given} channels for latents of {taken}, so "
                "it has learnt no variance; set it to drop"
            )
        if self.learned_variance == "keep":
            model.keep_variance()
        return model


def _require_components(folder: Path) -> None:
    """Every part that model_index.json names is there, whether it is loaded now or later.

    Raises:
        InputError: one is missing.
    """
    for name, named in read_settings(folder / MODEL_INDEX).items():
        needed = isinstance(named, list) and named[0] is not None and not name.startswith("_") and name not in _OPTIONAL
        if not needed:
            continue
        require_library(folder / MODEL_INDEX, name, named[0])
        if not confined(folder, name).is_dir():
            missing = printable(folder / name)
            raise InputError(f"not a complete diffusers folder: {missing} is missing ({MODEL_INDEX} names it)")


def _require_known_schedule(folder: Path, source: str) -> None:
    """See `check_schedule`."""
    named = read_settings(folder / MODEL_INDEX).get("scheduler")
    class_name = str(named[1]) if isinstance(named, list) and len(named) == 2 else None
    check_schedule(read_settings(folder / "scheduler" / "scheduler_config.json"), class_name, f"base model {source}")


def _require_plain_weights(folder: Path, source: str) -> None:
    """No part is stored quantised.

    Raises:
        InputError: one is.
    """
    for path in sorted(folder.glob("*/config.json")):
        if found := read_settings(path).get("quantization_config"):
            method = found.get("quant_method") if isinstance(found, dict) else None
            raise InputError(
                f"base model {source}: its {path.parent.name} is stored quantised ({method or 'quantization_config'}); "
                "distil the model that it was made from: an adapter of it loads into the quantised one"
            )
