"""A sketch of a network's weights: a few values of every parameter, enough to tell one checkpoint from another.

It recognises the network that an adapter was trained on wherever it is loaded: in another precision, under a LoRA or an
IP-Adapter (which only add parameters), on any device, or offloaded. A quantised parameter has no values to compare.
"""

import json
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agd_core.basics.checkpoint import load_tensors, save_tensors
from agd_core.basics.checksums import require_intact
from agd_core.basics.errors import InputError, first_line, naming
from agd_core.basics.safe_files import open_tensors, parse_json, printable

VALUES = 16
"""Values that are kept of every parameter, fewer of one that has fewer."""
_SAME_OF_A_PARAMETER, _SAME_OF_ALL = 0.5, 0.9
_FLOAT16_STEP = 2.0**-24
"""What float16 cannot tell from nothing."""
_WRAPPED = "base_layer"
"""Where a LoRA and its like keep the module that they wrap."""
_ADDED = frozenset(
    ("processor", "encoder_hid_proj", "image_proj", "to_qkv", "to_kv", "to_added_qkv", "fuser", "position_net")
) | {"cond_proj"}
"""Parts of the names of what is added to a network: IP-Adapters, fused projections, GLIGEN; and the guidance embedding
of networks that are guidance-distilled already, which are refused for that."""
_MOST_BYTES = 64 << 20
_MOST_DIMENSIONS, _LARGEST_DIMENSION = 8, 1 << 40


@dataclass(frozen=True)
class BaseSketch:
    """Shape and some values of every parameter of a plain network."""

    shapes: dict[str, tuple[int, ...]]
    values: dict[str, Tensor]
    """Float32, evenly spaced over the flattened parameter."""


@dataclass(frozen=True)
class Differences:
    """In what a network differs from a sketch, as names of parameters."""

    missing: tuple[str, ...]
    unlisted: tuple[str, ...]
    """What the network itself has beyond the sketch; what a LoRA or an IP-Adapter adds to it is not among them."""
    other_shape: tuple[str, ...]
    other_values: tuple[str, ...]
    """Empty too where the values are those of the sketch but for rounding."""
    quantised: tuple[str, ...]
    """Those that are packed by a quantisation library, whatever they are."""


def sketch_of(network: nn.Module) -> BaseSketch:
    """Sketch a network; what a LoRA wraps goes by its plain name, and what is quantised is left out.

    Raises:
        InputError: its weights are nowhere to be read.
    """
    shapes, values = {}, {}
    for name, parameter in _parameters(network):
        if not is_quantised(parameter):
            shapes[name] = tuple(parameter.shape)
            values[name] = _pick(parameter)
    return BaseSketch(shapes, values)


def find_differences(network: nn.Module, sketch: BaseSketch) -> Differences:
    """How a network differs from a sketch; parameters that were added to it do not matter.

    Each parameter is compared in the coarser of the two precisions that its values have, whatever they are held in now.
    A few values may still differ, where one of them was rounded twice on its way (float32 to float16 to bfloat16).

    Raises:
        InputError: the network's weights are nowhere to be read.
    """
    found = sketch_of(network)
    shared = [name for name in sketch.shapes if name in found.shapes]
    packed = _packed(network)
    quantised = tuple(name for name in sketch.shapes if name not in found.shapes and name in packed)
    missing = tuple(name for name in sketch.shapes if name not in found.shapes and name not in packed)
    other_shape = tuple(name for name in shared if found.shapes[name] != sketch.shapes[name])
    equal = {name: _equal(found.values[name], sketch.values[name]) for name in shared if name not in other_shape}
    own = (name for name in _own_names(network) if f"{name.rpartition('.')[0]}.weight" not in packed)
    unlisted = tuple(name for name in own if name not in sketch.shapes)
    return Differences(missing, unlisted, other_shape, _other_values(equal), quantised)


def is_quantised(parameter: Tensor) -> bool:
    """Whether a parameter is packed: integers, or a tensor of a library's own class, instead of plain numbers."""
    return not parameter.is_floating_point() or type(parameter.data) is not Tensor


def _packed(network: nn.Module) -> set[str]:
    """Plain names of all quantised parameters, those too that a linear layer of a library keeps under other names."""
    names = {_plain(name) for name, parameter in network.named_parameters() if is_quantised(parameter)}
    for path, module in network.named_modules():
        is_linear = hasattr(module, "in_features") and not hasattr(module, _WRAPPED)
        if is_linear and "weight" not in module._parameters:
            names |= {_plain(f"{path}.{name}") for name in ("weight", "bias")}
    return names


def _own_names(network: nn.Module) -> Iterator[str]:
    """Plain names of the parameters that a network had before anything was added to it."""
    wrappers = {
        path for path, module in network.named_modules() if isinstance(getattr(module, _WRAPPED, None), nn.Module)
    }
    for name, _ in network.named_parameters():
        parts = name.split(".")
        inside = (part for place, part in enumerate(parts) if ".".join(parts[:place]) in wrappers)
        if not _ADDED.intersection(parts) and all(part == _WRAPPED for part in inside):
            yield _plain(name)


