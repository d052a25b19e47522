"""Frechet distance between feature distributions: features -> statistics -> distance.

Heusel et al., https://arxiv.org/abs/1706.08500, equation 6; with Inception features it is the FID.
"""

import torch

from agd_core.evaluation.metrics.statistics import FeatureStatistics, check_finite

__all__ = ["FeatureStatistics", "frechet_distance"]


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """`|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2))`.

    The trace of the root is the sum of the singular values of `cov_a^(1/2) cov_b^(1/2)`. They are never squared, so
    small variances beside large ones keep their digits; both roots are kept with their statistics.

    Raises:
        NumericError: a mean or covariance is NaN or infinite.
    """
    for statistics in (a, b):
        check_finite(statistics.mean, "features")
        check_finite(statistics.covariance, "features")
    cross = torch.linalg.svdvals(a.root @ b.root).sum()
    mean_part = (a.mean - b.mean).square().sum()
    return float(mean_part + a.covariance.trace() + b.covariance.trace() - 2 * cross)
