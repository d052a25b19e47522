"""Scores with an interval of two standard errors, and means over images."""

import math

from jaxtyping import Float
from torch import Tensor

from agd_core.metrics.base import Better, Score
from agd_core.metrics.standard_errors import NORMAL_95


def normal_score(value: float, better: Better, error: float | None, method: str, *warnings: str) -> Score:
    """A score whose 95 % interval is `value -/+ 1.96 error`; none without an error."""
    if error is None:
        return Score(value, better, method=method, warnings=warnings)
    margin = NORMAL_95 * error
    return Score(value, better, error, value - margin, value + margin, method, warnings)


def mean_score(values: Float[Tensor, " images"], better: Better, method: str) -> Score:
    """The mean over images, with the standard error of independent ones; one image has no error."""
    values = values.double()
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else None
    return normal_score(float(values.mean()), better, error, method)
