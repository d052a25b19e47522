"""What a feature extractor is: images in, features out; with a head it also judges what an image shows."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from agd_core.evaluation.extractors.preprocessing import apply_in_batches
from agd_core.evaluation.metrics.base import Images
from agd_core.evaluation.metrics.reference import Reference


@dataclass(frozen=True)
class Extracted:
    """What an extractor makes of images, on the CPU."""

    features: Float[Tensor, "images width"]
    logits: Float[Tensor, "images classes"] | None
    """Of the extractor's own classes; None where it has no head. The Inception score is made of them."""


@dataclass(frozen=True)
class Agreement:
    """How well every image shows what it was asked to show."""

    metric: str
    """ "accuracy" (a value is 1.0 or 0.0) or "clip_score"."""
    values: Float[Tensor, " images"]


class FeatureExtractor(ABC):
    """A frozen network that turns images into features.

    It splits images into batches by itself, so that what comes out does not depend on how many it is given.
    """

    name: ClassVar[str]
    """What `evaluate.extractor` calls it."""
    distance_name: ClassVar[str] = "FD"
    """How the Frechet distance in these features is called, e.g. FID."""
    resize: ClassVar[str]
    """How an image becomes the network's input, in words, e.g. "299 x 299, bilinear as in TensorFlow 1.x"."""
    width: int
    """Features per image."""
    sha256: str
    device: torch.device
    class_names: tuple[str, ...] = ()
    """The classes that its logits tell apart; empty where it has no head."""

    @abstractmethod
    def __init__(self, weights: Path | None, device: torch.device) -> None:
        """Load the network onto a device, offline.

        Args:
            weights: file or folder with its weights; None takes what is shipped or installed.
            device: where it runs.

        Raises:
            InputError: weights are needed and not given, or cannot be read, or a package is not installed.
        """

    @abstractmethod
    def look(self, images: Images) -> tuple[Tensor, ...]:
        """Features and, with a head, logits of one batch: `[batch, width]`, `[batch, classes]`."""

    def identity(self) -> str:
        """sha256 of all that shapes the features: the weights, and a folder's settings."""
        return self.sha256

    @torch.inference_mode()
    def extract(self, images: Images) -> Extracted:
        """Features and logits; one-channel images are repeated to three where the network takes three."""
        features, *logits = apply_in_batches(self.look, images, self.device)
        return Extracted(features, logits[0] if logits else None)

    def agreement(self, extracted: Extracted, labels: Int[Tensor, " images"], asked: Sequence[str]) -> Agreement | None:
        """How well images show what was asked for; None where this extractor cannot tell.

        Args:
            extracted: what this extractor made of the images.
            labels: index of the class that each image was sampled for.
            asked: the class's name, or the prompt, of each image.
        """
        return None

    def ranks(self, extracted: Extracted, asked: Sequence[str]) -> Int[Tensor, "images 2"] | None:
        """Place of the right name among names and of the right style among styles; None where it knows neither.

        Args:
            extracted: what this extractor made of the images.
            asked: the prompt of each image.
        """
        return None

    def remark(self) -> str:
        """What must be known of it before its numbers are believed, in a sentence; "" where nothing was measured."""
        return ""

    def shipped_reference(self) -> Reference | None:
        """Statistics of real images that are shipped with it, if any."""
        return None
