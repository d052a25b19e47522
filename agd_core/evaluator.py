"""Stage 4's core: one sample set against the real data and against the guided teacher's samples."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from pydantic import Field, field_validator
from torch import Tensor

from agd_core.config import Config
from agd_core.metrics import EXTRACTORS, FeatureExtractor, FeatureStatistics, bootstrap_standard_error, frechet_distance
from agd_core.sampling import SampleSet

_NORMAL_95 = 1.96


class EvaluateConfig(Config):
    """What is measured on every sample set."""

    extractor: str = "fashion-classifier"
    """Feature extractor of the Frechet distance and judge of classes; "none" leaves both out."""
    bootstrap_resamples: int = Field(100, ge=2)
    """Resamples behind the interval of the Frechet distance."""
    seed: int = Field(0, ge=0)
    """Seeds the resamples."""

    @field_validator("extractor")
    @classmethod
    def _check(cls, name: str) -> str:
        if name not in (allowed := [*EXTRACTORS, "none"]):
            raise ValueError(f"unknown extractor; allowed: {', '.join(allowed)}")
        return name


@dataclass(frozen=True)
class Evaluation:
    """Quality of one sample set; None where it was not measured."""

    fd: float | None
    """Frechet distance to the real data in the extractor's feature space."""
    fd_low: float | None
    fd_high: float | None
    """Interval `fd -/+ 1.96` bootstrap standard errors: sampling noise at this number of images, not bias."""
    accuracy: float | None
    """Fraction of images that the extractor's classifier gives the class they were sampled for."""
    paired_mse: float | None
    """Mean squared distance of final latents to the guided teacher's from the same noise, class and scale."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class SampleFeatures:
    """What an extractor makes of a sample set, and of the real data."""

    features: Float[Tensor, "images features"]
    classes: Int[Tensor, " images"]
    """The most likely class of every image."""
    reference: FeatureStatistics

    @classmethod
    def of(cls, samples: SampleSet, extractor: FeatureExtractor) -> "SampleFeatures":
        """Compute them: the only part of an evaluation that uses the extractor's device."""
        return cls(*extractor.extract(samples.images), extractor.reference())


def evaluate_samples(
    samples: SampleSet,
    guided_latents: Float[Tensor, "images channels height width"] | None,
    seen: SampleFeatures | None,
    config: EvaluateConfig,
) -> Evaluation:
    """Measure one sample set, on the CPU.

    Args:
        samples: the images.
        guided_latents: final latents of the guided teacher, row by row from the same noise; None to leave
            the paired error out.
        seen: features of the samples; None to leave distance and accuracy out.
        config: resamples and their seed.
    """
    paired = None if guided_latents is None else float((samples.latents - guided_latents).square().mean())
    if seen is None:
        return Evaluation(None, None, None, None, paired)
    distance = frechet_distance(seen.reference, FeatureStatistics.of(seen.features))
    error = bootstrap_standard_error(seen.features, seen.reference, config.bootstrap_resamples, config.seed)
    accuracy = float((seen.classes == samples.labels).float().mean())
    margin = _NORMAL_95 * error
    return Evaluation(distance, distance - margin, distance + margin, accuracy, paired)
