"""A fine-tuned UNet and its base as a stock folder, whose pipeline guides in one pass without this package.

diffusers' pipelines hand a UNet whose config names a `time_cond_proj_dim` the guidance scale, and then make one pass.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from agd_core.basics.atomic import write_json
from agd_core.basics.checkpoint import system_errors
from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable
from agd_core.builtin.cache import write_at_once
from agd_core.methods import FinetuneConfig
from agd_core.methods.adapter_files import open_adapter, read_card
from agd_core.methods.finetune import SCALE_WIDTH
from agd_core.models.backbones import backbone_class
from agd_core.models.config import BaseModelConfig
from agd_core.models.doors.doors import GuidanceEmbedding
from agd_core.models.folder import CONFIG
from agd_core.models.reading import read_settings, weights_variant
from agd_core.models.sources import resolve_source

_STEM, _WEIGHTS = "diffusion_pytorch_model", ".safetensors"


def write_pipeline(adapter: str | Path, base: str | Path, folder: str | Path) -> Path:
    """Write what diffusers' `from_pretrained` opens; its call with `guidance_scale=` is one network pass per step.

    At a scale of 1 the fine-tuned network answers there too; a negative prompt has no effect.

    Args:
        adapter: folder of what the method `finetune` trained.
        base: the model that was fine-tuned, a folder in diffusers format, a hub id or builtin:NAME.
        folder: where to write; new or empty.

    Returns:
        The folder.

    Raises:
        InputError: another method or base, pipelines that hand their network no scale, or a folder that holds files,
            is one or lies in the base's.
        OSError: no space, no permission, a disk that fails.
    """
    adapter, folder, source = Path(adapter), Path(folder), resolve_source(str(base))
    component = _component(adapter)
    _check_room(folder, source)
    model = BaseModelConfig(source=str(base)).build(torch.device("cpu"))
    network = open_adapter(model, adapter).runs_in(model).network
    write_at_once(folder, lambda partial: _write(network, source, component, partial))
    return folder


def _check_room(folder: Path, source: Path) -> None:
    """Know that a copy of the base can be written there.

    Raises:
        InputError: something is there, a parent is a file, or the copy would lie within what is copied.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{printable(folder)} holds something already; name a new folder")
    if file := next((parent for parent in folder.parents if parent.is_file()), None):
        raise InputError(f"{printable(folder)} cannot be a folder: {printable(file)} is a file")
    if folder.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{printable(folder)} lies in the base model's own folder; name one outside of it")


def _component(adapter: Path) -> str:
    """What pipelines call the network that an adapter's folder holds.

    Raises:
        InputError: it holds no whole network, or pipelines tell such a one no scale.
    """
    config, card = read_card(adapter)
    if not isinstance(config, FinetuneConfig):
        raise InputError(f"{printable(adapter)} holds {config.kind}, no network of its own; load_adapter takes it")
    kind = backbone_class(card.backbone)
    if not isinstance(kind.door, GuidanceEmbedding):
        raise InputError(
            f"{printable(adapter)}: diffusers' pipelines tell a {kind.class_name} no guidance scale; "
            "agd_core.load_student samples with it"
        )
    return kind.component


def _write(network: Any, source: Path, component: str, folder: Path) -> None:
    """The base's folder with another network."""
    own, part = source / component, folder / component
    shutil.copytree(source, folder, ignore=lambda place, names: set(names) - {CONFIG} if Path(place) == own else set())
    write_json(read_settings(part / CONFIG) | {"time_cond_proj_dim": SCALE_WIDTH}, part / CONFIG)
    variant = weights_variant(own)
    tensors = {name: tensor.half() if variant else tensor for name, tensor in network.state_dict().items()}
    with system_errors():
        save_file(tensors, part / f"{_STEM}{f'.{variant}' if variant else ''}{_WEIGHTS}", {"format": "pt"})
