"""Fine-tuned siblings of the emoji model: which pictures they learn, and by which of the UNet's tensors.

Text reaches the UNet through cross-attention alone, and of all layers its weights move most when a model is fine-tuned;
training its keys and values alone is enough for a new concept, with other pictures mixed in so that nothing is
forgotten: Custom Diffusion, https://arxiv.org/abs/2212.04488, section 3.1.
"""

import torch
from torch import nn

from agd_core.basics.errors import InputError
from agd_core.pretraining.emoji.images import HELD_OUT, SIBLING, TRAIN, EmojiImages
from agd_core.pretraining.emoji.recipe import SiblingRecipe


def train_attention(unet: nn.Module, recipe: SiblingRecipe) -> None:
    """Have gradients for the attention layers of the recipe, and for nothing else."""
    unet.requires_grad_(False)
    for name, module in unet.named_modules():
        if name.rpartition(".")[2] in recipe.attention:
            module.requires_grad_(True)


def sibling_pictures(images: EmojiImages, recipe: SiblingRecipe) -> tuple[EmojiImages, torch.Tensor]:
    """The pictures that a sibling learns, and their numbers, each as often as an epoch shows it, `[examples]`.

    Raises:
        InputError: there are none.
    """
    own = _belonging(images.of(SIBLING if recipe.style else TRAIN, common_only=recipe.common_only), recipe)
    if not len(own):
        raise InputError(f"{recipe.name}: there is no picture of {recipe.style or recipe.category}")
    if not recipe.base_share:
        return own, torch.arange(len(own))
    others = images.of(TRAIN, common_only=recipe.common_only)
    wanted = len(others) * (1 - recipe.base_share) / recipe.base_share
    repeated = torch.arange(len(own)).repeat(max(1, round(wanted / len(own))))
    return own.joined(others), torch.cat([repeated, torch.arange(len(others)) + len(own)])


def unseen_pictures(images: EmojiImages, recipe: SiblingRecipe) -> EmojiImages:
    """Pictures of the sibling's kind that nobody learns; a style of its own has none."""
    return _belonging(images.of(HELD_OUT), recipe)


def _belonging(images: EmojiImages, recipe: SiblingRecipe) -> EmojiImages:
    """Those of the recipe's style or group."""
    known = enumerate(zip(images.styles, images.categories, strict=True))
    wanted = (recipe.style, recipe.category)
    return images.rows([row for row, found in known if all(map(_fits, wanted, found))])


def _fits(wanted: str, found: str) -> bool:
    return wanted in ("", found)
