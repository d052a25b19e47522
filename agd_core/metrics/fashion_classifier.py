"""The shipped Fashion-MNIST classifier: feature extractor and judge of classes in the built-in world."""

from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from agd_core.base_models.sources import BUILTIN_FOLDER
from agd_core.checkpoint import load_tensors
from agd_core.digest import digest, file_digest
from agd_core.fashion_mnist import CLASS_NAMES, to_signed
from agd_core.metrics.base import FeatureExtractor
from agd_core.metrics.frechet import FeatureStatistics

FOLDER = BUILTIN_FOLDER / "fashion-classifier"
WEIGHTS, STATISTICS = "classifier.safetensors", "train_statistics.safetensors"
_BATCH_IMAGES = 500


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
    """The extractor: 128 features and a class per image."""

    class_names = CLASS_NAMES

    def __init__(self, device: torch.device, folder: Path = FOLDER) -> None:
        weights, _ = load_tensors(folder / WEIGHTS)
        self.model = FashionClassifier().to(device).eval()
        self.model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
        self.device = device
        self.folder = folder

    def identity(self) -> str:
        """Digest of the two files."""
        return digest([file_digest(self.folder / name) for name in (WEIGHTS, STATISTICS)])

    @torch.inference_mode()
    def extract(
        self, images: UInt8[Tensor, "images height width channels"]
    ) -> tuple[Float[Tensor, "images features"], Int[Tensor, " images"]]:
        """Features (on the CPU) and most likely classes."""
        features, classes = [], []
        for batch in torch.split(images, _BATCH_IMAGES):
            signed = to_signed(batch.permute(0, 3, 1, 2).to(self.device))
            features.append(self.model.features(signed))
            classes.append(self.model.head(features[-1]).argmax(dim=1))
        return torch.cat(features).cpu(), torch.cat(classes).cpu()

    def reference(self) -> FeatureStatistics:
        """Statistics of the 60,000 real training images."""
        tensors, samples = load_tensors(self.folder / STATISTICS)
        return FeatureStatistics(tensors["mean"], tensors["covariance"], int(samples))


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
