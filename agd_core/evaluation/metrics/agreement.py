"""The metric `agreement`: the share of images that show their class (`accuracy`), or how well they fit their prompt."""

from collections.abc import Mapping

from agd_core.evaluation.metrics.base import Measured, Metric, MetricSettings, Quantity, Score
from agd_core.evaluation.metrics.scores import mean_score, share_score

ACCURACY = Quantity(
    "accuracy",
    "higher",
    "accuracy",
    "{:.1%}",
    "Share of images that the judge gives the class they were sampled for.",
    words="class accuracy",
    needs=frozenset({"judge"}),
    least=0.0,
    most=1.0,
    headline=True,
)
CLIP_SCORE = Quantity(
    "clip_score",
    "higher",
    "CLIP score",
    "{:.2f}",
    "Agreement of image and prompt in CLIP's features.",
    needs=frozenset({"judge"}),
    least=-100.01,
    most=100.01,
    headline=True,
)


def agreement_scores(measured: Measured, settings: MetricSettings) -> Mapping[str, Score]:
    """`accuracy` or `clip_score`, as the samples' judge calls it."""
    values, metric = measured.samples.agreement, measured.samples.agreement_metric
    if values is None or not len(values):
        return {}
    if metric == ACCURACY.name:
        share = float(values.double().mean())
        return {metric: share_score(ACCURACY, share, len(values), "binomial, Agresti and Coull 1998")}
    return {metric: mean_score(CLIP_SCORE, values, "mean over images")}


AGREEMENT = Metric("agreement", (ACCURACY, CLIP_SCORE), agreement_scores)
