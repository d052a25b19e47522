"""A sketch of a network's weights: a few values of every parameter, enough to tell one checkpoint from another.

It recognises the network that an adapter was trained on wherever it is loaded: in another precision, under a LoRA or an
IP-Adapter (which only add parameters), on any device, or offloaded.
"""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from agd_core.checkpoint import load_tensors, save_tensors
from agd_core.errors import InputError, first_line

VALUES = 16
"""Values that are kept of every parameter, fewer of one that has fewer."""
_SAME_OF_A_PARAMETER, _SAME_OF_ALL = 0.5, 0.9
_FLOAT16_STEP = 2.0**-24
"""What float16 cannot tell from nothing."""
_LORA_WRAPPED = ".base_layer."


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
    other_shape: tuple[str, ...]
    other_values: tuple[str, ...]
    """Empty too where the values are those of the sketch but for rounding."""


def sketch_of(network: nn.Module) -> BaseSketch:
    """Sketch a network; what a LoRA wraps goes by its plain name."""
    shapes, values = {}, {}
    for name, parameter in _parameters(network):
        shapes[name] = tuple(parameter.shape)
        values[name] = _pick(parameter)
    return BaseSketch(shapes, values)


def compare(network: nn.Module, sketch: BaseSketch) -> Differences:
    """How a network differs from a sketch; parameters that it has beyond the sketch do not matter.

    Each parameter is compared in the coarser of the two precisions that its values have, whatever they are held in now.
    A few values may still differ, where one of them was rounded twice on its way (float32 to float16 to bfloat16).
    """
    found = sketch_of(network)
    missing = tuple(name for name in sketch.shapes if name not in found.shapes)
    shared = [name for name in sketch.shapes if name in found.shapes]
    other_shape = tuple(name for name in shared if found.shapes[name] != sketch.shapes[name])
    equal = {name: _equal(found.values[name], sketch.values[name]) for name in shared if name not in other_shape}
    return Differences(missing, other_shape, _other_values(equal))


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
    """Every parameter by its plain name, read back from where accelerate put it."""
    for path, module in network.named_modules():
        own = dict(module.named_parameters(recurse=False))
        with _loaded(module, own):
            for name, parameter in module.named_parameters(recurse=False):
                yield f"{path}.{name}".lstrip(".").replace(_LORA_WRAPPED, "."), parameter


def _loaded(module: nn.Module, own: dict[str, nn.Parameter]) -> Any:
    if not any(parameter.is_meta for parameter in own.values()):
        return nullcontext()
    from accelerate.utils import align_module_device  # type: ignore[import-untyped]

    return align_module_device(module, "cpu")


def save_sketch(sketch: BaseSketch, path: Path) -> None:
    """Write a sketch; equal sketches give equal bytes."""
    shapes = [[name, list(shape)] for name, shape in sketch.shapes.items()]
    save_tensors({"values": torch.cat([sketch.values[name] for name in sketch.shapes])}, path, json.dumps(shapes))


def load_sketch(path: Path) -> BaseSketch:
    """Read a sketch.

    Raises:
        InputError: missing or damaged.
    """
    try:
        tensors, note = load_tensors(path)
        shapes = {str(name): tuple(shape) for name, shape in json.loads(note)}
        sizes = [min(VALUES, torch.Size(shape).numel()) for shape in shapes.values()]
        return BaseSketch(shapes, dict(zip(shapes, torch.split(tensors["values"], sizes), strict=True)))
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path} does not hold a base sketch: {first_line(error)}") from error
