"""The emoji model's LoRA: low-rank changes of the UNet's attention projections that draw everything in ink.

LoRA: https://arxiv.org/abs/2106.09685; its layers are peft's and its file is diffusers'.
"""

import dataclasses
from pathlib import Path

from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from agd_core.basics.checkpoint import system_errors
from agd_core.basics.errors import InputError
from agd_core.pretraining.emoji.images import EmojiImages
from agd_core.pretraining.emoji.ink import INK_STYLE, ink_drawing
from agd_core.pretraining.emoji.recipe import LoraRecipe

_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
_ADAPTER = "default"


def add_lora(unet: UNet2DConditionModel, rank: int) -> None:
    """Give a frozen UNet peft's layers, which alone have gradients; they change nothing before they are trained.

    Raises:
        InputError: peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise InputError("training a LoRA needs peft: pip install 'agd-pipeline[emoji]'") from error
    config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(_PROJECTIONS))
    unet.add_adapter(config, adapter_name=_ADAPTER)


def ink_pictures(images: EmojiImages, recipe: LoraRecipe) -> EmojiImages:
    """The pictures of one style as ink drawings, captioned in the ink style; there may be none."""
    chosen = images.rows([row for row, style in enumerate(images.styles) if style == recipe.drawn_from])
    return dataclasses.replace(chosen, pixels=ink_drawing(chosen.pixels), styles=(INK_STYLE,) * len(chosen))


def write_lora(tensors: dict[str, Tensor], folder: Path) -> None:
    """Write the layers in float16, so that `pipe.load_lora_weights(folder)` reads them.

    Args:
        tensors: by the names that peft gives them in the UNet.
        folder: where to write.

    Raises:
        OSError: no space, no permission, a disk that fails.
    """
    layers = {name.replace(f".{_ADAPTER}.", "."): tensor.half().contiguous() for name, tensor in tensors.items()}
    with system_errors():
        StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
