"""The metric `kid`: kernel distance (MMD) to the real images, unbiased at every number of images.

Binkowski et al., https://arxiv.org/abs/1801.01401, section 4.1: the kernel is `(x . y / width + 1)^3`. The value is
torch-fidelity's.
"""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from agd_core.basics.seeding import generator
from agd_core.evaluation.metrics.base import Measured, Metric, MetricSettings, Quantity, Score
from agd_core.evaluation.metrics.optional import optional_package
from agd_core.evaluation.metrics.scores import few_images, normal_score
from agd_core.evaluation.metrics.standard_errors import balanced_standard_error
from agd_core.evaluation.metrics.statistics import Features, Real, check_finite

Labels = Int[Tensor, " samples"]
KERNEL_DISTANCE = Quantity(
    "kid",
    "lower",
    "KID",
    "{:.5f}",
    "Kernel distance to the real images (squared MMD, cubic kernel), without size bias.",
    words="kernel distance",
    needs=frozenset({"features", "real"}),
)
_MOST_ROWS = 1000
"""Of the kernel matrix from which the error is taken; more change it by a few percent."""


class KidSettings(MetricSettings):
    """How the kernel distance is measured."""

    kid_subsets: int = Field(20, ge=1, le=1000)
    """Subsets over which the kernel distance is averaged."""
    kid_subset_size: int = Field(1000, ge=2)
    """Images per subset, or as many as there are."""


def kid_scores(measured: Measured, settings: KidSettings) -> Mapping[str, Score]:
    """`kid`: mean over random subsets, as large as the settings ask for or as there are images, sampled and real.

    Raises:
        InputError: torch-fidelity is not installed.
        NumericError: a feature is NaN or infinite.
    """
    samples, reference = measured.samples, measured.reference
    if samples.features is None or reference is None or min(len(samples.features), len(reference.features)) < 2:
        return {}
    check_finite(samples.features, "features")
    check_finite(reference.features, "features of real images")
    size = min(settings.kid_subset_size, len(samples.features), len(reference.features))
    value, spread = _torch_fidelity(samples.features, reference.features, settings.kid_subsets, size, settings.seed)
    error = _error(samples.features, samples.labels, reference.features, spread, settings)
    method = (
        f"mean of {settings.kid_subsets} subsets of {size} images, spread among them {spread:.2g}; "
        f"influence function within classes; against {len(reference.features):,} real images"
    )
    few = few_images(size, "a kernel distance", "images per subset")
    return {KERNEL_DISTANCE.name: normal_score(KERNEL_DISTANCE, value, error, method, *few)}


def _torch_fidelity(samples: Features, real: Real, subsets: int, size: int, seed: int) -> tuple[float, float]:
    """Mean and standard deviation over subsets."""
    with optional_package("kid"):
        from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric
    found = kid_features_to_metric(
        samples, real, kid_subsets=subsets, kid_subset_size=size, rng_seed=seed, verbose=False
    )
    return found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD]


def _error(features: Features, labels: Labels, real: Real, spread: float, settings: KidSettings) -> float | None:
    """Standard error among sample sets of this size, the real images taken as they are.

    What the samples give is the variance of a U-statistic, see `agd_core.evaluation.metrics.subsets`: the influence
    function has its linear term once and its quadratic term twice. What the choice of subsets gives comes on top; one
    subset tells nothing about it.
    """
    if settings.kid_subsets < 2 or len(features) < 8:
        return None
    rows = torch.randperm(len(features), generator=generator(settings.seed, "kid-error"))[:_MOST_ROWS]
    linear, quadratic = _variances(features[rows], labels[rows], real)
    share = len(rows) / len(features)
    return math.sqrt(linear * share + quadratic * share**2 + spread**2 / (settings.kid_subsets - 1))


def _variances(features: Features, labels: Labels, real: Real) -> tuple[float, float]:
    """Variance of the linear and of the quadratic term at this number of samples."""
    n = len(features)
    among = _kernel(features, features).fill_diagonal_(0.0)
    influence = 2 * (among.sum(dim=1) / (n - 1) - _kernel(features, real).mean(dim=1))
    own = torch.nn.functional.one_hot(torch.unique(labels, return_inverse=True)[1]).double()
    towards_mean = torch.eye(n).double() - (own / own.sum(dim=0)) @ own.T
    centred = (towards_mean @ among @ towards_mean).fill_diagonal_(0.0)
    quadratic = 2 * float(centred.square().sum()) / (n * (n - 1)) ** 2
    return max(0.0, balanced_standard_error(influence, labels) ** 2 - 2 * quadratic), quadratic


def _kernel(a: Float[Tensor, "rows width"], b: Float[Tensor, "columns width"]) -> Float[Tensor, "rows columns"]:
    """The cubic kernel; products in the features' own precision, as in torch-fidelity, then float64."""
    value: Tensor = (a @ b.T / a.shape[1] + 1).double().pow(3)
    return value


KID = Metric("kid", (KERNEL_DISTANCE,), kid_scores, KidSettings)
