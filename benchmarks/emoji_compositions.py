"""The emoji world's base with what belongs to it attached, as stock pipelines: what is asked for, and how.

Relatives are the folders that `agd pretrain emoji-sd-RELATIVE` leaves, or those that ship.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from agd_core.builtin.edge_maps import edge_maps
from agd_core.models.difference import apply_difference
from agd_core.pretraining.emoji.images import HELD_OUT, SIBLING, TRAIN, EmojiImages
from agd_core.pretraining.emoji.lora import ink_pictures
from agd_core.pretraining.emoji.relative_recipes import CONTROLNETS, FOOD, IP_ADAPTERS, LORA, LORAS, SIBLINGS, STYLE
from benchmarks.emoji_sets import Asked, asked_for, asked_of, in_turn
from flows.stages.pretrain_emoji_ip_adapter import FILE, SUBFOLDER

BASE, CONTROLNET, IP_ADAPTER = "emoji-sd", CONTROLNETS["gpu"].name, IP_ADAPTERS["gpu"].name
NAMES = (BASE, STYLE, FOOD, LORA, CONTROLNET, IP_ADAPTER)
_LORA = LORAS["cpu"]
Pixels = UInt8[Tensor, "images height width 3"]


@dataclass(frozen=True)
class Task:
    """What a composition is asked for and measured against."""

    asked: Asked
    words: tuple[str, ...]
    """What the judge is asked; it knows no ink, so there it is told the style that was redrawn."""
    real: Pixels
    """Pictures as the composition should make them."""


def task_of(name: str, pictures: EmojiImages, images: int) -> Task:
    """The task of a composition: the base's own, or that of the pictures which a sibling or a LoRA has learnt."""
    if name in SIBLINGS:
        learnt = _of_sibling(name, pictures)
        asked = asked_for(in_turn(learnt, images))
        return Task(asked, asked.prompts, learnt.pixels)
    if name == LORA:
        return _of_lora(pictures, images)
    asked = asked_of(pictures, images)
    return Task(asked, asked.prompts, pictures.of(TRAIN, HELD_OUT, common_only=True).pixels)


def _of_sibling(name: str, pictures: EmojiImages) -> EmojiImages:
    recipe = SIBLINGS[name]["cpu"]
    own = pictures.of(*((SIBLING,) if recipe.style else (TRAIN, HELD_OUT)), common_only=True)
    pairs = enumerate(zip(own.styles, own.categories, strict=True))
    return own.rows([row for row, pair in pairs if recipe.style in ("", pair[0]) and recipe.category in ("", pair[1])])


def _of_lora(pictures: EmojiImages, images: int) -> Task:
    ink = ink_pictures(pictures.of(TRAIN, HELD_OUT, common_only=True), _LORA)
    chosen = in_turn(ink, images)
    known = asked_for(dataclasses.replace(chosen, styles=(_LORA.drawn_from,) * images))
    return Task(asked_for(chosen), known.prompts, ink.pixels)


@dataclass(frozen=True)
class Composition:
    """A stock pipeline with everything attached, and what its call is told beside the prompt."""

    pipe: Any
    told: Callable[[slice, bool], Mapping[str, Any]]
    """Arguments for some images, with guidance and without."""


def compose(name: str, base: Path, relatives: Path, pixels: Pixels, device: torch.device) -> Composition:
    """Load a composition.

    Args:
        name: one of `NAMES`.
        base: stock folder.
        relatives: holds their folders.
        pixels: a picture per image, whose edges or looks are the condition where there is one.
        device: float16 on a GPU, as weights are stored.
    """
    pipe = StableDiffusionPipeline.from_pretrained(base, dtype=_precision(device)).to(device)
    told: Callable[[slice, bool], Mapping[str, Any]] = _nothing
    if name in SIBLINGS:
        apply_difference(pipe.unet, relatives / name, base)
    elif name == LORA:
        pipe.load_lora_weights(relatives / name)
    elif name == CONTROLNET:
        network = ControlNetModel.from_pretrained(relatives / name, dtype=_precision(device)).to(device)
        pipe = StableDiffusionControlNetPipeline.from_pipe(pipe, controlnet=network, dtype=_precision(device))
        told = _edges(pixels)
    elif name == IP_ADAPTER:
        pipe.load_ip_adapter(str(relatives / name), SUBFOLDER, FILE)
        told = _looks(pipe, pixels)
    pipe.set_progress_bar_config(disable=True)
    return Composition(pipe, told)


def _precision(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "cpu" else torch.float16


def _nothing(rows: slice, guided: bool) -> Mapping[str, Any]:
    return {}


def _edges(pixels: Pixels) -> Callable[[slice, bool], Mapping[str, Any]]:
    return lambda rows, guided: {"image": edge_maps(pixels[rows]).contiguous()}


@torch.no_grad()
def _looks(pipe: Any, pixels: Pixels) -> Callable[[slice, bool], Mapping[str, Any]]:
    """The image encoder's embeddings, `[images, 1, width]`, behind those of no picture where there is guidance.

    The stock pipeline takes embeddings to be the same for all prompts of a batch and repeats them; here each prompt has
    its own, so they are handed on as they are.
    """
    pipe.prepare_ip_adapter_image_embeds = lambda image, embeddings, *rest: embeddings
    images = [Image.fromarray(picture.numpy()) for picture in pixels]
    device = pipe.unet.device
    embeddings = [pipe.encode_image(images[i : i + 256], device, 1) for i in range(0, len(images), 256)]
    positive, negative = (torch.cat(parts)[:, None] for parts in zip(*embeddings, strict=True))

    def told(rows: slice, guided: bool) -> Mapping[str, Any]:
        parts = [negative[rows], positive[rows]] if guided else [positive[rows]]
        return {"ip_adapter_image_embeds": [torch.cat(parts)]}

    return told
