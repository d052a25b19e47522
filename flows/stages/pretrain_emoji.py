"""`builtin:emoji-sd`, trained from drawn emoji: VAE, then text encoder and UNet, each cached and resumable."""

import math
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL
from torch import Tensor, nn

from agd_core.basics.atomic import write_bytes, write_json
from agd_core.basics.checkpoint import Checkpoint, load_tensors, save_tensors
from agd_core.basics.digest import digest
from agd_core.methods.training_loop import Loop
from agd_core.pretraining.ema import Ema
from agd_core.pretraining.emoji.autoencoder import (
    autoencoder_loop,
    build_autoencoder,
    decode,
    encode,
    signed,
    standardise,
)
from agd_core.pretraining.emoji.caption_tokens import CaptionTokens
from agd_core.pretraining.emoji.captions import all_captions
from agd_core.pretraining.emoji.denoiser import build_denoiser, denoiser_loop
from agd_core.pretraining.emoji.diffusion_training import Examples
from agd_core.pretraining.emoji.images import HELD_OUT, TRAIN, EmojiImages
from agd_core.pretraining.emoji.pipeline import save
from agd_core.pretraining.emoji.prompt_lists import write_prompt_lists
from agd_core.pretraining.emoji.recipe import RECIPES, EmojiRecipe, VaeRecipe
from agd_core.pretraining.emoji.tokenizer import load_tokenizer, write_tokenizer
from agd_core.report.plots import loss_plot
from flows.stages.emoji_source import emoji_source, read_emoji
from flows.stages.network_training import LOSSES, WEIGHTS, trained_network
from flows.workplace import Workplace
from storage.artefacts import Artefact

VERSION = 1
AUTOENCODER, EXAMPLES, DENOISER = "emoji-vae", "emoji-examples", "emoji-denoiser"
LATENTS, TOKENIZER = "latents.safetensors", "tokenizer"


def pretrain_emoji(data: Path | None, place: Workplace, size: str) -> dict[str, Any]:
    """Draw the emoji, train on them and assemble `emoji-sd` in the output folder.

    Args:
        data: folder of the npm packages; None fetches them with npm.
        place: where to work.
        size: names the recipe.

    Raises:
        InputError: the packages or what draws them are missing.
        Stopped: after a checkpoint, when asked to; run again to resume.
    """
    source = emoji_source(data, place)
    return train_emoji(read_emoji(source.path), source.digest, place, RECIPES[size])


def train_emoji(images: EmojiImages, seen: str, place: Workplace, recipe: EmojiRecipe) -> dict[str, Any]:
    """Train on drawn emoji, on the device of the workplace.

    Args:
        images: those to train on, and held-out ones on which the VAE is measured.
        seen: identity of the images.
        place: where to work.
        recipe: of both trainings.
    """
    learnt = images.of(TRAIN, common_only=recipe.denoiser.common_only)
    autoencoder = _autoencoder(recipe.vae, images.of(TRAIN).pixels, seen, place)
    examples = _examples(autoencoder, recipe, learnt, place)
    denoiser = _denoiser(examples, recipe, learnt, place)
    vae, folder = _load_vae(examples, recipe.vae), place.output / "emoji-sd"
    parts = _build(examples, recipe)
    parts.load_state_dict(load_tensors(denoiser.path / WEIGHTS)[0])
    save(vae, parts, examples.path / TOKENIZER, folder)
    write_prompt_lists(images, place.output / "captions")
    measured = _measured(vae.to(place.device), images, place) | {"trained_images": len(learnt)}
    write_bytes(
        loss_plot({a.stage: a.json(LOSSES, list[float]) for a in (autoencoder, denoiser)}), place.output / "losses.png"
    )
    write_json(measured, place.output / "pretrain.json")
    return {"artefacts": {"emoji-sd": str(folder)}, "measured": measured}


