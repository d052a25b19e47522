"""The trained parts as a stock Stable Diffusion folder in float16."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import nn

from agd_core.basics.atomic import replacing_folder, write_json
from agd_core.basics.checkpoint import system_errors
from agd_core.pretraining.emoji.attribution import write_attribution
from agd_core.pretraining.emoji.denoiser import TEXT_ENCODER, UNET, training_scheduler
from agd_core.pretraining.emoji.tokenizer import load_tokenizer


def assemble(vae: AutoencoderKL, denoiser: nn.ModuleDict, tokenizer: Any) -> StableDiffusionPipeline:
    """The stock pipeline of these parts, without a safety checker."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=denoiser[TEXT_ENCODER],
        tokenizer=tokenizer,
        unet=denoiser[UNET],
        scheduler=training_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save(vae: AutoencoderKL, denoiser: nn.ModuleDict, tokenizer: Path, folder: Path) -> None:
    """Write the folder, all of it or nothing; the parts stay as they are.

    Args:
        vae: with the scaling factor that its latents need.
        denoiser: text encoder and UNet.
        tokenizer: folder with its BPE files, which are taken as they are.
        folder: where to write.

    Raises:
        OSError: no space, no permission, a disk that fails.
    """
    halves = copy.deepcopy(vae).half(), copy.deepcopy(denoiser).half()
    with replacing_folder(folder) as partial, system_errors():
        assemble(*halves, load_tokenizer(tokenizer)).save_pretrained(partial)
        shutil.rmtree(partial / "tokenizer")
        shutil.copytree(tokenizer, partial / "tokenizer")
        load_in_full_precision(partial / TEXT_ENCODER / "config.json")
        write_attribution(partial)


def load_in_full_precision(config: Path) -> None:
    """Diffusers' networks load in float32 whatever is stored, those of transformers in what their settings say."""
    settings = json.loads(config.read_text(encoding="utf-8"))
    write_json(settings | {"dtype": "float32"}, config)
