"""Frechet distance between feature distributions: features -> statistics -> distance.

Heusel et al., https://arxiv.org/abs/1706.08500, equation 6; with Inception features it is the FID.
"""

import torch

from agd_core.metrics.statistics import FeatureStatistics, positive

__all__ = ["FeatureStatistics", "frechet_distance"]


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """`|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2))`.

    The trace of the root is taken from the eigenvalues of the symmetric `cov_a^(1/2) cov_b cov_a^(1/2)`, which
    are real and non-negative up to rounding, also when a covariance is singular. `cov_a^(1/2)` is kept with `a`.
    """
    cross = positive(torch.linalg.eigvalsh(a.root @ b.covariance @ a.root)).sqrt().sum()
    mean_part = (a.mean - b.mean).square().sum()
    return float(mean_part + a.covariance.trace() + b.covariance.trace() - 2 * cross)
