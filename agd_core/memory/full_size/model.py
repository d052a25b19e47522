"""Networks of published models on the meta device: shapes without memory.

The JSON files beside this one hold what the models' own config.json files say; agd_core.memory runs them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from agd_core.basics.errors import InputError, first_line
from agd_core.basics.safe_files import printable
from agd_core.models.backbones import Backbone, backbone_class
from agd_core.models.folder import MODEL_INDEX, MOST_SIDE, no_larger, require_safe_folder
from agd_core.models.reading import network_class, pipeline_class, read_settings

_HERE = Path(__file__).resolve().parent
_CLASS = "_class_name"


@dataclass(frozen=True)
class FullSizeModel:
    """What is needed to know a pipeline's sizes: configurations of its parts, no weights."""

    name: str
    pipeline: str
    """The pipeline's class in diffusers."""
    network_config: Mapping[str, Any]
    """As diffusers writes it, with `_class_name`."""
    vae_config: Mapping[str, Any]
    text_encoder_configs: Sequence[Mapping[str, Any]] = ()
    """As transformers writes them, each with the `_class_name` under which the pipeline names it."""
    prompt_tokens: int = 0
    """Tokens of one encoded prompt; 0 for class-conditional models."""
    hub_ids: Sequence[str] = ()
    """Where its weights are published."""
    published_parameters: int | None = None
    """The network's parameters as its authors count them, where that differs from diffusers."""
    note: str = ""
    """Why it differs."""

    @classmethod
    def of_folder(cls, folder: Path, name: str) -> "FullSizeModel":
        """The sizes of a local pipeline in diffusers format; reads its JSON files alone.

        Raises:
            InputError: a configuration is missing or unreadable.
        """
        require_safe_folder(folder)
        kind, index = network_class(folder, name), read_settings(folder / MODEL_INDEX)
        encoders = [
            {**read_settings(folder / key / "config.json"), _CLASS: index[key][1]}
            for key in ("text_encoder", "text_encoder_2", "text_encoder_3")
            if (folder / key).is_dir() and isinstance(index.get(key), list)
        ]
        network = {**read_settings(folder / kind.component / "config.json"), _CLASS: kind.class_name}
        vae = read_settings(folder / "vae" / "config.json")
        try:
            found = cls(name, pipeline_class(folder), network, vae, encoders, kind.prompt_tokens(encoders))
            possible = 0 < int(network["sample_size"]) <= MOST_SIDE and found.latent_factor > 0
        except (TypeError, ValueError, LookupError, OverflowError) as error:
            raise InputError(f"{name}: its config.json files do not hold the sizes of a model: {error!r}") from error
        if not possible:
            raise InputError(f"{name}: sample_size is {network['sample_size']}; allowed are 1 to {MOST_SIDE}")
        return found

    @property
    def kind(self) -> type[Backbone]:
        """The network's class."""
        return backbone_class(str(self.network_config[_CLASS]))

    @property
    def latent_factor(self) -> int:
        """Pixels per latent element and side."""
        return int(2 ** (len(self.vae_config["block_out_channels"]) - 1))

    def network(self) -> Any:
        """The denoising network, diffusers' class, frozen and in eval mode, on the meta device.

        Raises:
            InputError: the configuration names no class of diffusers, or does not fit it.
        """
        return self._on_meta(self.network_config)

    def vae(self) -> Any:
        """The VAE, likewise."""
        return self._on_meta(self.vae_config)

    def text_encoders(self) -> list[nn.Module]:
        """The text encoders, transformers' classes, likewise."""
        import transformers

        found: list[nn.Module] = []
        for config in self.text_encoder_configs:
            kind: Any = getattr(transformers, str(config[_CLASS]), None)
            if not hasattr(kind, "config_class"):
                raise InputError(f"{self.name}: transformers has no text encoder {config[_CLASS]!r}")
            settings = {key: value for key, value in config.items() if not key.startswith("_")}
            found.append(self._made(kind, partial(_with_config, kind, settings)))
        return found

    def _on_meta(self, config: Mapping[str, Any]) -> Any:
        import diffusers

        kind: Any = getattr(diffusers, str(config.get(_CLASS)), None)
        if not hasattr(kind, "from_config"):
            raise InputError(f"{self.name}: diffusers has no network class {config.get(_CLASS)!r}")
        return self._made(kind, partial(kind.from_config, dict(config)))

    def _made(self, kind: Any, make: Callable[[], Any]) -> Any:
        try:
            with torch.device("meta"), no_larger(f"{self.name}: the config.json of {kind.__name__}"):
                return make().requires_grad_(False).eval()
        except InputError:
            raise
        except Exception as error:  # libraries raise what they like over settings that fit no network
            reason = printable(first_line(error))
            raise InputError(f"{self.name}: {kind.__name__} refuses its configuration: {reason}") from error


def full_size_names() -> list[str]:
    """Models whose sizes are shipped."""
    return sorted(path.stem for path in _HERE.glob("*.json"))


def full_size_model(name: str) -> FullSizeModel:
    """A shipped model by its name.

    Raises:
        InputError: no such model.
    """
    if name not in full_size_names():
        raise InputError(f"unknown full-size model {name!r}; known: {', '.join(full_size_names())}")
    raw = read_settings(_HERE / f"{name}.json")
    parts = {f"{part}_config": raw.pop(part) for part in ("network", "vae")}
    return FullSizeModel(name, text_encoder_configs=raw.pop("text_encoders"), **parts, **raw)


def known_as(hub_id: str) -> FullSizeModel | None:
    """The shipped model that is published under this hub id; None where none is."""
    models = (full_size_model(name) for name in full_size_names())
    return next((model for model in models if hub_id in model.hub_ids), None)


def _with_config(kind: Any, settings: Mapping[str, Any]) -> Any:
    return kind(kind.config_class(**settings))
