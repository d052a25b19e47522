"""The shipped Fashion-MNIST classifier: feature extractor and judge of classes in the built-in world."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable
from agd_core.basics.weights import read_state
from agd_core.builtin.fashion_mnist import CLASS_NAMES, to_signed
from agd_core.builtin.shipped import BUILTIN_FOLDER
from agd_core.evaluation.extractors.base import Agreement, Extracted, FeatureExtractor
from agd_core.evaluation.extractors.files import reason
from agd_core.evaluation.metrics.base import Images
from agd_core.evaluation.metrics.reference import Reference

CLASSIFIER_FOLDER = BUILTIN_FOLDER / "fashion-classifier"
WEIGHTS, REFERENCE = "classifier.safetensors", "train_reference.safetensors"
_SHAPE = (32, 32, 1)


class FashionClassifier(nn.Module):
    """Five convolutions with batch normalisation, global average pooling, one linear layer.

    Input: float32 `[B, 1, 32, 32]` in [-1, 1]. `features` gives `[B, 128]`, `forward` gives logits `[B, 10]`.
    """

    feature_width = 128

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            _convolution(1, 32, stride=1),  # [B, 32, 32, 32]
            _convolution(32, 48, stride=2),  # [B, 48, 16, 16]
            _convolution(48, 64, stride=1),  # [B, 64, 16, 16]
            _convolution(64, 96, stride=2),  # [B, 96, 8, 8]
            _convolution(96, self.feature_width, stride=1),  # [B, 128, 8, 8]
        )
        self.head = nn.Linear(self.feature_width, 10)

    def features(self, images: Float[Tensor, "batch 1 32 32"]) -> Float[Tensor, "batch 128"]:
        """Penultimate activations."""
        pooled: Tensor = self.trunk(images).mean(dim=(2, 3))
        return pooled

    def forward(self, images: Float[Tensor, "batch 1 32 32"]) -> Float[Tensor, "batch 10"]:
        """Class logits."""
        logits: Tensor = self.head(self.features(images))
        return logits


class FashionFeatures(FeatureExtractor):
    """The extractor: 128 features and 10 classes."""

    name = "fashion-classifier"
    resize = "none, 32 x 32"
    width = FashionClassifier.feature_width
    class_names = CLASS_NAMES

    def __init__(self, weights: Path | None, device: torch.device) -> None:
        self.folder = weights or CLASSIFIER_FOLDER
        tensors, self.sha256 = read_state(self.folder / WEIGHTS)
        self.model = FashionClassifier().to(device).eval()
        try:
            self.model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        except RuntimeError as error:
            path = printable(self.folder / WEIGHTS)
            raise InputError(f"{path} does not fit the classifier: {reason(error)}") from error
        self.device = device

    def agreement(self, extracted: Extracted, labels: Int[Tensor, " images"], asked: Sequence[str]) -> Agreement | None:
        """Whether the most likely class is the one that was asked for."""
        if extracted.logits is None:
            return None
        return Agreement("accuracy", (extracted.logits.argmax(dim=1) == labels).float())

    def shipped_reference(self) -> Reference:
        """The 60,000 real training images."""
        return Reference.load(self.folder / REFERENCE)

    def look(self, images: Images) -> tuple[Tensor, ...]:
        """Penultimate activations and class logits.

        Raises:
            InputError: other images than 32 x 32 grey ones.
        """
        if (found := tuple(images.shape[1:])) != _SHAPE:
            shape = " x ".join(map(str, found))
            raise InputError(f"extractor {self.name} takes 32 x 32 x 1 images, not {shape}; choose another one")
        features = self.model.features(to_signed(images.permute(0, 3, 1, 2).contiguous().to(self.device)))
        return features, self.model.head(features)


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
