"""Metrics. A new one is one file here and one line in `_ALL`."""

from agd_core.evaluation.metrics.agreement import AGREEMENT
from agd_core.evaluation.metrics.base import Better, Measured, Metric, MetricSettings, Quantity, Score, Seen
from agd_core.evaluation.metrics.distance import FRECHET
from agd_core.evaluation.metrics.frechet import frechet_distance
from agd_core.evaluation.metrics.inception_score import INCEPTION_SCORE
from agd_core.evaluation.metrics.kernel import KID
from agd_core.evaluation.metrics.lpips import LPIPS
from agd_core.evaluation.metrics.paired import PAIRED
from agd_core.evaluation.metrics.precision_recall import PRECISION_RECALL
from agd_core.evaluation.metrics.reference import Reference
from agd_core.evaluation.metrics.regression import Measurement, NightVerdict, judge_nights
from agd_core.evaluation.metrics.retrieval import RETRIEVAL
from agd_core.evaluation.metrics.saturation import SATURATION
from agd_core.evaluation.metrics.standard_errors import accuracy_standard_error
from agd_core.evaluation.metrics.statistics import FeatureStatistics, RunningStatistics

_ALL = (
    FRECHET,
    KID,
    INCEPTION_SCORE,
    PRECISION_RECALL,
    AGREEMENT,
    RETRIEVAL,
    PAIRED,
    LPIPS,
    SATURATION,
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""Every metric by its name in `evaluate.metrics`, in the order of tables."""


def quantities() -> dict[str, Quantity]:
    """Every number that some metric gives, by name, in the order of tables."""
    return {quantity.name: quantity for metric in METRICS.values() for quantity in metric.quantities}


__all__ = [
    "METRICS",
    "Better",
    "FeatureStatistics",
    "Measured",
    "Measurement",
    "Metric",
    "MetricSettings",
    "NightVerdict",
    "Quantity",
    "Reference",
    "RunningStatistics",
    "Score",
    "Seen",
    "accuracy_standard_error",
    "frechet_distance",
    "judge_nights",
    "quantities",
]
