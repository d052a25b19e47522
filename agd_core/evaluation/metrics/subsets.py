"""Frechet distances of parts of a sample set: what they say about the distance's error and about its bias.

The distance of n samples is a smooth function of their distribution, so with the population's distance D

    distance(n) = D + bias b1 / n + b2 / n^2 + ... + noise: a linear term of variance v1 / n, a quadratic of v2 / n^2

1. The influence function (Hampel 1974; also called the infinitesimal jackknife) gives v1 / n + 2 v2 / n^2: it is taken
   where the samples are, and counts the quadratic term twice, as Efron and Stein 1981 prove of the jackknife. The
   bootstrap counts it three times.
2. Halves of the sample set, split at random again and again, have a mean distance that varies by v2 / n^2 alone. Half
   of that is taken from the first, a little less than is due, because intervals of 100 to 200 images come out narrow
   with all of it; and nothing where a half has fewer images than features.
3. Distances of the whole, of three quarters and of halves are extrapolated to 1 / n = 0 by the parabola through them.
   Chong and Forsyth 2020, https://arxiv.org/abs/1911.07023, draw a line through subsets, which is biased at few
   samples per feature, see benchmarks/interval_coverage.py.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from agd_core.basics.seeding import generator
from agd_core.evaluation.metrics.standard_errors import balanced_standard_error
from agd_core.evaluation.metrics.statistics import EPSILON, ROWS_AT_A_TIME, FeatureStatistics, check_finite

FEWEST_PER_FEATURE = 2
"""With fewer images per feature, a half has fewer images than features."""
_QUARTERS = 4
_WITHOUT_ONE = [[float(quarter != left_out) for quarter in range(4)] for left_out in range(4)]
_PAIRS = [(0, 1), (2, 3), (0, 2), (1, 3), (0, 3), (1, 2)]
_HALVES = [[float(quarter in pair) for quarter in range(4)] for pair in _PAIRS]
_SUBSETS = torch.tensor(_WITHOUT_ONE + _HALVES, dtype=torch.float64)  # [10, 4]: which quarters a subset is made of
_DISTANCES_PER_SPLIT = len(_SUBSETS)


@dataclass(frozen=True)
class Extrapolated:
    """The distance of a sample set, without its bias, and the errors of both."""

    distance: float
    standard_error: float
    """Spread of the distance among sample sets of this size."""
    infinity: float
    """The distance extrapolated to infinitely many samples."""
    infinity_standard_error: float


def extrapolated_distance(
    features: Float[Tensor, "samples width"],
    labels: Int[Tensor, " samples"],
    reference: FeatureStatistics,
    subsets: int,
    seed: int,
) -> Extrapolated:
    """Frechet distance to a reference, at this number of samples and at infinitely many, with standard errors.

    Args:
        features: four samples or more.
        labels: the class that each was sampled for; how many there are of each is taken as fixed.
        reference: the real data, taken as exact.
        subsets: about how many distances of subsets to compute; two splits (20 distances) are the least.
        seed: of the splits.

    Raises:
        NumericError: a feature is NaN or infinite.
    """
    check_finite(features, "features")
    rooted = _RootedFeatures(features, reference)
    splits = max(2, subsets // _DISTANCES_PER_SPLIT)
    quarters = [_balanced_quarters(labels, seed, split) for split in range(splits)]
    distances = torch.stack([rooted.distances(_SUBSETS, split) for split in quarters])  # [splits, 10]
    distance = rooted.distance()
    three_quarters, halves = distances[:, :4].mean(dim=1), distances[:, 4:].reshape(splits, 3, 2).mean(dim=2)
    whole_weight, three_weight, half_weight = _parabola_weights()
    ends = whole_weight * distance + three_weight * three_quarters + half_weight * halves.mean(dim=1)
    jackknife = balanced_standard_error(rooted.influence(), labels) ** 2
    counted_twice = float(halves.var()) if len(features) >= FEWEST_PER_FEATURE * features.shape[1] else 0.0
    variance = max(jackknife / 2, jackknife - counted_twice / 2)
    return Extrapolated(
        distance, math.sqrt(variance), float(ends.mean()), math.sqrt(variance + float(ends.var()) / splits)
    )


@dataclass(frozen=True)
class _Part:
    """Some rows of y, as far as distances need them."""

    rows: int
    mean: Float[Tensor, " axes"]
    factor: Float[Tensor, "factor axes"]
    """R of the centred rows' QR decomposition: `factor^T factor` is their scatter."""

    @classmethod
    def of(cls, rows: Float[Tensor, "rows axes"]) -> "_Part":
        mean = rows.mean(dim=0)
        return cls(len(rows), mean, torch.linalg.qr(rows - mean, mode="r").R)


