"""Scores with an interval of two standard errors, and means over images."""

import math

from jaxtyping import Float
from torch import Tensor

from agd_core.evaluation.metrics.base import Quantity, Score
from agd_core.evaluation.metrics.standard_errors import NORMAL_95, accuracy_interval, accuracy_standard_error

FEWEST_IMAGES = 100
"""With fewer, a score of features says so."""


def few_images(images: int, what: str, counted: str = "images") -> tuple[str, ...]:
    """The warning that fewer than 100 images say little.

    Args:
        images: how many there are.
        what: the score in words, e.g. "an inception score".
        counted: what `images` counts in words.
    """
    return (f"{images} {counted}: too few for {what} to say much",) if images < FEWEST_IMAGES else ()


def normal_score(quantity: Quantity, value: float, error: float | None, method: str, *warnings: str) -> Score:
    """A score whose 95 % interval is `value -/+ 1.96 error`; none without an error."""
    margin = NORMAL_95 * error if error is not None else None
    ends = (value - margin, value + margin) if margin is not None else None
    return Score.of(quantity, value, error, ends, method, *warnings)


def mean_score(quantity: Quantity, values: Float[Tensor, " images"], method: str) -> Score:
    """The mean over images, with the standard error of independent ones; one image has no error."""
    values = values.double()
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else None
    return normal_score(quantity, float(values.mean()), error, method)


def share_score(
    quantity: Quantity, share: float, images: int, method: str, *warnings: str, widened: float = 1.0
) -> Score:
    """A share of images with its binomial error and interval (Agresti and Coull 1998).

    Args:
        quantity: what it is.
        share: 0 to 1.
        images: of how many.
        method: in words.
        warnings: what a reader must know.
        widened: how many times as large the error is.
    """
    error = widened * accuracy_standard_error(share, images)
    return Score.of(quantity, share, error, accuracy_interval(share, images, widened), method, *warnings)
