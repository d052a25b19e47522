"""How far a score of one sample set lies from that of another one made in the same way: its standard error."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

NORMAL_95 = 1.96
"""Half the width of a 95 % interval, in standard errors of a normal estimate."""
_SHARE_95, _QUANTILE_PRECISION = 0.95, 1e-9


def student_95(degrees: int) -> float:
    """Half the width of a 95 % interval in standard errors that so many degrees of freedom have told, Student's t."""
    low, high = 0.0, 13.0
    while high - low > _QUANTILE_PRECISION:
        middle = (low + high) / 2
        low, high = (middle, high) if _student_share(middle, degrees) < _SHARE_95 else (low, middle)
    return (low + high) / 2


def _student_share(t: float, degrees: int) -> float:
    """How much of Student's distribution lies within t of its middle (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle, is_odd = math.atan(t / math.sqrt(degrees)), degrees % 2
    term = math.cos(angle) if is_odd else 1.0
    total = 0.0
    for order in range(2 + is_odd, degrees + 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (order - 1) / order
    inside = math.sin(angle) * total
    return 2 / math.pi * (angle + inside) if is_odd else inside


def balanced_standard_error(values: Float[Tensor, " images"], labels: Int[Tensor, " images"]) -> float:
    """Standard error of a mean over images of fixed classes: what differs between the classes is no noise.

    Args:
        values: one per image, of two images or more.
        labels: the class that each was sampled for; where a class has one image only, classes are not told apart.
    """
    values = values.double()
    _, classes, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
    if int(sizes.min()) < 2:
        return float(values.std()) / math.sqrt(len(values))
    sums = torch.zeros(len(sizes)).double().index_add(0, classes, values)
    squares = (values - (sums / sizes)[classes]).square()
    within = torch.zeros(len(sizes)).double().index_add(0, classes, squares)
    return math.sqrt(float((within * sizes / (sizes - 1)).sum())) / len(values)


def accuracy_standard_error(accuracy: float, images: int) -> float:
    """Binomial standard error of a share, never zero.

    Two successes and two failures are added first (Agresti and Coull 1998): at 100 % of few images the plain formula
    claims certainty.
    """
    share = _with_two_more_of_each(accuracy, images)
    return math.sqrt(share * (1 - share) / (images + 4))


def accuracy_interval(accuracy: float, images: int, widened: float = 1.0) -> tuple[float, float]:
    """95 % interval of a share, inside 0 to 1 (Agresti and Coull 1998), `widened` times as wide."""
    margin = widened * NORMAL_95 * accuracy_standard_error(accuracy, images)
    centre = _with_two_more_of_each(accuracy, images)
    return max(0.0, centre - margin), min(1.0, centre + margin)


def _with_two_more_of_each(share: float, images: int) -> float:
    return (share * images + 2) / (images + 4)
