"""The metric `retrieval`: how often the judge finds the right name among all names, and the right style among all."""

from collections.abc import Mapping

from agd_core.evaluation.metrics.base import Measured, Metric, MetricSettings, Need, Quantity, Score
from agd_core.evaluation.metrics.scores import share_score

_JUDGE: frozenset[Need] = frozenset({"judge"})
NAME_TOP1 = Quantity(
    "name_top1",
    "higher",
    "name top-1",
    "{:.1%}",
    "Share of images whose right name is nearest among all names in the judge's features.",
    needs=_JUDGE,
    least=0.0,
    most=1.0,
    headline=True,
)
NAME_TOP5 = Quantity(
    "name_top5",
    "higher",
    "name top-5",
    "{:.1%}",
    "Share of images whose right name is among the five nearest in the judge's features.",
    needs=_JUDGE,
    least=0.0,
    most=1.0,
)
STYLE_TOP1 = Quantity(
    "style_top1",
    "higher",
    "style top-1",
    "{:.1%}",
    "Share of images whose right style is nearest among all styles in the judge's features.",
    needs=_JUDGE,
    least=0.0,
    most=1.0,
)
_NAMES, _STYLES = 0, 1


def retrieval_scores(measured: Measured, settings: MetricSettings) -> Mapping[str, Score]:
    """Shares of images by the places that the judge gives; none where it gives none."""
    ranks = measured.samples.ranks
    if ranks is None or not len(ranks):
        return {}
    found = {
        NAME_TOP1: ranks[:, _NAMES] <= 1,
        NAME_TOP5: ranks[:, _NAMES] <= 5,
        STYLE_TOP1: ranks[:, _STYLES] <= 1,
    }
    method = "binomial, Agresti and Coull 1998"
    return {
        quantity.name: share_score(quantity, float(hits.double().mean()), len(hits), method)
        for quantity, hits in found.items()
    }


RETRIEVAL = Metric("retrieval", (NAME_TOP1, NAME_TOP5, STYLE_TOP1), retrieval_scores)
