"""Job: what the other jobs' numbers are of, and how fast it is at a large product and a large copy."""

import platform
import statistics
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import torch

from agd_core.memory import GIB
from benchmarks.gpu.place import Place
from benchmarks.gpu.timing import machine, seconds_of

_LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "zarr", "numpy")
_TYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_ROUNDS = 10
_SIDE, _TOY_SIDE = 8192, 128


def run(place: Place) -> None:
    """Name the device and the versions, then measure the two ceilings."""
    device = torch.device(place.device_name)
    place.fact(device=machine(device), python=platform.python_version(), system=platform.platform())
    place.fact(**{library: _version(library) for library in _LIBRARIES})
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        gib, capability = properties.total_memory / GIB, f"{properties.major}.{properties.minor}"
        place.fact(memory_gib=round(gib, 1), capability=capability, cuda=torch.version.cuda)
    side = _TOY_SIDE if place.toy else _SIDE
    torch.set_float32_matmul_precision("high")
    for name, dtype in _TYPES.items():
        place.row("ceilings", {"what": f"product {side}^3, {name}", "TFLOP/s": _product(side, dtype, device)})
    place.fact(copy_gb_per_second=_copy(side, device))


def _product(side: int, dtype: torch.dtype, device: torch.device) -> float:
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / _median(lambda: left @ right, device) / 1e12


def _copy(side: int, device: torch.device) -> float:
    """Bytes read and bytes written."""
    source = torch.randn(8, side, side, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _median(lambda: target.copy_(source), device) / 1e9


def _median(step: Callable[[], object], device: torch.device) -> float:
    times = [seconds_of(step, device) for _ in range(_ROUNDS + 1)]
    return statistics.median(times[1:])


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"
