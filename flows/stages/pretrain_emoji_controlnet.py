"""`builtin:emoji-sd-controlnet`: a ControlNet on edge maps, trained on a frozen `emoji-sd`; cached and resumable."""

from pathlib import Path
from typing import Any

from diffusers import ControlNetModel, StableDiffusionPipeline
from torch import nn

from agd_core.basics.atomic import replacing_folder, write_json
from agd_core.basics.checkpoint import Checkpoint, load_tensors, system_errors
from agd_core.methods.training_loop import Loop
from agd_core.pretraining.ema import Ema
from agd_core.pretraining.emoji.attribution import write_attribution
from agd_core.pretraining.emoji.controlnet import (
    ControlNetRecipe,
    EdgeConditioned,
    build_controlnet,
    controlnet_loop,
    with_edges,
)
from agd_core.pretraining.emoji.frozen_base import (
    base_digest,
    examples_of,
    load_frozen,
    mean_error,
    plain,
)
from agd_core.pretraining.emoji.images import HELD_OUT, TRAIN, EmojiImages
from flows.stages.network_training import WEIGHTS, trained_network
from flows.workplace import Workplace

ABOUT = "controlnet.json"


def train_emoji_controlnet(
    images: EmojiImages, seen: str, place: Workplace, recipe: ControlNetRecipe, base: Path
) -> dict[str, Any]:
    """Train on the base styles' pictures and leave `emoji-sd-controlnet`, a ControlNetModel's folder, and its recipe.

    Args:
        images: of all styles.
        seen: identity of the images.
        place: where to work.
        recipe: of the training.
        base: stock folder of the base.

    Raises:
        InputError: the base may not be opened.
        Stopped: after a checkpoint, when asked to; run again to resume.
    """
    learnt, folder = images.of(TRAIN, common_only=recipe.common_only), place.output / recipe.name

    def start(checkpoint: Checkpoint) -> tuple[Loop, nn.Module]:
        frozen = load_frozen(base, place.device)
        ema = Ema(_build(frozen), recipe.ema_decay)
        loop = controlnet_loop(ema, frozen, learnt.pixels, examples_of(frozen, learnt), recipe, checkpoint)
        return loop, ema.average

    identity = {"recipe": recipe.identity(), "images": seen, "base": base_digest(base)}
    trained = trained_network(recipe.name, identity, recipe.seed, start, place)
    with place.on_device("measure the ControlNet"):
        frozen = load_frozen(base, place.device)
        controlnet = _build(frozen).requires_grad_(False)
        controlnet.load_state_dict(load_tensors(trained.path / WEIGHTS)[0])
        measured = _measured(controlnet, frozen, images.of(HELD_OUT), recipe)
    with replacing_folder(folder) as partial, system_errors():
        controlnet.half().save_pretrained(partial)
        write_json({"base": base.name, "recipe": recipe.identity()}, partial / ABOUT)
        write_attribution(partial)
    return {"artefacts": {recipe.name: str(folder)}, "measured": measured}


def _build(base: StableDiffusionPipeline) -> ControlNetModel:
    return build_controlnet(base.unet, base.vae_scale_factor).to(base.device)


def _measured(
    controlnet: ControlNetModel, base: StableDiffusionPipeline, unseen: EmojiImages, recipe: ControlNetRecipe
) -> dict[str, float]:
    """Errors of the predicted v over pictures that nobody learnt, with their edges and without."""
    if not len(unseen):
        return {}
    examples, told = examples_of(base, unseen), with_edges(EdgeConditioned(controlnet, base.unet), base, unseen.pixels)
    return {
        "error_with_edges": mean_error(told, base, examples, recipe),
        "error_without": mean_error(plain(base), base, examples, recipe),
    }
