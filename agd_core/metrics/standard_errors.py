"""How far a score of one sample set lies from that of another one made in the same way: its standard error."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from agd_core.metrics.frechet import bootstrap_standard_error, frechet_distance
from agd_core.metrics.statistics import FeatureStatistics
from agd_core.seeding import generator

NORMAL_95 = 1.96
"""Half the width of a 95 % interval, in standard errors of a normal estimate."""
Latents = Float[Tensor, "images channels height width"]


def distance_standard_error(
    features: Float[Tensor, "images width"],
    labels: Int[Tensor, " images"],
    reference: FeatureStatistics,
    resamples: int,
    seed: int,
) -> float:
    """Standard error of the Frechet distance of class-balanced images, by resampling within every class.

    Sample sets have the same number of images of every class, so what differs between classes is no noise; plain
    resampling counts it, and is three times too large at 100 images of the built-in world. Resampling m images of a
    class shrinks their variance by (m - 1) / m, which is undone. Where a class has one image only, it is the plain
    resampling.

    Args:
        features: of every image.
        labels: the class that each was sampled for.
        reference: statistics of the real data.
        resamples: how many.
        seed: of the resamples.
    """
    members = [torch.nonzero(labels == label)[:, 0] for label in torch.unique(labels)]
    if (fewest := min(map(len, members))) < 2:
        return bootstrap_standard_error(features, reference, resamples, seed)
    distances = []
    for resample in range(resamples):
        draws = generator(seed, "within-classes", resample)
        rows = torch.cat([m[torch.randint(len(m), (len(m),), generator=draws)] for m in members])
        counts = torch.bincount(rows, minlength=len(features)).double()
        distances.append(frechet_distance(reference, FeatureStatistics.weighted(features, counts)))
    return float(torch.tensor(distances).std()) * math.sqrt(fewest / (fewest - 1))


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


def accuracy_interval(accuracy: float, images: int) -> tuple[float, float]:
    """95 % interval of a share, inside 0 to 1 (Agresti and Coull 1998)."""
    centre, margin = _with_two_more_of_each(accuracy, images), NORMAL_95 * accuracy_standard_error(accuracy, images)
    return max(0.0, centre - margin), min(1.0, centre + margin)


def paired_error(latents: Latents, guided_latents: Latents) -> tuple[float, float]:
    """Mean squared distance of final latents from the guided teacher's of the same noise, with its standard error.

    Args:
        latents: of two images or more.
        guided_latents: row by row from the same noise and class.
    """
    per_image = (latents.double() - guided_latents.double()).square().mean(dim=(1, 2, 3))
    return float(per_image.mean()), float(per_image.std()) / math.sqrt(len(per_image))


def _with_two_more_of_each(share: float, images: int) -> float:
    return (share * images + 2) / (images + 4)
