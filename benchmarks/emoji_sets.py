"""Sets of images of the emoji world that benchmarks measure: what each image is asked for, and sampling them.

Image i has one prompt and one noise, whoever samples it, at whatever scale: sets are compared image by image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from agd_core.basics.errors import NumericError
from agd_core.basics.permutation import Permutation
from agd_core.basics.progress import ShouldStop, never
from agd_core.basics.seeding import derive_seed
from agd_core.data.subjects import Subjects
from agd_core.evaluation.sampling import SampleConfig, SampleSet, sample_images
from agd_core.guidance import ClassifierFreeGuidance, GuidedDenoiser
from agd_core.models.config import BaseModelConfig
from agd_core.models.denoiser import Denoiser
from agd_core.models.model import BaseModel
from agd_core.pretraining.emoji.captions import plain_caption
from agd_core.pretraining.emoji.images import HELD_OUT, TRAIN, EmojiImages
from flows.stages.emoji_source import read_emoji

SEED = 16
HELD_OUT_PART = 5
"""One image in so many is of a pair that was never trained on."""


@dataclass(frozen=True)
class Asked:
    """What every image of a set is asked for; row i of everything is image i."""

    prompts: tuple[str, ...]
    held_out: Bool[Tensor, " images"]
    """Whether the base never saw this concept in this style."""
    pixels: UInt8[Tensor, "images height width 3"]
    """The real picture of the same words."""

    def __len__(self) -> int:
        return len(self.prompts)

    def shown(self, most: int) -> list[int]:
        """Rows to look at: the first of each split, in their shares. Styles come in turn there, names by chance."""
        splits = torch.nonzero(self.held_out).flatten().tolist(), torch.nonzero(~self.held_out).flatten().tolist()
        unseen = min(len(splits[0]), most // HELD_OUT_PART)
        return [*splits[0][:unseen], *splits[1][: most - unseen]]

    def worded(self, words: Sequence[str]) -> "Asked":
        """The same images in other words."""
        return Asked(tuple(words), self.held_out, self.pixels)

    @cached_property
    def splits(self) -> dict[str, Bool[Tensor, " images"]]:
        """Which images are reported together, by name; those that are empty are left out."""
        parts = {"all": torch.ones(len(self), dtype=torch.bool), TRAIN: ~self.held_out, HELD_OUT: self.held_out}
        return {name: rows for name, rows in parts.items() if int(rows.sum()) > 1}


@cache
def drawn(folder: Path) -> EmojiImages:
    """All pictures of a folder, read once: several benchmarks may run in one process."""
    return read_emoji(folder)


def asked_of(pictures: EmojiImages, images: int) -> Asked:
    """Held-out pairs, and trained pictures of the same, best-known concepts.

    Args:
        pictures: all that are drawn.
        images: how many are asked for.
    """
    held_out, trained = pictures.of(HELD_OUT, common_only=True), pictures.of(TRAIN, common_only=True)
    few = images // HELD_OUT_PART if len(held_out) else 0
    return asked_for(in_turn(held_out, few).joined(in_turn(trained, images - few)))


def asked_for(pictures: EmojiImages) -> Asked:
    """The plain captions of these pictures, one image for each."""
    captions = [plain_caption(*pair) for pair in zip(pictures.names, pictures.styles, strict=True)]
    return Asked(tuple(captions), torch.tensor([split == HELD_OUT for split in pictures.splits]), pictures.pixels)


def training_prompts(pictures: EmojiImages, most: int | None = None) -> list[str]:
    """Plain captions of trained pictures of the best-known concepts, each once, in a mixed order.

    Args:
        pictures: all that are drawn.
        most: so many; None takes all.
    """
    known = pictures.of(TRAIN, common_only=True)
    mixed = in_turn(known, len(known) * len(set(known.styles)))
    return list(dict.fromkeys(plain_caption(*pair) for pair in zip(mixed.names, mixed.styles, strict=True)))[:most]


def in_turn(pictures: EmojiImages, count: int) -> EmojiImages:
    """So many pictures, a style at a time, each as often as any other of its style, in a fixed random order."""
    orders = [_shuffled(pictures, style) for style in sorted(set(pictures.styles))]
    chosen = ((orders[number % len(orders)], number // len(orders)) for number in range(count))
    return pictures.rows([order[turn % len(order)] for order, turn in chosen])


def _shuffled(pictures: EmojiImages, style: str) -> list[int]:
    rows = [row for row, found in enumerate(pictures.styles) if found == style]
    order = Permutation(len(rows), derive_seed(SEED, "pictures", style)).forward(np.arange(len(rows)))
    return [rows[number] for number in order]


def open_model(folder: Path, device: torch.device, precision: str | None = None) -> BaseModel:
    """The model of a stock folder; where no precision is named, float16 on a GPU, as its weights are stored."""
    dtype = precision or ("float32" if device.type == "cpu" else "float16")
    return BaseModelConfig(source=str(folder), dtype=dtype).build(device)


@dataclass(frozen=True)
class Sampler:
    """Samples one set after the other; prompts are encoded once."""

    subjects: Subjects
    steps: int
    batch_size: int
    should_stop: ShouldStop = never

    @classmethod
    def of(cls, model: BaseModel, prompts: Sequence[str], steps: int, should_stop: ShouldStop = never) -> "Sampler":
        """A sampler of these prompts, an image each."""
        subjects = Subjects.of(model, prompts, "prompts")
        return cls(subjects, steps, 1000 if model.device.type == "cuda" else 50, should_stop)

    def guided(self, scale: float) -> SampleSet:
        """The model's own pictures: unguided at scale 1, in one pass, else with CFG in two."""
        model = self.subjects.base_model
        return self.sample(model if scale == 1 else GuidedDenoiser(model, ClassifierFreeGuidance()), scale)

    def sample(self, denoiser: Denoiser, scale: float, told: Callable[[int, int], None] | None = None) -> SampleSet:
        """What a denoiser makes of the prompts at a guidance scale, by DDIM.

        Raises:
            NumericError: a latent is no finite number.
            Stopped: when asked to, between batches.
        """
        config = SampleConfig(
            images=len(self.subjects),
            guidance_scales=(scale,),
            steps=self.steps,
            batch_size=self.batch_size,
            seed=SEED,
        )
        samples = sample_images(denoiser, self.subjects, config, told or (lambda *done: None), self.should_stop)
        _require_finite(samples.latents, self.subjects.base_model.dtype)
        return samples


def _require_finite(latents: Float[Tensor, "images channels height width"], dtype: torch.dtype) -> None:
    if not bool(torch.isfinite(latents).all()):
        raise NumericError(f"latents are no finite numbers in {dtype}; --precision bfloat16 has a wider range")