def _plain(name: str) -> str:
    return name.replace(f".{_WRAPPED}.", ".")


def _other_values(equal: dict[str, Tensor]) -> tuple[str, ...]:
    """Parameters that are others; all with a different value where too many differ a little."""
    changed = tuple(name for name, same in equal.items() if same.float().mean() < _SAME_OF_A_PARAMETER)
    total = sum(same.numel() for same in equal.values())
    if not changed and sum(int(same.sum()) for same in equal.values()) < _SAME_OF_ALL * total:
        return tuple(name for name, same in equal.items() if not same.all())
    return changed


def _equal(a: Tensor, b: Tensor) -> Tensor:
    coarser = max(_precision(a), _precision(b), key=lambda dtype: torch.finfo(dtype).eps)
    return (a.to(coarser).float() - b.to(coarser).float()).abs() <= _FLOAT16_STEP


def _precision(values: Tensor) -> torch.dtype:
    """The coarsest type that holds these float32 values as they are."""
    exact = (dtype for dtype in (torch.bfloat16, torch.float16) if torch.equal(values.to(dtype).float(), values))
    return next(exact, torch.float32)


def _pick(parameter: Tensor) -> Tensor:
    flat = parameter.detach().reshape(-1)
    count = min(VALUES, flat.numel())
    return flat[torch.arange(count, device=flat.device) * flat.numel() // max(1, count)].float().cpu()


def _parameters(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter by its plain name, read back from where it was offloaded to."""
    on_disk = _on_disk(network)
    for path, module in network.named_modules():
        own = dict(module.named_parameters(recurse=False))
        with _loaded(module, own):
            for name, parameter in module.named_parameters(recurse=False):
                where = on_disk.get(id(parameter))
                yield _plain(f"{path}.{name}".lstrip(".")), _from_file(*where) if where else parameter


def _loaded(module: nn.Module, own: dict[str, nn.Parameter]) -> Any:
    """What accelerate keeps elsewhere is there while this block runs."""
    if not any(parameter.is_meta for parameter in own.values()):
        return nullcontext()
    if not hasattr(module, "_hf_hook"):
        raise InputError(f"this network's {type(module).__name__} is on the meta device: it holds no weights")
    from accelerate.utils import align_module_device  # type: ignore[import-untyped]

    return align_module_device(module, "cpu")


def _on_disk(network: nn.Module) -> dict[int, tuple[Path, str]]:
    """File and key by id of every parameter that diffusers' group offloading keeps there; its memory is anything."""
    found = {}
    for module in network.modules():
        registry = getattr(module, "_diffusers_hook", None)
        hook = registry and registry.get_hook("group_offloading")
        if hook and hook.group.offload_to_disk_path:
            place = Path(hook.group.safetensors_file_path)
            found.update({id(tensor): (place, key) for tensor, key in hook.group.tensor_to_key.items()})
    return found


def _from_file(path: Path, key: str) -> Tensor:
    with naming("cannot read back the offloaded weights"), open_tensors(path) as file:
        tensor: Tensor = file.get_tensor(key)
    return tensor


def save_sketch(sketch: BaseSketch, path: Path) -> None:
    """Write a sketch; equal sketches give equal bytes."""
    shapes = [[name, list(shape)] for name, shape in sketch.shapes.items()]
    save_tensors({"values": torch.cat([sketch.values[name] for name in sketch.shapes])}, path, json.dumps(shapes))


def load_sketch(path: Path) -> BaseSketch:
    """Read a sketch.

    Raises:
        InputError: missing, damaged, or not the one that was published.
    """
    require_intact(path.parent, (path.name,), _MOST_BYTES)
    try:
        tensors, note = load_tensors(path, _MOST_BYTES)
        shapes = _shapes(parse_json(note, "its list of parameters"))
        return BaseSketch(shapes, _values(tensors, shapes))
    except InputError as error:
        raise InputError(f"{printable(path)} does not hold a base sketch: {first_line(error)}") from error


def _shapes(listed: Any) -> dict[str, tuple[int, ...]]:
    if not isinstance(listed, list) or not listed:
        raise InputError("it lists no parameters")
    for item in listed:
        if not (isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) and _is_shape(item[1])):
            raise InputError(f"no name with a shape: {printable(item)[:80]}")
    shapes = {name: tuple(shape) for name, shape in listed}
    if len(shapes) < len(listed):
        raise InputError("it lists a parameter twice")
    return shapes


def _is_shape(shape: object) -> bool:
    return (
        isinstance(shape, list)
        and len(shape) <= _MOST_DIMENSIONS
        and all(type(size) is int and 0 < size < _LARGEST_DIMENSION for size in shape)
    )


def _values(tensors: dict[str, Tensor], shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    values, sizes = tensors.get("values"), [min(VALUES, math.prod(shape)) for shape in shapes.values()]
    if len(tensors) != 1 or values is None or values.dtype != torch.float32 or list(values.shape) != [sum(sizes)]:
        raise InputError("its values are not those of its list of parameters")
    if not values.isfinite().all():
        raise InputError("it holds NaN or infinite values")
    return dict(zip(shapes, torch.split(values, sizes), strict=True))
