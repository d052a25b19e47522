"""What users call: load an adapter into a diffusers pipeline, choose, switch off, unload."""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable
from agd_core.methods.adapter_files import SKETCH, AdapterCard, read_adapter, read_card
from agd_core.methods.base_sketch import find_differences, load_sketch
from agd_core.models.backbones import BACKBONES, backbone_of
from agd_core.models.doors.doors import Limits
from agd_core.models.doors.running_call import is_modular, prediction_type_of

if TYPE_CHECKING:  # it imports torch's compiler, a second's work
    from agd_core.pipelines.network_adapters import NetworkAdapters

_COMPILED = "_orig_mod"
"""Where torch.compile's wrapper keeps a module."""
_IMAGE_INPUTS = ("conv_in.weight",)
"""What an inpainting sibling has in another shape."""


def load_adapter(pipe: Any, path: str | Path, name: str | None = None, allow_sibling: bool = False) -> None:
    """Load an adapter into a stock pipeline, active and enabled: it then guides in one network pass per step.

    `pipe(prompt, guidance_scale=7.5)` stays the call that it was. A scale of 1 or less means no guidance, as ever.

    Args:
        pipe: one of diffusers' pipelines with a network of a class in `BACKBONES`; pipelines that share the network,
            made with `from_pipe`, share the adapter.
        path: folder of the adapter.
        name: how it is called; the folder's name by default.
        allow_sibling: take a network of the same architecture with other weights, such as a fine-tune.

    Raises:
        InputError: no pipeline, no such network, no adapter there, a name that is taken, or an adapter of another
            network or prediction type.
    """
    from agd_core.pipelines.network_adapters import NetworkAdapters

    network, folder = network_of(pipe), Path(path)
    _check_guided(pipe)
    config, card = read_card(folder)
    name = name or folder.resolve().name
    if (adapters := NetworkAdapters.find(network)) is not None and name in adapters.names:
        raise InputError(f"adapter {name!r} is loaded already; agd_core.unload(pipe, {name!r}) or choose another name")
    _check_prediction(pipe, folder, card)
    _check_base(network, folder, card, allow_sibling)
    trained = read_adapter(folder, config, backbone_of(network))
    adapters = adapters or NetworkAdapters(network)
    adapters.add(network, trained, Limits(name, card.guidance_range, card.prediction_type, card.guidance))
    forget_compiled(pipe)


def unload(pipe: Any, name: str | None = None) -> None:
    """Take one adapter out of a pipeline, or all; without any, its network is as it was before.

    Raises:
        InputError: no adapter is loaded, or none of that name.
    """
    network = network_of(pipe)
    adapters = adapters_of(network)
    for each in adapters.names if name is None else (name,):
        adapters.remove(network, each)
    forget_compiled(pipe)


def set_enabled(pipe: Any, enabled: bool) -> None:
    """Guide by the active adapter in one pass, or by the pipeline's own CFG in two, bit for bit.

    Raises:
        InputError: no adapter is loaded.
    """
    network = network_of(pipe)
    adapters_of(network).set_enabled(network, enabled)
    if not enabled and is_modular(pipe):
        pipe.guider.enable()  # it rested while the network asked for the guidance embedding
    forget_compiled(pipe)


def set_active(pipe: Any, name: str) -> None:
    """Choose which of the loaded adapters guides.

    Raises:
        InputError: no adapter of that name.
    """
    network = network_of(pipe)
    adapters_of(network).set_active(network, name)
    forget_compiled(pipe)


def _component_of(pipe: Any) -> nn.Module:
    """The pipeline's denoising network as it holds it, maybe wrapped by torch.compile."""
    from diffusers import DiffusionPipeline

    if not isinstance(pipe, DiffusionPipeline) and not is_modular(pipe):
        raise InputError(
            f"this is a {type(pipe).__name__}, not one of diffusers' pipelines; students have load_student"
        )
    names = sorted({kind.component for kind in BACKBONES.values()})
    networks: list[nn.Module] = [part for name in names if (part := getattr(pipe, name, None)) is not None]
    if not networks:
        raise InputError(f"a {type(pipe).__name__} has no {' or '.join(names)} that an adapter could guide")
    return networks[0]


