"""Training the judge of the emoji world: a small CLIP of its own, whose architecture and seed are not the teacher's.

Contrastive learning of images and texts: https://arxiv.org/abs/2103.00020, figure 3. Pictures with the same words in a
batch are all right answers to them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from agd_core.basics.checkpoint import Checkpoint
from agd_core.basics.config import Config
from agd_core.basics.seeding import generator
from agd_core.data.order import batch_indices
from agd_core.evaluation.extractors.preprocessing import normalised
from agd_core.methods.training_loop import Loop, LoopConfig
from agd_core.pretraining.ema import Ema
from agd_core.pretraining.emoji.captions import captions_of
from agd_core.pretraining.emoji.choice import held_out_pairs
from agd_core.pretraining.emoji.images import EmojiImages
from agd_core.pretraining.emoji.rendering import SIDE
from agd_core.pretraining.emoji.shifting import shifted

MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
"""Colours of -1 to 1."""
_MOST_SCALE = 4.6052
"""log(100), the largest temperature, as in CLIP."""
_HEAD = 32


class JudgeRecipe(Config):
    """How the judge is trained."""

    steps: int = 3600
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    shift_pixels: int = 2
    noise: float = 0.05
    """Standard deviation of what is added to pixels in [-1, 1], so that no judgement hangs on a single one."""
    ema_decay: float = 0.998
    patch: int = 8
    image_width: int = 128
    image_layers: int = 4
    text_width: int = 96
    text_layers: int = 2
    features: int = 128
    held_out: int = 500
    """Pictures that it does not learn, for its own accuracy."""
    seed: int = 7


def build_judge(tokenizer: CLIPTokenizer, recipe: JudgeRecipe) -> CLIPModel:
    """The untrained judge: a vision transformer and a small text transformer."""
    marks = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {
        **_layers(recipe.text_width, recipe.text_layers),
        **marks,
        "pad_token_id": tokenizer.pad_token_id,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
    }
    image = {**_layers(recipe.image_width, recipe.image_layers), "image_size": SIDE, "patch_size": recipe.patch}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=image, projection_dim=recipe.features))


def split_for_judge(images: EmojiImages, recipe: JudgeRecipe) -> tuple[EmojiImages, EmojiImages]:
    """(what it learns, what it is tested on): pictures whose name it learns in other styles."""
    pairs = list(zip(images.names, images.styles, strict=True))
    kept_back = held_out_pairs(pairs, recipe.held_out, recipe.seed)
    tested = [row for row, pair in enumerate(pairs) if pair in kept_back]
    learnt = [row for row, pair in enumerate(pairs) if pair not in kept_back]
    return images.rows(learnt), images.rows(tested)


def judge_loop(
    model: CLIPModel,
    ema: Ema,
    tokenizer: CLIPTokenizer,
    images: EmojiImages,
    recipe: JudgeRecipe,
    checkpoint: Checkpoint,
) -> Loop:
    """The training run of the judge on all of `images`."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)

    def loss_at(step: int) -> Tensor:
        rows = batch_indices(len(images), recipe.batch_size, recipe.seed, step)
        rng = generator(recipe.seed, "judge", step)
        captions = [captions_of(images.names[row], images.styles[row], rng) for row in rows.tolist()]
        pixels = _disturbed(images.pixels[rows], recipe, rng)
        return contrastive_loss(model, pixels.to(model.device), read(tokenizer, captions).to(model.device))

    def after_step(step: int) -> None:
        with torch.no_grad():
            model.logit_scale.clamp_(max=_MOST_SCALE)
        ema.update(step)

    config = LoopConfig(recipe.steps, recipe.learning_rate, warmup_fraction=0.05, max_gradient_norm=1.0)
    return Loop(config, {"judge": model, "ema": ema.average}, optimizer, loss_at, checkpoint, after_step=after_step)


def contrastive_loss(
    model: CLIPModel, pixels: Float[Tensor, "batch 3 height width"], tokens: Int[Tensor, "batch length"]
) -> Float[Tensor, ""]:
    """Cross-entropy of each picture over the batch's texts and of each text over its pictures, halved."""
    images = nn.functional.normalize(model.get_image_features(pixels).pooler_output, dim=1)
    texts = nn.functional.normalize(model.get_text_features(tokens).pooler_output, dim=1)
    logits = model.logit_scale.exp() * images @ texts.T
    same = (tokens[:, None] == tokens[None]).all(dim=2).float()
    right = same / same.sum(dim=1, keepdim=True)
    loss: Tensor = (nn.functional.cross_entropy(logits, right) + nn.functional.cross_entropy(logits.T, right)) / 2
    return loss


def read(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Int[Tensor, "captions length"]:
    """Token numbers, padded to one length."""
    tokens: Tensor = tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt").input_ids
    return tokens


def _disturbed(
    pixels: UInt8[Tensor, "batch height width 3"], recipe: JudgeRecipe, rng: torch.Generator
) -> Float[Tensor, "batch 3 height width"]:
    """Moved by a few pixels, white coming in, with a little noise; colours from -1 to 1."""
    moved = normalised(shifted(pixels, recipe.shift_pixels, rng), MEAN, STD)
    return moved + recipe.noise * torch.randn(moved.shape, generator=rng)


def _layers(width: int, layers: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // _HEAD,
    }
