"""`builtin:emoji-sd-style` and `builtin:emoji-sd-food`: fine-tuned siblings, cached and resumable.

Each leaves two folders: what differs from the base, which ships, and both together as a stock folder.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from agd_core.basics.atomic import replacing_folder
from agd_core.basics.checkpoint import Checkpoint
from agd_core.builtin.shipped import STOCK
from agd_core.methods.training_loop import Loop
from agd_core.models.difference import write_difference, write_fine_tuned
from agd_core.pretraining.emoji.attribution import write_attribution
from agd_core.pretraining.emoji.fine_tuning import fine_tuning, load_into, measured_errors, trained_tensors
from agd_core.pretraining.emoji.frozen_base import base_digest, examples_of, load_frozen
from agd_core.pretraining.emoji.images import EmojiImages
from agd_core.pretraining.emoji.recipe import SiblingRecipe
from agd_core.pretraining.emoji.sibling import sibling_pictures, train_attention, unseen_pictures
from flows.stages.network_training import WEIGHTS, trained_network
from flows.workplace import Workplace


def train_emoji_sibling(
    images: EmojiImages, seen: str, place: Workplace, recipe: SiblingRecipe, base: Path
) -> dict[str, Any]:
    """Fine-tune the base's attention layers on drawn emoji, on the device of the workplace.

    Args:
        images: of all splits; the recipe says which are learnt.
        seen: identity of the images.
        place: where to work.
        recipe: of the training.
        base: a stock folder.

    Raises:
        InputError: there is nothing to learn from.
        Stopped: after a checkpoint, when asked to; run again to resume.
    """
    learnt, rows = sibling_pictures(images, recipe)

    def start(checkpoint: Checkpoint) -> tuple[Loop, nn.Module]:
        frozen = load_frozen(base, place.device)
        examples = examples_of(frozen, learnt).rows(rows)
        train_attention(frozen.unet, recipe)
        return fine_tuning(frozen, examples, recipe, checkpoint)

    identity = {"recipe": recipe.identity(), "images": seen, "base": base_digest(base)}
    trained = trained_network(recipe.name, identity, recipe.seed, start, place)
    tensors = trained_tensors(trained.path / WEIGHTS)
    artefacts = _written(tensors, place, recipe, base)
    with place.on_device(f"measure {recipe.name}"):
        unseen, frozen = unseen_pictures(images, recipe), load_frozen(base, place.device)
        measured = measured_errors(frozen, unseen, recipe, lambda unet: load_into(unet, tensors))
    return {"artefacts": artefacts, "measured": {"trained_images": len(learnt)} | measured}


def _written(tensors: dict[str, Tensor], place: Workplace, recipe: SiblingRecipe, base: Path) -> dict[str, str]:
    """Write both folders; where they are, by name."""
    folder, stock = place.output / recipe.name, place.output / f"{recipe.name}{STOCK}"
    about = {"name": recipe.name, "base": base.name, "recipe": recipe.identity()}
    with replacing_folder(folder) as partial:
        write_difference(tensors, base, about, partial)
        write_attribution(partial, {recipe.style})
    with replacing_folder(stock) as partial:
        write_fine_tuned(folder, base, partial)
        write_attribution(partial, {recipe.style})
    return {recipe.name: str(folder), stock.name: str(stock)}
