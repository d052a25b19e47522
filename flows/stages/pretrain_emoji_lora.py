"""`builtin:emoji-sd-lora`: a LoRA that draws in ink, cached and resumable, in diffusers' format."""

from pathlib import Path
from typing import Any

from torch import nn

from agd_core.basics.atomic import write_json
from agd_core.basics.checkpoint import Checkpoint
from agd_core.methods.training_loop import Loop
from agd_core.models.sources import resolve_source
from agd_core.pretraining.emoji.attribution import write_attribution
from agd_core.pretraining.emoji.fine_tuning import fine_tuning, trained_tensors
from agd_core.pretraining.emoji.frozen_base import base_digest, examples_of, load_frozen, require_base
from agd_core.pretraining.emoji.images import EmojiImages
from agd_core.pretraining.emoji.ink import INK_STYLE
from agd_core.pretraining.emoji.lora import add_lora, ink_pictures, write_lora
from agd_core.pretraining.emoji.recipe import LoraRecipe
from agd_core.pretraining.emoji.relative_recipes import LORAS
from flows.stages.emoji_source import emoji_source, read_emoji
from flows.stages.network_training import WEIGHTS, trained_network
from flows.workplace import Workplace

ABOUT = "lora.json"


def pretrain_emoji_lora(data: Path | None, place: Workplace, size: str, base: str) -> dict[str, Any]:
    """Draw the emoji and train a LoRA for a base on ink drawings of some of them.

    Args:
        data: folder of the npm packages; None fetches them with npm.
        place: where to work.
        size: names the recipe.
        base: what the LoRA is for, as `base_model.source` names it.

    Raises:
        InputError: the base, the packages, what draws them or peft are missing.
        Stopped: after a checkpoint, when asked to; run again to resume.
    """
    folder = resolve_source(base)
    require_base(folder)
    source = emoji_source(data, place)
    return train_emoji_lora(read_emoji(source.path), source.digest, place, LORAS[size], folder)


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
    """
    learnt = ink_pictures(images, recipe)

    def start(checkpoint: Checkpoint) -> tuple[Loop, nn.Module]:
        frozen = load_frozen(base, place.device)
        examples = examples_of(frozen, learnt)
        add_lora(frozen.unet, recipe.rank)
        return fine_tuning(frozen, examples, recipe, checkpoint)

    identity = {"recipe": recipe.identity(), "images": seen, "base": base_digest(base)}
    trained = trained_network(recipe.name, identity, recipe.seed, start, place)
    folder = place.output / recipe.name
    write_lora(trained_tensors(trained.path / WEIGHTS), folder)
    write_json({"base": base.name, "prompt": f"NAME, {INK_STYLE} style", "recipe": recipe.identity()}, folder / ABOUT)
    write_attribution(folder)
    return {"artefacts": {recipe.name: str(folder)}, "measured": {"trained_images": len(learnt)}}
