"""A few pictures that stand for emoji: coloured squares with names, in two styles; and recipes for seconds."""

import torch

from agd_core.pretraining.emoji.images import HELD_OUT, TRAIN, EmojiImages
from agd_core.pretraining.emoji.ip_adapter import IpAdapterRecipe
from agd_core.pretraining.emoji.judge import JudgeRecipe
from agd_core.pretraining.emoji.recipe import DenoiserRecipe, EmojiRecipe, VaeRecipe

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220), "black": (10, 10, 10)}
STYLES = {"flat": 12, "round": 20}
"""A style's word, and how far its squares are from the edge."""


def emoji_pictures() -> EmojiImages:
    """Eight squares on white; the last one is held out."""
    pairs = [(colour, style) for colour in COLOURS for style in STYLES]
    pixels = torch.full((len(pairs), 64, 64, 3), 255, dtype=torch.uint8)
    for number, (colour, style) in enumerate(pairs):
        edge = STYLES[style]
        pixels[number, edge:-edge, edge:-edge] = torch.tensor(COLOURS[colour], dtype=torch.uint8)
    names, styles = tuple(f"{colour} square" for colour, _ in pairs), tuple(style for _, style in pairs)
    splits = (TRAIN,) * (len(pairs) - 1) + (HELD_OUT,)
    common = torch.ones(len(pairs), dtype=torch.bool)
    return EmojiImages(pixels, names, styles, splits, ("Symbols",) * len(pairs), common)


def tiny_recipe(steps: int = 3) -> EmojiRecipe:
    """The recipe with narrow networks and so many steps of each."""
    vae = VaeRecipe(channels=(8, 8, 16, 16), latent_channels=4, steps=steps, batch_size=4)
    denoiser = DenoiserRecipe(
        unet_channels=(16, 32), head_width=16, text_width=32, text_layers=1, epochs=steps, batch_size=7
    )
    return EmojiRecipe(vae=vae, denoiser=denoiser)


def tiny_judge_recipe(**settings: float) -> JudgeRecipe:
    """The judge's recipe with narrow networks, and these settings."""
    narrow = JudgeRecipe(patch=32, image_width=32, image_layers=1, text_width=32, text_layers=1, features=16)
    return narrow.model_copy(update=settings)


def tiny_ip_adapter_recipe(**settings: float) -> IpAdapterRecipe:
    """The IP-Adapter's recipe with a narrow image encoder, and these settings."""
    narrow = IpAdapterRecipe(batch_size=7, patch=32, image_width=32, image_layers=1, features=16)
    return narrow.model_copy(update=settings)