class _RootedFeatures:
    """Features c around their mean, and y = c root(reference covariance).

    Of any subset, `tr (cov_r cov)^(1/2)` is the sum of the singular values of its centred y, over root(n - 1); y
    needs no more axes than there are samples. Only y is held in float64; c is made piece by piece.
    """

    def __init__(self, features: Float[Tensor, "samples width"], reference: FeatureStatistics) -> None:
        self.reference, self.features = reference, features
        self.mean = torch.stack([piece.double().sum(dim=0) for piece in _pieces(features)]).sum(dim=0) / len(features)
        self.shift = self.mean - reference.mean
        self.squares = torch.cat([piece.square().sum(dim=1) for piece in self._centred()])
        rooted = torch.empty(features.shape, dtype=torch.float64)
        for rows, piece in zip(_pieces(rooted), self._centred(), strict=True):
            rows.copy_(piece @ reference.root)
        self.rooted = rooted if len(rooted) >= rooted.shape[1] else torch.linalg.qr(rooted.T, mode="r").R.T

    def distances(
        self, subsets: Float[Tensor, "subsets parts"], part: Int[Tensor, " samples"]
    ) -> Float[Tensor, " subsets"]:
        """Distance of every subset: it has the parts for which its row of `subsets` is 1."""
        belongs = torch.nn.functional.one_hot(part, subsets.shape[1]).double().T  # [parts, samples]
        n = subsets @ belongs.sum(dim=1)
        mean = subsets @ self._sums(belongs) / n[:, None]
        trace = subsets @ (belongs @ self.squares) - n * mean.square().sum(dim=1)
        parts = self._parts(belongs)
        factors = [_joined([parts[int(index)] for index in subset.nonzero()]) for subset in subsets]
        cross = torch.stack([torch.linalg.svdvals(factor).sum() for factor in factors])
        mean_part: Tensor = (self.shift + mean).square().sum(dim=1)
        covariance_part: Tensor = self.reference.covariance.trace() + trace / (n - 1) - 2 * cross / (n - 1).sqrt()
        return mean_part + covariance_part

    def distance(self) -> float:
        """Distance of all samples."""
        return float(self.distances(torch.ones(1, _QUARTERS).double(), self._in_order()))

    def influence(self) -> Float[Tensor, " samples"]:
        """How much the distance rises per weight that a sample gets, up to a constant.

        The distance's gradient is `2 (mean - mean_r)` in the mean and `1 - cov_r^(1/2) M^(-1/2) cov_r^(1/2)` in the
        covariance, with `M = cov_r^(1/2) cov cov_r^(1/2)`.
        """
        belongs = torch.nn.functional.one_hot(self._in_order(), _QUARTERS).double().T
        _, values, axes = torch.linalg.svd(_joined(self._parts(belongs)), full_matrices=False)
        kept = values > values.max() * len(self.rooted) * EPSILON
        scaled = axes[kept].T / values[kept].sqrt()
        along = torch.cat([(piece @ scaled).square().sum(dim=1) for piece in _pieces(self.rooted)])
        mean_part = torch.cat([2 * piece @ self.shift for piece in self._centred()])
        influence: Tensor = mean_part + self.squares - math.sqrt(len(self.rooted) - 1) * along
        return influence

    def _centred(self) -> Iterator[Float[Tensor, "piece width"]]:
        return (piece.double() - self.mean for piece in _pieces(self.features))

    def _sums(self, belongs: Float[Tensor, "parts samples"]) -> Float[Tensor, "parts width"]:
        sums = torch.zeros(len(belongs), len(self.mean)).double()
        for rows, piece in zip(torch.split(belongs, ROWS_AT_A_TIME, dim=1), self._centred(), strict=True):
            sums += rows @ piece
        return sums

    def _parts(self, belongs: Float[Tensor, "parts samples"]) -> list[_Part]:
        return [_Part.of(self.rooted[rows]) for rows in belongs.bool()]

    def _in_order(self) -> Int[Tensor, " samples"]:
        """The first quarter of the samples, the second, ..., whatever the seed is."""
        return torch.arange(len(self.features)) * _QUARTERS // len(self.features)


def _joined(parts: list[_Part]) -> Float[Tensor, "rows axes"]:
    """A matrix with the singular values of the parts' rows around their common mean, without squaring any."""
    rows = sum(part.rows for part in parts)
    mean = torch.stack([part.rows * part.mean for part in parts]).sum(dim=0) / rows
    between = torch.stack([math.sqrt(part.rows) * (part.mean - mean) for part in parts])
    return torch.cat([between, *(part.factor for part in parts)])


def _pieces(rows: Float[Tensor, "rows width"]) -> tuple[Float[Tensor, "piece width"], ...]:
    """Views of at most a thousand rows."""
    return torch.split(rows, ROWS_AT_A_TIME)


def _balanced_quarters(labels: Int[Tensor, " samples"], seed: int, split: int) -> Int[Tensor, " samples"]:
    """A random quarter, 0 to 3, for every sample; equally many of every class as far as its number allows."""
    shuffled = torch.randperm(len(labels), generator=generator(seed, "quarters", split))
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    quarters = torch.empty_like(labels)
    quarters[by_class] = torch.arange(len(labels)) % _QUARTERS
    return quarters


def _parabola_weights() -> tuple[float, float, float]:
    """Weights of the values at u = 1, 4/3 and 2 whose sum is their parabola's value at u = 0 (Lagrange)."""
    nodes = (1.0, 4 / 3, 2.0)
    one, two, three = (math.prod(m / (m - node) for m in nodes if m != node) for node in nodes)
    return one, two, three
