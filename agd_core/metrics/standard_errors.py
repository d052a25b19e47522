"""How far a score of one sample set lies from that of another one made in the same way: its standard error."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from agd_core.metrics.frechet import FeatureStatistics, bootstrap_standard_error, frechet_distance
from agd_core.seeding import generator

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


def accuracy_standard_error(accuracy: float, images: int) -> float:
    """Binomial standard error of a share, never zero.

    Two successes and two failures are added first (Agresti and Coull 1998): at 100 % of few images the plain formula
    claims certainty.
    """
    share = (accuracy * images + 2) / (images + 4)
    return math.sqrt(share * (1 - share) / (images + 4))


def paired_error(latents: Latents, guided_latents: Latents) -> tuple[float, float]:
    """Mean squared distance of final latents from the guided teacher's of the same noise, with its standard error.

    Args:
        latents: of two images or more.
        guided_latents: row by row from the same noise and class.
    """
    per_image = (latents.double() - guided_latents.double()).square().mean(dim=(1, 2, 3))
    return float(per_image.mean()), float(per_image.std()) / math.sqrt(len(per_image))