def network_of(pipe: Any) -> nn.Module:
    """The pipeline's denoising network itself.

    Raises:
        InputError: it has none that an adapter could guide.
    """
    component = _component_of(pipe)
    network: nn.Module = backbone_of(getattr(component, _COMPILED, component)).network
    return network


def adapters_of(network: nn.Module) -> "NetworkAdapters":
    """What is loaded into a network.

    Raises:
        InputError: nothing is.
    """
    from agd_core.pipelines.network_adapters import NetworkAdapters

    if (adapters := NetworkAdapters.find(network)) is None:
        raise InputError("no adapter is loaded into this pipeline; agd_core.load_adapter(pipe, folder) loads one")
    return adapters


def _check_guided(pipe: Any) -> None:
    """Calls of this pipeline say how strongly to guide, and leave it to the network how."""
    name = type(pipe).__name__
    if is_modular(pipe):
        raise InputError(
            f"a {name} is a modular pipeline, whose guider guides by passes of its own: an adapter guides classic "
            "pipelines; make one of its parts, e.g. StableDiffusionXLPipeline(**pipe.components)"
        )
    calls = [vars(kind)["__call__"] for kind in type(pipe).__mro__ if "__call__" in vars(kind)]
    if not any("guidance_scale" in inspect.signature(call).parameters for call in calls):
        raise InputError(f"a {name}'s call takes no guidance_scale, so an adapter cannot guide it")


def _check_prediction(pipe: Any, folder: Path, card: AdapterCard) -> None:
    scheduler = pipe.scheduler
    if (found := prediction_type_of(scheduler)) != card.prediction_type:
        raise InputError(
            f"adapter {printable(folder)} was trained for prediction type {printable(card.prediction_type)} "
            f"({printable(card.base_source)}), "
            f"this pipeline's {type(scheduler).__name__} expects {found}"
        )


def _check_base(network: nn.Module, folder: Path, card: AdapterCard, allow_sibling: bool) -> None:
    """The network is the one that the adapter was trained on, or a sibling where that is allowed."""
    trained_on = f"adapter {printable(folder)} was trained on {printable(card.base_source)}"
    if (found := type(network).__name__) != card.backbone:
        raise InputError(f"{trained_on}, a {printable(card.backbone)}; this pipeline's network is a {found}")
    sketch = load_sketch(folder / SKETCH)
    differences, all_of_them = find_differences(network, sketch), len(sketch.shapes)
    tolerated = _IMAGE_INPUTS if allow_sibling else ()
    if missing := differences.missing:
        raise InputError(
            f"{trained_on}; this network lacks {len(missing)} of its {all_of_them} parameters, e.g. "
            f"{printable(missing[0])}"
        )
    if unlisted := differences.unlisted:
        raise InputError(
            f"{trained_on}; {len(unlisted)} parameters of this network are not in {SKETCH}, e.g. {unlisted[0]}: it is "
            "damaged, or of a smaller network (what adds parameters to a network is loaded after the adapter)"
        )
    if other := [name for name in differences.other_shape if name not in tolerated]:
        raise InputError(
            f"{trained_on}; {len(other)} of {all_of_them} parameters have another shape here, e.g. {other[0]}"
        )
    if (packed := differences.quantised) and not allow_sibling:
        raise InputError(
            f"{trained_on}; this network is quantised, {len(packed)} of {all_of_them} parameters cannot be compared, "
            f"e.g. {packed[0]}: load_adapter(pipe, path, allow_sibling=True) loads it anyway"
        )
    if (changed := differences.other_values) and not allow_sibling:
        raise InputError(
            f"{trained_on}; {len(changed)} of {all_of_them} parameters have other values here, e.g. {changed[0]}: for "
            "a fine-tune of it or with a fused LoRA, load_adapter(pipe, path, allow_sibling=True) loads it anyway"
        )


def forget_compiled(pipe: Any) -> None:
    """Compiled code holds the hooks that it was compiled with; where the network has any, let it be compiled again."""
    if any(map(_is_compiled, _component_of(pipe).modules())):
        torch.compiler.reset()


def _is_compiled(module: nn.Module) -> bool:
    in_place = module._compiled_call_impl is not None or hasattr(module.forward, "_torchdynamo_orig_callable")
    return in_place or hasattr(module, _COMPILED)