def _autoencoder(recipe: VaeRecipe, pixels: Tensor, seen: str, place: Workplace) -> Artefact:
    def start(checkpoint: Checkpoint) -> tuple[Loop, nn.Module]:
        model = build_autoencoder(recipe).to(place.device)
        ema = Ema(model, recipe.ema_decay)
        return autoencoder_loop(model, ema, pixels, recipe, checkpoint), ema.average

    return trained_network(AUTOENCODER, {"recipe": recipe.identity(), "images": seen}, recipe.seed, start, place)


def _examples(autoencoder: Artefact, recipe: EmojiRecipe, learnt: EmojiImages, place: Workplace) -> Artefact:
    """What the denoiser learns from: latents of every picture, the VAE that made them, the tokenizer."""
    captions = _captions(learnt)

    def work(artefact: Artefact) -> None:
        place.announce(f"{EXAMPLES}: encoding {len(learnt):,} pictures")
        write_tokenizer([text for each in captions for text in each], artefact.path / TOKENIZER)
        vae = build_autoencoder(recipe.vae)
        vae.load_state_dict(load_tensors(autoencoder.path / WEIGHTS)[0])
        with place.on_device("encode the emoji"):
            standardise(vae.to(place.device), encode(vae, learnt.pixels)[0])
            mean, std = encode(vae, learnt.pixels)
        save_tensors({"mean": mean, "std": std}, artefact.path / LATENTS)
        save_tensors(vae.state_dict(), artefact.path / WEIGHTS)

    identity = {
        "version": VERSION,
        "autoencoder": autoencoder.digest,
        "images": autoencoder.key,
        "common_only": recipe.denoiser.common_only,
        "captions": digest(captions),
    }
    return place.produce(EXAMPLES, identity, work)


def _denoiser(examples: Artefact, recipe: EmojiRecipe, learnt: EmojiImages, place: Workplace) -> Artefact:
    def start(checkpoint: Checkpoint) -> tuple[Loop, nn.Module]:
        captions = CaptionTokens.of(load_tokenizer(examples.path / TOKENIZER), _captions(learnt))
        latents, _ = load_tensors(examples.path / LATENTS)
        model = _build(examples, recipe).to(place.device)
        ema = Ema(model, recipe.denoiser.ema_decay)
        loop = denoiser_loop(model, ema, Examples(captions=captions, **latents), recipe.denoiser, checkpoint)
        return loop, ema.average

    identity = {"recipe": recipe.denoiser.identity(), "examples": examples.digest}
    return trained_network(DENOISER, identity, recipe.denoiser.seed, start, place)


def _captions(images: EmojiImages) -> list[list[str]]:
    return [all_captions(name, style) for name, style in zip(images.names, images.styles, strict=True)]


def _build(examples: Artefact, recipe: EmojiRecipe) -> nn.ModuleDict:
    """The untrained denoiser for these examples."""
    shape = load_tensors(examples.path / LATENTS)[0]["mean"].shape[1:]
    return build_denoiser(recipe.denoiser, shape, load_tokenizer(examples.path / TOKENIZER))


def _load_vae(examples: Artefact, recipe: VaeRecipe) -> AutoencoderKL:
    model = build_autoencoder(recipe)
    model.load_state_dict(load_tensors(examples.path / WEIGHTS)[0])
    model.register_to_config(scaling_factor=1.0)
    return model.eval()


def _measured(vae: AutoencoderKL, images: EmojiImages, place: Workplace) -> dict[str, float]:
    """What the VAE alone costs: peak signal-to-noise ratio over pictures that it never saw, in decibels."""
    unseen = images.of(HELD_OUT)
    if not len(unseen):
        return {}
    with place.on_device("measure the autoencoder"):
        decoded = decode(vae, encode(vae, unseen.pixels)[0]).clamp(-1, 1)
    error = float((decoded - signed(unseen.pixels)).square().mean())
    return {"vae_psnr_decibels": 10 * math.log10(4 / error)}
