"""Pictures moved by a few pixels, so that no network that looks at them counts on where exactly a thing is."""

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn.functional import pad

_WHITE = 255


def shifted(
    pixels: UInt8[Tensor, "batch height width 3"], most: int, rng: torch.Generator
) -> UInt8[Tensor, "batch 3 height width"]:
    """Colour planes, all moved by the same whole number of pixels down and right, white coming in.

    Args:
        pixels: on white.
        most: pixels in either direction.
        rng: on the CPU; two numbers are drawn from it.
    """
    down, right = torch.randint(-most, most + 1, (2,), generator=rng).tolist()
    height, width = pixels.shape[1:3]
    padded = pad(pixels.permute(0, 3, 1, 2), (most,) * 4, value=_WHITE)
    return padded[:, :, most + down : most + down + height, most + right : most + right + width]
