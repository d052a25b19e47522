"""An emoji model in miniature, with random weights, that relatives are trained on."""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from agd_core.pretraining.emoji.autoencoder import build_autoencoder
from agd_core.pretraining.emoji.captions import all_captions
from agd_core.pretraining.emoji.denoiser import build_denoiser
from agd_core.pretraining.emoji.pipeline import save
from agd_core.pretraining.emoji.tokenizer import write_tokenizer
from tests.emoji_pictures import emoji_pictures, tiny_recipe


def write_emoji_base(folder: Path, seed: int = 0) -> Path:
    """A stock folder `folder/emoji-sd` in float16, with 4 x 8 x 8 latents."""
    recipe, pictures = tiny_recipe(), emoji_pictures()
    pairs = zip(pictures.names, pictures.styles, strict=True)
    tokenizer = write_tokenizer([text for pair in pairs for text in all_captions(*pair)], folder / "tokenizer")
    torch.manual_seed(seed)
    vae = build_autoencoder(recipe.vae)
    vae.register_to_config(scaling_factor=1.0)
    save(vae, build_denoiser(recipe.denoiser, (4, 8, 8), tokenizer), folder / "tokenizer", folder / "emoji-sd")
    return folder / "emoji-sd"


def pictures_of(pipeline: StableDiffusionPipeline, **settings: float) -> torch.Tensor:
    """One picture of a stock pipeline, the same noise every time, `[1, height, width, 3]` in [0, 1]."""
    pipeline.set_progress_bar_config(disable=True)
    rng = torch.Generator().manual_seed(0)
    asked = {"num_inference_steps": 2, "output_type": "np", "generator": rng} | settings
    return torch.from_numpy(pipeline("red square, flat style", **asked).images)
