"""The base that relatives are trained on: a stock Stable Diffusion folder, frozen, and pictures as it learnt them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from agd_core.basics.digest import digest, file_digest
from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable
from agd_core.models.folder import require_safe_folder
from agd_core.models.quiet import quiet
from agd_core.models.reading import pipeline_class, read_settings
from agd_core.pretraining.emoji.autoencoder import encode
from agd_core.pretraining.emoji.caption_tokens import CaptionTokens
from agd_core.pretraining.emoji.captions import all_captions
from agd_core.pretraining.emoji.diffusion_training import Examples, NoisyBatch, Predict, VelocityLoss
from agd_core.pretraining.emoji.images import EmojiImages
from agd_core.pretraining.emoji.recipe import DiffusionRecipe

_ERROR_STEPS = 8

_PIPELINE, _PREDICTION = "StableDiffusionPipeline", "v_prediction"
_SCHEDULER = "scheduler/scheduler_config.json"


def require_base(folder: Path) -> None:
    """Make sure that relatives can be trained on a folder.

    Raises:
        InputError: it may not be opened, or is no Stable Diffusion that predicts v.
    """
    require_safe_folder(folder)
    found = pipeline_class(folder), read_settings(folder / _SCHEDULER).get("prediction_type")
    if found != (_PIPELINE, _PREDICTION):
        said = printable(f"{found[0]} with {found[1]}")
        raise InputError(f"base {printable(folder)} is a {said}; a relative needs a {_PIPELINE} with {_PREDICTION}")


def load_frozen(folder: Path, device: torch.device) -> StableDiffusionPipeline:
    """The base in full precision; nothing of it is trained.

    Raises:
        InputError: it is no folder that may be opened.
    """
    require_safe_folder(folder)
    with quiet():
        base = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True).to(device)
    base.set_progress_bar_config(disable=True)
    for part in (base.vae, base.text_encoder, base.unet):
        part.requires_grad_(False).eval()
    return base


def base_digest(folder: Path) -> str:
    """Identity of every file of a base."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest([[path.relative_to(folder).as_posix(), file_digest(path)] for path in files])


def examples_of(base: StableDiffusionPipeline, images: EmojiImages) -> Examples:
    """Pictures as the base's VAE and tokenizer have them."""
    mean, std = (part * base.vae.config.scaling_factor for part in encode(base.vae, images.pixels))
    return Examples(mean, std, CaptionTokens.of(base.tokenizer, _captions(images)))


def plain(base: StableDiffusionPipeline) -> Predict:
    """What the base predicts by itself."""

    def predict(batch: NoisyBatch) -> Tensor:
        predicted: Tensor = base.unet(batch.latents, batch.timesteps, prompted(base, batch)).sample
        return predicted

    return predict


@torch.no_grad()
def prompted(base: StableDiffusionPipeline, batch: NoisyBatch) -> Tensor:
    """Hidden states of the captions, `[batch, length, width]`."""
    hidden: Tensor = base.text_encoder(batch.tokens).last_hidden_state
    return hidden


@torch.no_grad()
def mean_error(predict: Predict, base: StableDiffusionPipeline, examples: Examples, recipe: DiffusionRecipe) -> float:
    """Mean squared error of the predicted v, at the same noise for every `predict`; no caption is dropped."""
    told = recipe.model_copy(update={"caption_dropout": 0.0})
    loss = VelocityLoss(predict, examples, base.scheduler, told, base.device)
    return sum(float(loss.at(step)) for step in range(_ERROR_STEPS)) / _ERROR_STEPS


def _captions(images: EmojiImages) -> Sequence[Sequence[str]]:
    """Every caption of every picture."""
    return [all_captions(name, style) for name, style in zip(images.names, images.styles, strict=True)]
