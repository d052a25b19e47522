"""VGG16's convolutions with RANDOM weights, by torchvision's names."""

from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file

from agd_core.basics.seeding import generator

_LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_CHANNELS = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
CONVOLUTIONS = dict(zip(_LAYERS, pairwise(_CHANNELS), strict=True))


def random_vgg16() -> dict[str, torch.Tensor]:
    noise = generator("random vgg16")
    tensors = {}
    for index, (inputs, outputs) in CONVOLUTIONS.items():
        tensors[f"features.{index}.weight"] = (
            torch.randn(outputs, inputs, 3, 3, generator=noise) * (2 / inputs / 9) ** 0.5
        )
        tensors[f"features.{index}.bias"] = 0.1 * torch.randn(outputs, generator=noise)
    return tensors


def write_random_vgg16(folder: Path) -> Path:
    save_file(random_vgg16(), folder / "random-vgg16.safetensors")
    return folder / "random-vgg16.safetensors"
