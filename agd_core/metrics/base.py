"""What a feature extractor is; a metric is a function of features and reference statistics."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from agd_core.metrics.frechet import FeatureStatistics


class FeatureExtractor(ABC):
    """Turns images into features, and knows the statistics of the real data it stands for."""

    class_names: ClassVar[tuple[str, ...]]
    """The classes that it can tell apart."""

    @abstractmethod
    def __init__(self, device: torch.device) -> None:
        """Load the network onto a device."""

    @abstractmethod
    def identity(self) -> str:
        """Digest of its weights and reference statistics."""

    @abstractmethod
    def extract(
        self, images: UInt8[Tensor, "images height width channels"]
    ) -> tuple[Float[Tensor, "images features"], Int[Tensor, " images"]]:
        """Features and the most likely class of every image."""

    @abstractmethod
    def reference(self) -> FeatureStatistics:
        """Statistics of the real data."""
