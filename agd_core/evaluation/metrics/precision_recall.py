"""The metric `precision-recall`: do samples look real (precision), do they cover the real ones (recall)?

Kynkaanniemi et al., https://arxiv.org/abs/1904.06991: a set's manifold is the union of balls that reach from every
image to its k-th nearest neighbour; the values are torch-fidelity's.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from agd_core.evaluation.metrics.base import Measured, Metric, MetricSettings, Quantity, Score
from agd_core.evaluation.metrics.optional import optional_package
from agd_core.evaluation.metrics.scores import few_images, share_score
from agd_core.evaluation.metrics.statistics import Features, Real, check_finite

PRECISION = Quantity(
    "precision",
    "higher",
    "precision",
    "{:.3f}",
    "Share of samples that lie among the real images.",
    needs=frozenset({"features", "real"}),
    least=0.0,
    most=1.0,
)
RECALL = Quantity(
    "recall",
    "higher",
    "recall",
    "{:.3f}",
    "Share of real images that lie among the samples.",
    needs=frozenset({"features", "real"}),
    least=0.0,
    most=1.0,
)
RECALL_WIDENED = 1.2
"""Recall's error over the binomial one. Whether a sample lies in the manifold of the given real images is independent
of the other samples, so precision's error is binomial; but all samples make the manifold that recall asks for. On
synthetic Gaussians the spread of precision was 0.95 to 1.02 binomial errors, that of recall 1.06 to 1.18."""


class NeighbourSettings(MetricSettings):
    """How precision and recall are measured."""

    neighbours: int = Field(3, ge=1, le=50)
    """k of the k-nearest-neighbour balls of precision and recall."""


def precision_recall_scores(measured: Measured, settings: NeighbourSettings) -> Mapping[str, Score]:
    """`precision` and `recall`, against as many real images as there are samples, or as many as are kept.

    Raises:
        InputError: torch-fidelity is not installed.
        NumericError: a feature is NaN or infinite.
    """
    samples, reference = measured.samples.features, measured.reference
    if samples is None or reference is None or min(len(samples), len(reference.features)) <= settings.neighbours:
        return {}
    check_finite(samples, "features")
    check_finite(reference.features, "features of real images")
    real = evenly(reference.features, len(samples))
    precision, recall = _torch_fidelity(samples, real, settings.neighbours)
    method = f"k = {settings.neighbours}; against {len(real):,} real images, evenly chosen; binomial"
    few = few_images(min(len(samples), len(real)), "precision and recall")
    widened = f"{method}, widened by a fifth"
    return {
        PRECISION.name: share_score(PRECISION, precision, len(samples), method, *few),
        RECALL.name: share_score(RECALL, recall, len(real), widened, *few, widened=RECALL_WIDENED),
    }


def evenly(features: Real, count: int) -> Float[Tensor, "chosen width"]:
    """At most `count` rows, from the first to the last at even distances."""
    if count >= len(features):
        return features
    return features[torch.linspace(0, len(features) - 1, count).round().long()]


def _torch_fidelity(samples: Features, real: Real, neighbours: int) -> tuple[float, float]:
    with optional_package("precision-recall"):
        from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric
    found = prc_features_to_metric(samples, real, prc_neighborhood=neighbours, verbose=False)
    return found[KEY_METRIC_PRECISION], found[KEY_METRIC_RECALL]


PRECISION_RECALL = Metric("precision-recall", (PRECISION, RECALL), precision_recall_scores, NeighbourSettings)
