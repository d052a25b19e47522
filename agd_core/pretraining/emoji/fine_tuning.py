"""Relatives of the emoji model that learn by a few of its UNet's tensors, all others frozen."""

from collections.abc import Callable
from pathlib import Path

from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn

from agd_core.basics.checkpoint import Checkpoint, load_tensors
from agd_core.methods.training_loop import Loop
from agd_core.pretraining.ema import Ema
from agd_core.pretraining.emoji.diffusion_training import Examples, VelocityLoss, diffusion_loop, text_to_image
from agd_core.pretraining.emoji.frozen_base import examples_of, mean_error, plain
from agd_core.pretraining.emoji.images import EmojiImages
from agd_core.pretraining.emoji.recipe import FineTuningRecipe

_DOT, _SLASH = ".", "/"
"""A name inside a network has dots, which names of parts must not have."""


def trained_part(network: nn.Module) -> nn.ModuleDict:
    """The modules of a network that hold parameters with gradients, shared with it."""
    chosen = {
        name.replace(_DOT, _SLASH): module
        for name, module in network.named_modules()
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False))
    }
    return nn.ModuleDict(chosen)


def trained_tensors(path: Path) -> dict[str, Tensor]:
    """The stored weights of a `trained_part`, by their names in the network."""
    return {name.replace(_SLASH, _DOT): tensor for name, tensor in load_tensors(path)[0].items()}


def load_into(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put trained tensors into the network; all others stay."""
    network.load_state_dict(tensors, strict=False)


def fine_tuning(
    base: StableDiffusionPipeline, examples: Examples, recipe: FineTuningRecipe, checkpoint: Checkpoint
) -> tuple[Loop, nn.Module]:
    """The training run of those parameters of the base's UNet that have gradients, and their average.

    Args:
        base: on the device where it is trained.
        examples: what is learnt.
        recipe: how.
        checkpoint: where the state is saved.
    """
    part = trained_part(base.unet)
    ema = Ema(part, recipe.ema_decay)
    predict = text_to_image(base.unet, base.text_encoder)
    loss = VelocityLoss(predict, examples, base.scheduler, recipe, base.unet.device)
    return diffusion_loop(part, ema, loss, recipe.steps, recipe, checkpoint), ema.average


def measured_errors(
    base: StableDiffusionPipeline,
    unseen: EmojiImages,
    recipe: FineTuningRecipe,
    change: Callable[[UNet2DConditionModel], None],
) -> dict[str, float]:
    """Error of the predicted v over pictures that were not learnt, before and after the base's UNet is changed.

    Args:
        base: its UNet is changed.
        unseen: where there are none, nothing is measured.
        recipe: of the training.
        change: turns the UNet into the relative's.
    """
    if not len(unseen):
        return {}
    examples = examples_of(base, unseen)
    before = mean_error(plain(base), base, examples, recipe)
    change(base.unet)
    return {"error_of_base": before, "error": mean_error(plain(base), base, examples, recipe)}
