"""The paired error as a share of that of no guidance on the same images: 0 is the guided teacher, 1 no guidance."""

import math

from agd_core.evaluation.metrics import Score
from agd_core.evaluation.metrics.paired import PAIRED_MSE
from agd_core.evaluation.metrics.standard_errors import NORMAL_95
from agd_core.evaluation.rows import Row

NO_GUIDANCE_SCALE = 1.0
RELATIVE_ERROR = "relative_error"
"""Among a row's scores."""


def with_relative_error(row: Row, unguided: Row) -> Row:
    """The row with one more score; as it is at scale 1, where no guidance is the teacher, and for the two yardsticks.

    Args:
        row: of anything.
        unguided: no guidance's at the same point.
    """
    if row.is_teacher or row.method == unguided.method or unguided.teacher_scale == NO_GUIDANCE_SCALE:
        return row
    found = _relative(row.scores.get(PAIRED_MSE.name), unguided.scores.get(PAIRED_MSE.name))
    return row.model_copy(update={"scores": row.scores | {RELATIVE_ERROR: found}}) if found else row


def _relative(mine: Score | None, theirs: Score | None) -> Score | None:
    """The ratio, its error by the delta method as if both were independent.

    Both are of the same images, whose errors rise and fall together: rather too wide than too narrow.
    """
    if mine is None or mine.value is None or theirs is None or not theirs.value:
        return None
    ratio = mine.value / theirs.value
    method = "paired MSE over no guidance's, delta method"
    if mine.standard_error is None or theirs.standard_error is None:
        return Score(value=ratio, better=mine.better, method=method, warnings=mine.warnings)
    error = math.hypot(mine.standard_error, ratio * theirs.standard_error) / theirs.value
    ends = {"low": max(0.0, ratio - NORMAL_95 * error), "high": ratio + NORMAL_95 * error}
    return Score(value=ratio, better=mine.better, standard_error=error, method=method, warnings=mine.warnings, **ends)
