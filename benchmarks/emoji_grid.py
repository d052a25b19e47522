"""Look at a training of `agd pretrain emoji-sd` while it runs, or at what it left.

python benchmarks/emoji_grid.py OUTPUT PICTURE.png [--size cpu] [--scales 1 2 4] [--steps 25] [--prompts TEXT ...]

While the VAE trains: pictures above their reconstructions. After that: a row of pictures per guidance scale, from the
same noise, a column per prompt. The averaged weights are taken, of the last checkpoint or of the finished training.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from agd_core.basics.atomic import write_bytes
from agd_core.basics.checkpoint import load_tensors
from agd_core.basics.seeding import generator, stacked_noise
from agd_core.evaluation.sampling import to_bytes
from agd_core.pretraining.emoji.autoencoder import build_autoencoder, decode, encode, signed
from agd_core.pretraining.emoji.denoiser import build_denoiser
from agd_core.pretraining.emoji.images import HELD_OUT, TRAIN, EmojiImages
from agd_core.pretraining.emoji.pipeline import assemble
from agd_core.pretraining.emoji.recipe import RECIPES, EmojiRecipe
from agd_core.pretraining.emoji.tokenizer import load_tokenizer
from agd_core.report.images import grid_png
from flows.stages.emoji_source import SOURCES, STAGE, read_emoji
from flows.stages.network_training import CHECKPOINT, WEIGHTS
from flows.stages.pretrain_emoji import AUTOENCODER, DENOISER, EXAMPLES, LATENTS, TOKENIZER
from storage.artefacts import ARTEFACTS, MANIFEST

COLUMNS = 16
PROMPTS = (
    "fire engine, noto style",
    "red heart, 3d style",
    "dog face, flat style",
    "pizza, twemoji style",
    "umbrella, blob style",
    "green apple, emojione style",
    "cat face, 3d style",
    "sailboat, noto style",
    "guitar, flat style",
    "snowman, twemoji style",
    "bee, blob style",
    "house, emojione style",
)


def newest(output: Path, stage: str, *files: str) -> Path | None:
    """The folder of a stage's artefact that was made last, of those that hold one of these files."""
    rooms = [room for room in (output / ARTEFACTS).iterdir() if room.name.rpartition("-")[0] == stage]
    found = [room for room in rooms if any((room / name).exists() for name in files)]
    return max(found, key=lambda room: room.stat().st_mtime, default=None)


def averaged(artefact: Path) -> tuple[dict[str, Tensor], str]:
    """The averaged weights of a training, and how far it is."""
    if (artefact / WEIGHTS).exists():
        return load_tensors(artefact / WEIGHTS)[0], "finished"
    tensors, note = load_tensors(artefact / CHECKPOINT)
    ema = {name.removeprefix("ema."): tensor for name, tensor in tensors.items() if name.startswith("ema.")}
    return ema, f"step {json.loads(note)['step']}"


def reconstructions(artefact: Path, recipe: EmojiRecipe, images: EmojiImages) -> tuple[Tensor, str]:
    """Rows of pictures and of what the VAE makes of them, signed `[rows * columns, 3, 64, 64]`."""
    model = build_autoencoder(recipe.vae).eval()
    weights, state = averaged(artefact)
    model.load_state_dict(weights)
    rows = []
    for split in (TRAIN, HELD_OUT):
        pixels = images.of(split, common_only=True).pixels
        pixels = pixels[:: max(1, len(pixels) // COLUMNS)][:COLUMNS]
        rows += [signed(pixels), decode(model, encode(model, pixels)[0])]
    return torch.cat(rows), state


def samples(artefact: Path, examples: Path, recipe: EmojiRecipe, asked: argparse.Namespace) -> tuple[Tensor, str]:
    """A row per scale, a column per prompt, signed `[rows * columns, 3, 64, 64]`."""
    vae, tokenizer = build_autoencoder(recipe.vae).eval(), load_tokenizer(examples / TOKENIZER)
    vae.load_state_dict(load_tensors(examples / WEIGHTS)[0])
    vae.register_to_config(scaling_factor=1.0)
    shape = load_tensors(examples / LATENTS)[0]["mean"].shape[1:]
    parts = build_denoiser(recipe.denoiser, shape, tokenizer).eval()
    weights, state = averaged(artefact)
    parts.load_state_dict(weights)
    pipeline = assemble(vae, parts, tokenizer)
    pipeline.set_progress_bar_config(disable=True)
    noise = stacked_noise([generator("grid", number) for number in range(len(asked.prompts))], shape)
    settings = {"num_inference_steps": asked.steps, "latents": noise, "output_type": "pt"}
    rows = [pipeline(list(asked.prompts), guidance_scale=scale, **settings).images for scale in asked.scales]
    return torch.cat(rows) * 2 - 1, state


def main() -> None:
    """Write the picture and say what it shows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--size", choices=list(RECIPES), default="cpu")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--prompts", nargs="+", default=PROMPTS)
    asked = parser.parse_args()
    recipe, training = RECIPES[asked.size], (WEIGHTS, CHECKPOINT)
    denoiser, examples = newest(asked.output, DENOISER, *training), newest(asked.output, EXAMPLES, MANIFEST)
    if denoiser and examples:
        (images, state), columns = samples(denoiser, examples, recipe, asked), len(asked.prompts)
    else:
        pictures = read_emoji(newest(asked.output, STAGE, SOURCES))
        images, state = reconstructions(newest(asked.output, AUTOENCODER, *training), recipe, pictures)
        columns = COLUMNS
    write_bytes(grid_png(to_bytes(images), columns, enlarge=1), asked.picture)
    print(f"{asked.picture}: {state}")


if __name__ == "__main__":
    main()
