"""Training the built-in world's classifier, its feature extractor."""

import torch
from torch import Tensor, nn

from agd_core.basics.checkpoint import Checkpoint
from agd_core.basics.config import Config
from agd_core.basics.seeding import generator
from agd_core.data.order import batch_indices
from agd_core.evaluation.extractors.fashion_classifier import FashionClassifier
from agd_core.methods.training_loop import Loop, LoopConfig


class ClassifierRecipe(Config):
    """How the shipped classifier was trained."""

    epochs: int = 12
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 5e-4
    dropout: float = 0.1
    label_smoothing: float = 0.05
    shift_pixels: int = 1
    seed: int = 0


def classifier_loop(
    model: FashionClassifier, images: Tensor, labels: Tensor, recipe: ClassifierRecipe, checkpoint: Checkpoint
) -> Loop:
    """The training run of the classifier.

    Args:
        images: float32 `[N, 1, 32, 32]` in [-1, 1].
        labels: int64 `[N]`.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)

    def loss_at(step: int) -> Tensor:
        rows = batch_indices(len(images), recipe.batch_size, recipe.seed, step)
        rng = generator(recipe.seed, "augment", step)
        features = model.features(_random_shift(images[rows], recipe.shift_pixels, rng))
        kept = torch.rand(features.shape, generator=rng) >= recipe.dropout
        logits = model.head(features * kept / (1 - recipe.dropout))
        return nn.functional.cross_entropy(logits, labels[rows], label_smoothing=recipe.label_smoothing)

    config = LoopConfig(steps=recipe.epochs * len(images) // recipe.batch_size, learning_rate=recipe.learning_rate)
    return Loop(config, {"classifier": model}, optimizer, loss_at, checkpoint)


def _random_shift(images: Tensor, pixels: int, rng: torch.Generator) -> Tensor:
    """Move the batch by up to `pixels` in x and y, black (-1) coming in; one shift per batch is enough here."""
    down, right = torch.randint(-pixels, pixels + 1, (2,), generator=rng).tolist()
    height, width = images.shape[-2:]
    padded = nn.functional.pad(images, (pixels, pixels, pixels, pixels), value=-1.0)
    return padded[:, :, pixels + down : pixels + down + height, pixels + right : pixels + right + width]


@torch.inference_mode()
def accuracy(model: FashionClassifier, images: Tensor, labels: Tensor, batch_size: int = 500) -> float:
    """Fraction of images whose most likely class is their label."""
    model.eval()
    hits = [
        (model(batch).argmax(1) == truth).sum()
        for batch, truth in zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True)
    ]
    return float(torch.stack(hits).sum()) / len(images)
