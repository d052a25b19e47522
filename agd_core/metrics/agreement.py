"""The metric `agreement`: the share of images that show their class (`accuracy`), or how well they fit their prompt."""

from collections.abc import Mapping

from agd_core.metrics.base import Measured, Score
from agd_core.metrics.scores import mean_score, share_score
from agd_core.metrics.settings import EvaluateConfig

ACCURACY = "accuracy"


def agreement_scores(measured: Measured, config: EvaluateConfig) -> Mapping[str, Score]:
    """`accuracy` or `clip_score`, as the samples' judge calls it."""
    values, metric = measured.samples.agreement, measured.samples.agreement_metric
    if values is None or not len(values):
        return {}
    if metric == ACCURACY:
        return {metric: share_score(float(values.double().mean()), len(values), "binomial, Agresti and Coull 1998")}
    return {metric: mean_score(values, "higher", "mean over images")}
