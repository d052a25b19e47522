"""Mean and covariance of features, gathered batch by batch: memory depends on their width, not on their number."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from agd_core.basics.errors import InputError, NumericError

Features = Float[Tensor, "samples width"]
Real = Float[Tensor, "real width"]
"""Features of real images."""
EPSILON = torch.finfo(torch.float64).eps
ROWS_AT_A_TIME = 1000
"""Of features in float64, so that no second copy of a whole set is made."""


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean and covariance of features, float64."""

    mean: Float[Tensor, " width"]
    covariance: Float[Tensor, "width width"]
    samples: int

    @classmethod
    def of(cls, features: Features) -> "FeatureStatistics":
        """Statistics of a sample; the covariance is the unbiased one.

        Raises:
            InputError: there are fewer than two samples.
        """
        return cls.weighted(features, torch.ones(len(features)))

    @classmethod
    def weighted(cls, features: Features, counts: Float[Tensor, " samples"]) -> "FeatureStatistics":
        """Statistics when sample i occurs `counts[i]` times."""
        running = RunningStatistics()
        for part in zip(torch.split(features, ROWS_AT_A_TIME), torch.split(counts, ROWS_AT_A_TIME), strict=True):
            running.update(*part)
        return running.result()

    @cached_property
    def root(self) -> Float[Tensor, "width width"]:
        """The covariance's symmetric root, computed when it is first asked for."""
        values, vectors = torch.linalg.eigh(self.covariance)
        root: Tensor = (vectors * positive(values).sqrt()) @ vectors.T
        return root


class RunningStatistics:
    """Statistics of features that come in parts; neither their order nor how they are cut matters, up to rounding.

    Parts are joined by the exact update of Chan, Golub and LeVeque 1983, "Algorithms for Computing the Sample
    Variance", equation 2.1: nothing is subtracted from a sum of squares, so a large mean costs no digits.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.mean: Tensor | None = None  # [width], float64
        self.scatter: Tensor | None = None  # [width, width], float64: sum of (x - mean)(x - mean)^T

    def update(self, features: Features, counts: Float[Tensor, " samples"] | None = None) -> None:
        """Add a batch, of any floating type and on any device.

        Args:
            features: may be empty.
            counts: how often each occurs, whole numbers; None for once.

        Raises:
            InputError: the width differs from what came before.
        """
        features = features.detach().double().cpu()
        weights = torch.ones(len(features)).double() if counts is None else counts.double()
        if not (total := int(weights.sum())):
            return
        mean = weights @ features / total
        centred = features - mean
        self._join(total, mean, (centred * weights[:, None]).T @ centred)

    def result(self) -> FeatureStatistics:
        """Mean and unbiased covariance of everything so far.

        Raises:
            InputError: fewer than two samples have come.
        """
        if self.mean is None or self.scatter is None or self.samples < 2:
            raise InputError(f"statistics of features need two images or more; found {self.samples}")
        return FeatureStatistics(self.mean, self.scatter / (self.samples - 1), self.samples)

    def _join(self, samples: int, mean: Tensor, scatter: Tensor) -> None:
        if self.mean is None or self.scatter is None:
            self.samples, self.mean, self.scatter = samples, mean, scatter
            return
        if len(mean) != len(self.mean):
            raise InputError(f"features of width {len(mean)} cannot join those of width {len(self.mean)}")
        total, shift = self.samples + samples, mean - self.mean
        self.scatter = self.scatter + scatter + torch.outer(shift, shift) * (self.samples * samples / total)
        self.mean = self.mean + shift * (samples / total)
        self.samples = total


def positive(eigenvalues: Float[Tensor, " width"]) -> Float[Tensor, " width"]:
    """Eigenvalues of a covariance without their rounding: what is below `largest * width * eps` is zero.

    A covariance of fewer samples than features has true zeros, which come out as roundings of either sign; the root
    of 1e-16 is 1e-8, so hundreds of them would count.
    """
    threshold = eigenvalues.max().clamp_min(0) * len(eigenvalues) * EPSILON
    return torch.where(eigenvalues > threshold, eigenvalues, torch.zeros_like(eigenvalues))


def check_finite(values: Float[Tensor, "..."], what: str) -> None:
    """Refuse numbers that are none.

    Raises:
        NumericError: a value is NaN or infinite.
    """
    if not bool(values.isfinite().all()):
        raise NumericError(f"{what} hold NaN or infinity; every value must be a finite number")
