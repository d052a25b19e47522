"""`builtin:emoji-sd-lora`: a LoRA that draws in ink, cached and resumable, in diffusers' format."""

from pathlib import Path
from typing import Any

from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from agd_core.basics.atomic import replacing_folder, write_json
from agd_core.basics.checkpoint import Checkpoint
from agd_core.basics.errors import InputError
from agd_core.methods.training_loop import Loop
from agd_core.pretraining.emoji.attribution import write_attribution
from agd_core.pretraining.emoji.fine_tuning import fine_tuning, load_into, measured_errors, trained_tensors
from agd_core.pretraining.emoji.frozen_base import base_digest, examples_of, load_frozen
from agd_core.pretraining.emoji.images import HELD_OUT, TRAIN, EmojiImages
from agd_core.pretraining.emoji.ink import INK_STYLE
from agd_core.pretraining.emoji.lora import add_lora, ink_pictures, write_lora
from agd_core.pretraining.emoji.recipe import LoraRecipe
from flows.stages.network_training import WEIGHTS, trained_network
from flows.workplace import Workplace

ABOUT = "lora.json"


def train_emoji_lora(
    images: EmojiImages, seen: str, place: Workplace, recipe: LoraRecipe, base: Path
) -> dict[str, Any]:
    """Train a LoRA of the base's attention projections, on the device of the workplace.

    Args:
        images: of all splits; the recipe says which are redrawn and learnt.
        seen: identity of the images.
        place: where to work.
        recipe: of the training.
        base: a stock folder.

    Raises:
        InputError: there is nothing to learn from, or peft is missing.
        Stopped: after a checkpoint, when asked to; run again to resume.
    """
    learnt = ink_pictures(images.of(TRAIN, common_only=recipe.common_only), recipe)
    if not len(learnt):
        raise InputError(f"{recipe.name}: there is no picture of style {recipe.drawn_from}")

    def start(checkpoint: Checkpoint) -> tuple[Loop, nn.Module]:
        frozen = load_frozen(base, place.device)
        examples = examples_of(frozen, learnt)
        add_lora(frozen.unet, recipe.rank)
        return fine_tuning(frozen, examples, recipe, checkpoint)

    identity = {"recipe": recipe.identity(), "images": seen, "base": base_digest(base)}
    trained = trained_network(recipe.name, identity, recipe.seed, start, place)
    folder, tensors = place.output / recipe.name, trained_tensors(trained.path / WEIGHTS)
    about = {"base": base.name, "prompt": f"NAME, {INK_STYLE} style", "recipe": recipe.identity()}
    with replacing_folder(folder) as partial:
        write_lora(tensors, partial)
        write_json(about, partial / ABOUT)
        write_attribution(partial)
    measured = _measured(images, tensors, place, recipe, base)
    return {"artefacts": {recipe.name: str(folder)}, "measured": {"trained_images": len(learnt)} | measured}


def _measured(
    images: EmojiImages, tensors: dict[str, Tensor], place: Workplace, recipe: LoraRecipe, base: Path
) -> dict[str, float]:
    """Errors over ink drawings that it did not learn, of the base and with the LoRA."""

    def change(unet: UNet2DConditionModel) -> None:
        add_lora(unet, recipe.rank)
        load_into(unet, tensors)

    with place.on_device("measure the LoRA"):
        unseen = ink_pictures(images.of(HELD_OUT), recipe)
        return measured_errors(load_frozen(base, place.device), unseen, recipe, change)
