"""From 8-bit images to a network's input, and through the network in batches of one size."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from agd_core.basics.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BICUBIC = "bicubic with antialiasing in 8 bits"
"""What `resized` does, in words."""
_CPU_BATCH, _GPU_BATCH = 8, 64

Planes = UInt8[Tensor, "images 3 _ _"]


def planes(images: UInt8[Tensor, "images height width channels"]) -> Planes:
    """Three colour planes per image; one-channel images are repeated to three.

    Raises:
        InputError: images have neither one nor three channels.
    """
    channels = images.shape[3]
    if channels not in (1, 3):
        raise InputError(f"images have {channels} channels; allowed are 1 and 3")
    return images.permute(0, 3, 1, 2).expand(-1, 3, -1, -1).contiguous()


def resized(images: Planes, height: int, width: int) -> Planes:
    """Bicubic with antialiasing in 8 bits, as Pillow resizes up to rounding; give images on the CPU.

    The networks were made for images that Pillow had resized, and a GPU would round otherwise.
    """
    return interpolate(images, size=(height, width), mode="bicubic", antialias=True)


def normalised(images: Planes, mean: Sequence[float], std: Sequence[float]) -> Float[Tensor, "images 3 _ _"]:
    """`(x / 255 - mean) / std` per colour, x from 0 to 255."""
    scale = images.new_tensor([255 * value for value in std], dtype=torch.float32)
    shift = images.new_tensor([255 * value for value in mean], dtype=torch.float32)
    return (images.float() - shift[:, None, None]) / scale[:, None, None]


def batch_images(device: torch.device) -> int:
    """How many rows go through a network at once."""
    return _CPU_BATCH if device.type == "cpu" else _GPU_BATCH


def apply_in_batches(
    network: Callable[[Tensor], tuple[Tensor, ...]], rows: Tensor, device: torch.device
) -> tuple[Tensor, ...]:
    """What a network gives for every row, on the CPU, whatever the number of rows.

    Kernels differ with the batch size and round differently, so every batch has the same size: the last one is
    filled up with copies of its last row, whose results are dropped.

    Args:
        network: `[batch, ...]` on the CPU -> one or more `[batch, width]` on the device.
        rows: `[n, ...]`, at least one.
        device: where the network is; sets the size of the batches.
    """
    size = batch_images(device)
    outputs = [_apply(network, batch, size) for batch in torch.split(rows, size)]
    return tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))


def _apply(network: Callable[[Tensor], tuple[Tensor, ...]], batch: Tensor, size: int) -> list[Tensor]:
    filling = batch[-1:].expand(size - len(batch), *batch.shape[1:])
    outputs = network(torch.cat([batch, filling]))
    return [output[: len(batch)].cpu() for output in outputs]
