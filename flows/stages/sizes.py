"""Sizes of a configured base model and parameters of its methods, without a download or an estimate."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from agd_core.basics.config import BUILTIN
from agd_core.basics.errors import InputError
from agd_core.basics.home import expand
from agd_core.memory.full_size import FullSizeModel, full_size_model, full_size_names, known_as
from agd_core.methods import MethodConfig
from agd_core.models.backbones import Backbone, backbone_of
from agd_core.models.sources import resolve_source
from flows.config import PipelineConfig


@dataclass(frozen=True)
class Sizes:
    """How large a configuration's networks are."""

    config: PipelineConfig

    @cached_property
    def model(self) -> FullSizeModel:
        """The base model's, read from local files; nothing is downloaded.

        Raises:
            InputError: its sizes are not known here, or it is of an unknown class.
        """
        source = self.config.base_model.source
        if source.startswith(BUILTIN) or expand(source).is_dir():
            model = FullSizeModel.of_folder(folder := resolve_source(source), source)
            _require_weights(folder, source)
            return model
        if (known := known_as(source)) is not None:
            return known
        hub_ids = [hub_id for name in full_size_names() for hub_id in full_size_model(name).hub_ids]
        raise InputError(
            f"base_model.source {source}: doctor downloads nothing and knows the sizes of local folders, built-in "
            f"models and {', '.join(hub_ids)}; give a folder, or one of these of the same architecture"
        )

    @cached_property
    def backbone(self) -> Backbone:
        """The network on the meta device."""
        return backbone_of(self.model.network())

    @property
    def latent_side(self) -> int:
        """Latent pixels along an edge."""
        resolution = self.config.base_model.resolution
        return resolution // self.model.latent_factor if resolution else int(self.model.network_config["sample_size"])

    def counts(self) -> dict[str, Any]:
        """Parameters of the network and of every method, as plain data."""
        return {"base": self._base(), "methods": [self.of_method(method) for method in self.config.methods]}

    def _base(self) -> dict[str, Any]:
        return {
            "class": self.backbone.class_name,
            "parameters": self.backbone.parameters,
            "published_parameters": self.model.published_parameters,
            "dtype": self.config.base_model.dtype,
            "pixels": self.latent_side * self.model.latent_factor,
        }

    def of_method(self, config: MethodConfig) -> dict[str, Any]:
        """Sites and parameters of one method, as plain data."""
        with torch.device("meta"):
            trained = config.build(self.backbone)
        count = trained.parameter_count()
        return {
            "label": config.label,
            "sites": len(trained.sites),
            "parameters": count,
            "percent": 100 * count / self.backbone.parameters,
        }


def _require_weights(folder: Path, source: str) -> None:
    networks = [folder / name for name in ("unet", "transformer") if (folder / name).is_dir()]
    if not any(path for network in networks for path in network.glob("*.safetensors")):
        raise InputError(f"base model {source} has no weights of its network (*.safetensors in {networks[0]})")
