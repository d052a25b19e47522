"""Rows of one method that was trained with several seeds, as one: means with what is known of their errors."""

import math
from collections.abc import Sequence
from statistics import fmean, harmonic_mean, stdev
from typing import Any

from agd_core.evaluation.metrics import Score, quantities
from agd_core.evaluation.metrics.standard_errors import NORMAL_95, student_95
from agd_core.evaluation.rows import Row

_Values = Sequence[float]


def over_seeds(rows: Sequence[Row], name: str) -> Row:
    """The row of the means; the one row itself where there is a single seed.

    Args:
        rows: of one method at one point, each trained with another seed and sampled from the same noise.
        name: how it is called.
    """
    shared = [key for key in rows[0].scores if all(key in row.scores for row in rows)]
    scores = {key: mean_over_seeds(key, [row.scores[key] for row in rows]) for key in shared}
    seconds = [row.training_seconds for row in rows if row.training_seconds is not None]
    found = {
        "name": name,
        "scores": scores,
        "images_per_second": harmonic_mean([row.images_per_second for row in rows]),
        "training_seconds": fmean(seconds) if len(seconds) == len(rows) else None,
    }
    return rows[0].model_copy(update=found)


def mean_over_seeds(name: str, scores: Sequence[Score]) -> Score:
    """The mean of several trainings' scores; no number where one of them is none.

    Its 95 % interval adds two independent errors as squares: that of sampling so many images, which all trainings share
    since their noise is the same, and that of so few trainings, Student's t of their standard deviation over the root
    of their number. What sampling adds to that standard deviation is counted twice: rather too wide than too narrow.
    Its standard error is the interval's half width over 1.96, so that verdicts follow from the interval that is shown.

    Args:
        name: the score's.
        scores: one per seed.
    """
    if len(scores) == 1:
        return scores[0]
    values = [score.value for score in scores if score.value is not None]
    method = f"mean over {len(scores)} seeds"
    warnings = tuple(dict.fromkeys(said for score in scores for said in score.warnings))
    mean = Score(value=None, better=scores[0].better, method=f"{method}, not all of them numbers", warnings=warnings)
    if len(values) < len(scores):
        return mean
    found = {"value": fmean(values), "method": f"{method}, standard deviation {stdev(values):.4g}"}
    sampling = [score.standard_error for score in scores if score.standard_error is not None]
    return mean.model_copy(update=found | (_interval(name, values, sampling) if len(sampling) == len(values) else {}))


def _interval(name: str, values: _Values, sampling: _Values) -> dict[str, Any]:
    """The interval of the mean of these values with their errors of sampling, and what it says of itself."""
    seeds = student_95(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    margin = math.hypot(NORMAL_95 * math.sqrt(fmean(error**2 for error in sampling)), seeds)
    low, high = _within(name, fmean(values), margin)
    method = (
        f"mean over {len(values)} seeds, standard deviation {stdev(values):.4g}; interval of sampling and of seeds, "
        f"Student's t with {len(values) - 1} degrees of freedom"
    )
    return {"standard_error": margin / NORMAL_95, "low": low, "high": high, "method": method}


def _within(name: str, value: float, margin: float) -> tuple[float, float]:
    """The interval, without what no measurement is."""
    known = quantities().get(name)
    least, most = (known.least, known.most) if known else (-math.inf, math.inf)
    return min(value, max(least, value - margin)), max(value, min(most, value + margin))
