"""The metric `agreement`: the share of images that show their class (`accuracy`), or how well they fit their prompt."""

from collections.abc import Mapping

from agd_core.metrics.base import Measured, Score
from agd_core.metrics.scores import mean_score
from agd_core.metrics.settings import EvaluateConfig
from agd_core.metrics.standard_errors import accuracy_interval, accuracy_standard_error

ACCURACY = "accuracy"


def agreement_scores(measured: Measured, config: EvaluateConfig) -> Mapping[str, Score]:
    """`accuracy` or `clip_score`, as the samples' judge calls it."""
    values, metric = measured.samples.agreement, measured.samples.agreement_metric
    if values is None or not len(values):
        return {}
    if metric == ACCURACY:
        return {metric: _share(float(values.double().mean()), len(values))}
    return {metric: mean_score(values, "higher", "mean over images")}


def _share(share: float, images: int) -> Score:
    error = accuracy_standard_error(share, images)
    low, high = accuracy_interval(share, images)
    return Score(share, "higher", error, low, high, "Agresti and Coull 1998")
