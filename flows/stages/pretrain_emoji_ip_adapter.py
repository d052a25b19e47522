"""`builtin:emoji-sd-ip-adapter`: an IP-Adapter and its image encoder, trained on a frozen `emoji-sd`; resumable."""

from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline
from torch import nn

from agd_core.basics.atomic import replacing_folder, write_json
from agd_core.basics.checkpoint import Checkpoint, load_tensors, save_tensors, system_errors
from agd_core.methods.training_loop import Loop
from agd_core.pretraining.ema import Ema
from agd_core.pretraining.emoji.attribution import write_attribution
from agd_core.pretraining.emoji.frozen_base import (
    base_digest,
    examples_of,
    load_frozen,
    mean_error,
    plain,
)
from agd_core.pretraining.emoji.image_prompts import ImageConditioned, ImagePrompts, ip_adapter_loop, with_image_prompts
from agd_core.pretraining.emoji.images import HELD_OUT, TRAIN, EmojiImages
from agd_core.pretraining.emoji.ip_adapter import ENCODER, IpAdapterRecipe, build_ip_adapter, stored_state
from agd_core.pretraining.emoji.pipeline import load_in_full_precision
from flows.stages.network_training import WEIGHTS, trained_network
from flows.workplace import Workplace

SUBFOLDER, FILE = "models", "ip-adapter.safetensors"
"""`pipe.load_ip_adapter(folder, SUBFOLDER, FILE)`, which finds the image encoder beside the file."""
ABOUT = "ip-adapter.json"


def train_emoji_ip_adapter(
    images: EmojiImages, seen: str, place: Workplace, recipe: IpAdapterRecipe, base: Path
) -> dict[str, Any]:
    """Train on the base styles' pictures and leave `emoji-sd-ip-adapter` as `load_ip_adapter` reads it, and its recipe.

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
        examples = examples_of(frozen, learnt)
        ema = Ema(build_ip_adapter(frozen, recipe), recipe.ema_decay)
        prompts = ImagePrompts(ema.module, learnt.pixels, recipe, place.device)
        return ip_adapter_loop(ema, frozen, prompts, examples, checkpoint), ema.average

    identity = {"recipe": recipe.identity(), "images": seen, "base": base_digest(base)}
    trained = trained_network(recipe.name, identity, recipe.seed, start, place)
    unseen = images.of(HELD_OUT)
    with place.on_device("measure the IP-Adapter"):
        frozen = load_frozen(base, place.device)
        without = _error_without(frozen, unseen, recipe)
        adapter = build_ip_adapter(frozen, recipe).requires_grad_(False)
        adapter.load_state_dict(load_tensors(trained.path / WEIGHTS)[0])
        measured = without | _error_with(adapter, frozen, unseen, recipe)
    with replacing_folder(folder) as partial:
        _save(adapter, frozen, partial / SUBFOLDER)
        write_json({"base": base.name, "recipe": recipe.identity()}, partial / ABOUT)
        write_attribution(partial)
    return {"artefacts": {recipe.name: str(folder)}, "measured": measured}


def _error_without(base: StableDiffusionPipeline, unseen: EmojiImages, recipe: IpAdapterRecipe) -> dict[str, float]:
    """Error of the predicted v over pictures that nobody learnt, by the base alone."""
    return {"error_without": mean_error(plain(base), base, examples_of(base, unseen), recipe)} if len(unseen) else {}


def _error_with(
    adapter: nn.Module, base: StableDiffusionPipeline, unseen: EmojiImages, recipe: IpAdapterRecipe
) -> dict[str, float]:
    """The same when each picture is its own image prompt."""
    if not len(unseen):
        return {}
    prompts = ImagePrompts(adapter, unseen.pixels, recipe, base.device)
    told = with_image_prompts(ImageConditioned(base.unet), base, prompts, dropped=0.0)
    return {"error_with_image_prompts": mean_error(told, base, examples_of(base, unseen), recipe)}


def _save(adapter: nn.ModuleDict, base: StableDiffusionPipeline, folder: Path) -> None:
    """The adapter's file, its image encoder and how pictures become its input."""
    save_tensors(stored_state(adapter), folder / FILE)
    with system_errors():
        base.image_encoder.half().save_pretrained(folder / ENCODER)
        base.feature_extractor.save_pretrained(folder / ENCODER)
    load_in_full_precision(folder / ENCODER / "config.json")
