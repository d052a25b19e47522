"""What a metric is: a function of what was sampled, what was seen in it, and the real images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float, Int, UInt8
from torch import Tensor

from agd_core.metrics.reference import Reference
from agd_core.metrics.settings import EvaluateConfig

Better = Literal["lower", "higher"]
"""The good direction of a metric."""


@dataclass(frozen=True)
class Score:
    """One measured number with what is known about its error."""

    value: float
    better: Better
    standard_error: float | None = None
    """Of sampling this many images; None where it is not known."""
    low: float | None = None
    high: float | None = None
    """95 % interval; None where there is none."""
    method: str = ""
    """How interval and standard error were made, e.g. "influence function within classes"."""
    warnings: tuple[str, ...] = ()
    """What a reader must know, e.g. that there are too few images for so many features."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**vars(self), "warnings": list(self.warnings)}


@dataclass(frozen=True)
class Seen:
    """A sample set as the metrics see it; all tensors on the CPU."""

    images: UInt8[Tensor, "images height width channels"]
    latents: Float[Tensor, "images latent_channels latent_height latent_width"]
    labels: Int[Tensor, " images"]
    """The class that each image was sampled for; zeros for a model without classes."""
    features: Float[Tensor, "images dims"] | None = None
    """None where no extractor was asked for."""
    logits: Float[Tensor, "images classes"] | None = None
    """Of the extractor's head, if it has one."""
    agreement: Float[Tensor, " images"] | None = None
    """Per image: does it show what was asked for, see `agreement_metric`."""
    agreement_metric: str = ""
    """ "accuracy" or "clip_score"."""


@dataclass(frozen=True)
class Measured:
    """Everything that metrics may look at."""

    samples: Seen
    guided: Seen | None
    """The guided teacher's sample set, row by row from the same noise and class; None to leave paired metrics out."""
    reference: Reference | None
    """Real images in the same extractor's features; None to leave distances out."""


Metric = Callable[[Measured, EvaluateConfig], Mapping[str, Score]]
"""Gives scores by name; none where it has nothing to look at (no reference, no features, no guided set)."""
