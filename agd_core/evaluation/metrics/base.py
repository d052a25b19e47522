"""What a metric is: numbers with a direction and a meaning, and a function of what was sampled, seen and is real."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from jaxtyping import Float, Int, UInt8
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from torch import Tensor

from agd_core.basics.config import Config
from agd_core.evaluation.metrics.reference import Reference

LARGEST = 1e12
"""No measurement is larger, nor a number that is read back."""
Number = Annotated[float, Field(allow_inf_nan=False, ge=-LARGEST, le=LARGEST)]
Text = Annotated[str, Field(max_length=4096)]
Better = Literal["lower", "higher"]
"""The good direction of a number."""
Images = UInt8[Tensor, "images height width channels"]
PerImage = Float[Tensor, " images"]
Need = Literal["guided", "features", "real", "judge"]
"""What is looked at beside the samples: the guided teacher's, an extractor's features or logits, real images' features,
what the judge says."""


@dataclass(frozen=True)
class Quantity:
    """One number that a metric gives: how it is called, read and shown."""

    name: str
    """Among the scores of a row."""
    better: Better
    heading: str
    """Of its column."""
    format: str
    """Of the number, its unit included, e.g. "{:.1%}"."""
    meaning: str
    """One line for the reader."""
    words: str = ""
    """What a sentence or an axis calls it; empty: its heading."""
    needs: frozenset[Need] = frozenset()
    """What shapes it beside the samples; "guided" makes it a paired one."""
    least: float = -math.inf
    """What no measurement falls below, with room for rounding."""
    most: float = math.inf
    of_teacher: float | None = None
    """What the guided teacher's own images have, on a paired number that others can have but for chance."""
    packages: tuple[str, ...] = ()
    """Libraries that shape it and not every number."""
    headline: bool = False
    """Whether the report's verdict, its plots over the scale and the nights are about it."""

    @property
    def in_words(self) -> str:
        """What a sentence or an axis calls it."""
        return self.words or self.heading

    @property
    def paired(self) -> bool:
        """Whether the guided teacher is the yardstick, so that it says nothing about the teacher itself."""
        return "guided" in self.needs


def _from_json(value: Any) -> Any:
    """JSON has no tuples."""
    return tuple(value) if isinstance(value, list) else value


class Score(BaseModel):
    """One measured number with what is known about its error; the same in memory, in JSON and read back."""

    model_config = ConfigDict(strict=True, frozen=True)

    value: Number | None
    """None where it was measured and came out as no number."""
    better: Better
    standard_error: Annotated[Number, Field(ge=0)] | None = None
    """Of sampling this many images; None where it is not known."""
    low: Number | None = None
    high: Number | None = None
    """95 % interval; None where there is none."""
    method: Text = ""
    """How interval and standard error were made, e.g. "influence function within classes"."""
    warnings: Annotated[tuple[Text, ...], BeforeValidator(_from_json)] = ()
    """What a reader must know, e.g. that there are too few images for so many features."""

    @model_validator(mode="after")
    def _in_order(self) -> "Score":
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self

    @classmethod
    def of(
        cls, quantity: Quantity, value: float, error: float | None, ends: tuple[float, float] | None, *said: str
    ) -> "Score":
        """What was measured: NaN, infinity and what is beyond 1e12 become None, with a warning.

        Args:
            quantity: what was measured.
            value: may be anything.
            error: its standard error, if it is known.
            ends: of its 95 % interval, if there is one.
            said: the method, then the warnings.
        """
        method, *warnings = said
        if not _is_number(value):
            warnings.append(f"{quantity.name} is no number: what it was measured of is none")
            return cls(value=None, better=quantity.better, method=method, warnings=tuple(warnings))
        known = error is not None and _is_number(error)
        low, high = ends if ends and known else (None, None)
        kept = {"standard_error": error if known else None, "low": low, "high": high}
        return cls(value=value, better=quantity.better, method=method, warnings=tuple(warnings), **kept)


def _is_number(value: float) -> bool:
    return abs(value) <= LARGEST


@dataclass(frozen=True)
class Seen:
    """A sample set as the metrics see it; all tensors on the CPU."""

    images: Images
    latents: Float[Tensor, "images latent_channels latent_height latent_width"]
    labels: Int[Tensor, " images"]
    """The class that each image was sampled for; zeros for a model without classes."""
    features: Float[Tensor, "images dims"] | None = None
    """None where no extractor was asked for."""
    logits: Float[Tensor, "images classes"] | None = None
    """Of the extractor's head, if it has one."""
    agreement: PerImage | None = None
    """Per image: does it show what was asked for, see `agreement_metric`."""
    agreement_metric: str = ""
    """ "accuracy" or "clip_score"."""
    ranks: Int[Tensor, "images 2"] | None = None
    """Per image: place of the right name among names and of the right style among styles, from 1; None without such a
    judge."""


@dataclass(frozen=True)
class Measured:
    """Everything that metrics may look at."""

    samples: Seen
    guided: Seen | None
    """The guided teacher's sample set, row by row from the same noise and class; None to leave paired metrics out."""
    reference: Reference | None
    """Real images in the same extractor's features; None to leave distances out."""


class MetricSettings(Config):
    """What every metric is told; one with settings of its own adds them."""

    metrics: tuple[str, ...] = ("frechet", "kid", "inception-score", "precision-recall", "agreement", "paired")
    """What to measure; those without something to look at (no real images, no classes) are left out."""
    seed: int = Field(0, ge=0)
    """Seeds the subsets."""


@dataclass(frozen=True)
class Metric:
    """One computation and the numbers that it gives; a file each, see `agd_core.evaluation.metrics.METRICS`."""

    name: str
    """In `evaluate.metrics`."""
    quantities: tuple[Quantity, ...]
    scores: Callable[[Measured, Any], Mapping[str, Score]] = field(repr=False)
    """Scores by the quantities' names, given an object of `settings`; none where it has nothing to look at."""
    settings: type[MetricSettings] = MetricSettings
    """With the fields of its own among those of `agd_core.evaluation.evaluator.EvaluateConfig`."""

    def owns(self, setting: str) -> bool:
        """Whether a setting is this metric's own."""
        return setting in self.settings.model_fields and setting not in MetricSettings.model_fields
