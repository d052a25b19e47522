"""Frechet distance between feature distributions: features -> statistics -> distance.

Heusel et al., https://arxiv.org/abs/1706.08500, equation 6; with Inception features it is the FID.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from agd_core.seeding import generator

Features = Float[Tensor, "samples width"]


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean and covariance of features, float64."""

    mean: Float[Tensor, " width"]
    covariance: Float[Tensor, "width width"]
    samples: int

    @classmethod
    def of(cls, features: Features) -> "FeatureStatistics":
        """Statistics of a sample; the covariance is the unbiased one."""
        return cls.weighted(features, torch.ones(len(features)))

    @classmethod
    def weighted(cls, features: Features, counts: Float[Tensor, " samples"]) -> "FeatureStatistics":
        """Statistics when sample i occurs `counts[i]` times."""
        features, counts = features.double(), counts.double()
        total = counts.sum()
        mean = counts @ features / total
        centred = features - mean
        return cls(mean, (centred * counts[:, None]).T @ centred / (total - 1), int(total))


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """`|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2))`.

    The trace of the root is taken from the eigenvalues of the symmetric `cov_a^(1/2) cov_b cov_a^(1/2)`, which
    are real and non-negative up to rounding, also when a covariance is singular.
    """
    root = _symmetric_root(a.covariance)
    cross = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp_min(0).sqrt().sum()
    mean_part = (a.mean - b.mean).square().sum()
    return float(mean_part + a.covariance.trace() + b.covariance.trace() - 2 * cross)


def bootstrap_standard_error(features: Features, reference: FeatureStatistics, resamples: int, seed: int) -> float:
    """Standard deviation of the distance over bootstrap resamples of the features (Efron 1979)."""
    distances = []
    for resample in range(resamples):
        rows = torch.randint(len(features), (len(features),), generator=generator(seed, "bootstrap", resample))
        counts = torch.bincount(rows, minlength=len(features)).double()
        distances.append(frechet_distance(reference, FeatureStatistics.weighted(features, counts)))
    return float(torch.tensor(distances).std())


def _symmetric_root(matrix: Float[Tensor, "width width"]) -> Float[Tensor, "width width"]:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root
