"""A fine-tuned model as its difference from the base: the UNet's tensors that differ, and which base they belong to.

The folder holds `difference.safetensors`, float16 tensors under the UNet's own names that take the place of the base's,
and `difference.json` with the fingerprint of the base's UNet. Base and difference together are a stock folder.
"""

import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from agd_core.basics.atomic import replacing, write_json
from agd_core.basics.checkpoint import load_tensors, save_tensors, system_errors
from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable
from agd_core.models.folder import require_safe_folder
from agd_core.models.reading import read_settings, stored_fingerprint

TENSORS, DESCRIPTION = "difference.safetensors", "difference.json"
UNET = "unet"
_CREDITS = "ATTRIBUTION.md"
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_MOST_BYTES = 1 << 30


def write_difference(tensors: dict[str, Tensor], base: Path, about: dict[str, Any], folder: Path) -> None:
    """Write what a fine-tuned model has in place of its base's tensors.

    Args:
        tensors: of the UNet, by its own names.
        base: the stock folder that was fine-tuned.
        about: what to say of it, as plain data.
        folder: where to write.

    Raises:
        OSError: no space, no permission, a disk that fails.
    """
    save_tensors({name: tensor.half() for name, tensor in tensors.items()}, folder / TENSORS)
    write_json({"base_fingerprint": stored_fingerprint(base / UNET), **about}, folder / DESCRIPTION)


def apply_difference(unet: nn.Module, difference: Path, base: Path) -> None:
    """Turn a base's UNet into the fine-tuned one, in place.

    Args:
        unet: as it was loaded from the base, in any precision.
        difference: the folder of `write_difference`.
        base: the stock folder that the UNet comes from.

    Raises:
        InputError: another base, or the difference is damaged or fits no such network.
    """
    own = unet.state_dict()
    for name, tensor in _read(difference, base, {name: value.shape for name, value in own.items()}).items():
        own[name].copy_(tensor)


def write_fine_tuned(difference: Path, base: Path, folder: Path) -> None:
    """Write base and difference together as a stock folder.

    Args:
        difference: the folder of `write_difference`.
        base: the stock folder that was fine-tuned.
        folder: where to write; replaced if it is there.

    Raises:
        InputError: see `apply_difference`.
        OSError: no space, no permission, a disk that fails.
    """
    for source in (base, difference):
        require_safe_folder(source)
    own, _ = load_tensors(base / UNET / _WEIGHTS)
    changed = _read(difference, base, {name: tensor.shape for name, tensor in own.items()})
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder)
    own |= {name: tensor.to(own[name].dtype) for name, tensor in changed.items()}
    if (difference / _CREDITS).is_file():
        shutil.copyfile(difference / _CREDITS, folder / _CREDITS)  # names what the base learnt from, and more
    with replacing(folder / UNET / _WEIGHTS) as partial, system_errors():
        save_file(own, partial, {"format": "pt"})


def _read(difference: Path, base: Path, shapes: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a difference that belongs to this base and fits its network."""
    expected = read_settings(difference / DESCRIPTION, "difference's").get("base_fingerprint")
    found = stored_fingerprint(base / UNET)
    if expected != found:
        wanted = printable(str(expected))[:12]
        raise InputError(f"{printable(difference)} belongs to base {wanted}, {printable(base)} is {found[:12]}")
    tensors, _ = load_tensors(difference / TENSORS, _MOST_BYTES)
    for name, tensor in tensors.items():
        if shapes.get(name) != tensor.shape:
            raise InputError(
                f"{printable(difference)}: {printable(name)} is no tensor of the base, or of another shape"
            )
    return tensors
