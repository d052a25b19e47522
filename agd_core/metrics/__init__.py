"""Metrics. A new one is one file here, one line in `METRICS` and its name in `MetricName`."""

from agd_core.metrics.base import Better, Measured, Metric, Score, Seen
from agd_core.metrics.frechet import FeatureStatistics, bootstrap_standard_error, frechet_distance
from agd_core.metrics.reference import Reference
from agd_core.metrics.regression import Measurement, Verdict, judge_nights
from agd_core.metrics.settings import EvaluateConfig
from agd_core.metrics.standard_errors import accuracy_standard_error, distance_standard_error, paired_error

METRICS: dict[str, Metric] = {}

__all__ = [
    "METRICS",
    "Better",
    "EvaluateConfig",
    "FeatureStatistics",
    "Measured",
    "Measurement",
    "Metric",
    "Reference",
    "Score",
    "Seen",
    "Verdict",
    "accuracy_standard_error",
    "bootstrap_standard_error",
    "distance_standard_error",
    "frechet_distance",
    "judge_nights",
    "paired_error",
]
