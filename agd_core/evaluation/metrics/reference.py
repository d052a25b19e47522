"""Real images as the metrics see them: statistics of all, features of some."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from agd_core.basics.checkpoint import load_tensors, save_tensors
from agd_core.basics.digest import digest
from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable
from agd_core.data.records import array_digest
from agd_core.evaluation.metrics.frechet import FeatureStatistics

KEPT_FEATURES = 10_000
"""Most features that a reference keeps, evenly chosen, for kernel distance and precision/recall."""


@dataclass(frozen=True)
class Reference:
    """What one extractor makes of one set of real images."""

    statistics: FeatureStatistics
    features: Float[Tensor, "kept width"]
    """Of at most `KEPT_FEATURES` images."""
    description: str
    """The images in words, e.g. "60,000 images of Fashion-MNIST (train)"."""

    def save(self, path: Path) -> None:
        """Write one safetensors file; equal references give equal bytes."""
        tensors = {
            "mean": self.statistics.mean,
            "covariance": self.statistics.covariance,
            "samples": torch.tensor(self.statistics.samples),
            "features": self.features,
        }
        save_tensors(tensors, path, self.description)

    @classmethod
    def load(cls, path: Path) -> "Reference":
        """Read what `save` has written.

        Raises:
            InputError: there is no such file, or what it holds are no statistics.
        """
        tensors, description = load_tensors(path)
        try:
            statistics = FeatureStatistics(tensors["mean"], tensors["covariance"], int(tensors["samples"]))
            found = cls(statistics, tensors["features"].float(), description)
        except (LookupError, ValueError, TypeError, RuntimeError) as error:
            raise InputError(f"{printable(path)} is no file with a finished reference") from error
        if not found._is_sound():
            reason = "its statistics do not fit together or are no numbers"
            raise InputError(f"{printable(path)} is no file with a finished reference: {reason}")
        return found

    def _is_sound(self) -> bool:
        mean, covariance = self.statistics.mean, self.statistics.covariance
        shapes = (tuple(mean.shape), tuple(covariance.shape), tuple(self.features.shape[1:]))
        width = mean.numel()
        return (
            shapes == ((width,), (width, width), (width,))
            and self.statistics.samples > 1
            and mean.dtype == covariance.dtype == torch.float64
            and all(bool(torch.isfinite(tensor).all()) for tensor in (mean, covariance, self.features))
        )

    def identity(self) -> str:
        """sha256 of statistics and kept features."""
        tensors = (self.statistics.mean, self.statistics.covariance, self.features)
        parts = [array_digest(tensor.contiguous().numpy()) for tensor in tensors]
        return digest({"samples": self.statistics.samples, "tensors": parts})
