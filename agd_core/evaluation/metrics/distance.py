"""The metric `frechet`: the distance to the real images at this number of images, and without its bias."""

from collections.abc import Mapping

from pydantic import Field

from agd_core.evaluation.metrics.base import Measured, Metric, MetricSettings, Quantity, Score
from agd_core.evaluation.metrics.scores import normal_score
from agd_core.evaluation.metrics.statistics import FeatureStatistics
from agd_core.evaluation.metrics.subsets import FEWEST_PER_FEATURE, Extrapolated, extrapolated_distance

FD = Quantity(
    "fd",
    "lower",
    "FD",
    "{:.2f}",
    "Fréchet distance to the real images in the extractor's features.",
    words="Fréchet distance",
    needs=frozenset({"features", "real"}),
    least=-0.01,
    headline=True,
)
FD_INFINITY = Quantity(
    "fd_infinity",
    "lower",
    "FD∞",
    "{:.2f}",
    "The Fréchet distance extrapolated to endlessly many images.",
    needs=frozenset({"features", "real"}),
)
_FEWEST_IMAGES = 4
"""So that a half has two images."""
FEWEST_PER_FEATURE_EXTRAPOLATED = 4
"""With fewer, a half has fewer than two images per feature, and the bias is no smooth function of 1 / n there: with
three per feature and a white spectrum the extrapolation lay 0.9 of its spread too high, with two 5 times its spread."""
FEWEST_FOR_INTERVAL = 100
"""With 60 images of 8 skewed features in ten classes, the interval at infinity held the truth in 175 of 200 trials."""
_AT_THIS_NUMBER = (
    "influence function within classes; value and interval are those of {:,} images, biased upwards; see fd_infinity"
)
_AT_INFINITY = "parabola in 1 / n through the distances of all, of three quarters and of halves, balanced random splits"


class FrechetSettings(MetricSettings):
    """How the Frechet distance is measured."""

    distance_subsets: int = Field(100, ge=2)
    """Random subsets through whose distances the bias of the Frechet distance is taken out, about this many."""


def frechet_scores(measured: Measured, settings: FrechetSettings) -> Mapping[str, Score]:
    """`fd`, and `fd_infinity`: the same without the bias of a finite number of images.

    The interval of `fd` is about the expected distance of this many images, which is larger than that of infinitely
    many; the interval of `fd_infinity` is about the latter. Both take the real images as they are. Where samples and
    real images are of one distribution, `fd` is all bias and `fd_infinity` lies around zero, also below it.
    Nothing for fewer than four images.

    Raises:
        NumericError: a feature is NaN or infinite.
    """
    samples, reference = measured.samples, measured.reference
    if samples.features is None or reference is None or len(samples.features) < _FEWEST_IMAGES:
        return {}
    images, real = len(samples.features), reference.statistics
    found = extrapolated_distance(samples.features, samples.labels, real, settings.distance_subsets, settings.seed)
    warnings = _warnings(images, real)
    fd = normal_score(FD, found.distance, found.standard_error, _AT_THIS_NUMBER.format(images), *warnings)
    return {FD.name: fd, FD_INFINITY.name: _infinity(found, images, len(real.mean), warnings)}


def _infinity(found: Extrapolated, images: int, width: int, warnings: tuple[str, ...]) -> Score:
    if images >= FEWEST_PER_FEATURE_EXTRAPOLATED * width:
        return normal_score(FD_INFINITY, found.infinity, found.infinity_standard_error, _AT_INFINITY, *warnings)
    guess = f"{images:,} images for {width:,} features: fewer than four times as many; fd_infinity is a rough guess"
    return normal_score(FD_INFINITY, found.infinity, None, _AT_INFINITY, guess, *warnings)


def _warnings(images: int, real: FeatureStatistics) -> tuple[str, ...]:
    """What must be said of too few images, sampled or real."""
    width, counts = len(real.mean), {"images": images, "real images": real.samples}
    biased = tuple(
        f"{count:,} {what} for {width:,} features: fewer than twice as many; the distance is biased upwards"
        for what, count in counts.items()
        if count < FEWEST_PER_FEATURE * width
    )
    if images >= FEWEST_FOR_INTERVAL:
        return biased
    return (
        *biased,
        f"{images} images: with fewer than {FEWEST_FOR_INTERVAL} the distance's interval may be too narrow",
    )


FRECHET = Metric("frechet", (FD, FD_INFINITY), frechet_scores, FrechetSettings)
