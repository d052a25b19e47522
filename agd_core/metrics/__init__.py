"""Metrics. A new one is one file here, one line in `METRICS` and its name in `MetricName`."""

from agd_core.metrics.agreement import agreement_scores
from agd_core.metrics.base import Better, Measured, Metric, Score, Seen
from agd_core.metrics.distance import frechet_scores
from agd_core.metrics.frechet import frechet_distance
from agd_core.metrics.inception_score import inception_scores
from agd_core.metrics.kernel import kid_scores
from agd_core.metrics.lpips import lpips_scores
from agd_core.metrics.paired import paired_scores
from agd_core.metrics.precision_recall import precision_recall_scores
from agd_core.metrics.reference import Reference
from agd_core.metrics.regression import Measurement, Verdict, judge_nights
from agd_core.metrics.settings import EvaluateConfig
from agd_core.metrics.standard_errors import accuracy_standard_error
from agd_core.metrics.statistics import FeatureStatistics, RunningStatistics

METRICS: dict[str, Metric] = {
    "frechet": frechet_scores,
    "kid": kid_scores,
    "inception-score": inception_scores,
    "precision-recall": precision_recall_scores,
    "agreement": agreement_scores,
    "paired": paired_scores,
    "lpips": lpips_scores,
}

__all__ = [
    "METRICS",
    "Better",
    "EvaluateConfig",
    "FeatureStatistics",
    "Measured",
    "Measurement",
    "Metric",
    "Reference",
    "RunningStatistics",
    "Score",
    "Seen",
    "Verdict",
    "accuracy_standard_error",
    "frechet_distance",
    "judge_nights",
]
