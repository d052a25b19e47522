"""Stage 4's core: what is measured on every sample set, and the measuring."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema, field_validator, model_validator

from agd_core.basics.config import NOT_IDENTITY, one_of
from agd_core.evaluation.extractors import EXTRACTORS
from agd_core.evaluation.metrics import METRICS, Measured, MetricSettings, Score

_NO_EXTRACTOR = "none"
ExtractorName = Annotated[
    str,
    AfterValidator(one_of(lambda: (*EXTRACTORS, _NO_EXTRACTOR))),
    WithJsonSchema({"type": "string", "enum": [*EXTRACTORS, _NO_EXTRACTOR]}),
]
MetricName = Annotated[
    str, AfterValidator(one_of(lambda: METRICS)), WithJsonSchema({"type": "string", "enum": [*METRICS]})
]
_OWN_SETTINGS = dict.fromkeys(metric.settings for metric in METRICS.values() if metric.settings is not MetricSettings)


class EvaluateConfig(*_OWN_SETTINGS, MetricSettings):  # type: ignore[misc]  # with the metrics' own settings
    """What is measured on every sample set.

    The networks that look and the real images are no part of its identity: they are known by their content, see
    `flows.stages.evaluate.Instruments.identity`.
    """

    extractor: ExtractorName = Field("fashion-classifier", json_schema_extra=NOT_IDENTITY)
    """Network in whose features images are compared with real ones; "none" leaves that out."""
    extractor_weights: str | None = Field(None, json_schema_extra=NOT_IDENTITY)
    """File (inception-v3) or folder in transformers format (dinov2, clip) with the extractor's weights."""
    extractor_sha256: str | None = Field(None, pattern="^[0-9a-f]{8,64}$", json_schema_extra=NOT_IDENTITY)
    """What the sha256 of the extractor's weights must begin with; inception-v3 knows its own."""
    judge: ExtractorName | None = Field(None, json_schema_extra=NOT_IDENTITY)
    """Network that judges whether an image shows its class or prompt; none given: the extractor, where it can."""
    judge_weights: str | None = Field(None, json_schema_extra=NOT_IDENTITY)
    """The same for the judge."""
    reference: tuple[str, ...] = Field((), json_schema_extra=NOT_IDENTITY)
    """Real images: folders, WebDataset .tar, .zarr, .parquet, merged; none: those shipped with the extractor."""
    reference_crop: int | None = Field(None, ge=8, le=4096, json_schema_extra=NOT_IDENTITY)
    """Bring real images to this size: the short side resized, the centre cropped; None takes them as they are."""
    metrics: tuple[MetricName, ...] = MetricSettings().metrics
    """What to measure; those without something to look at (no real images, no classes) are left out."""
    curve_images: int = Field(32, ge=0, le=10_000, json_schema_extra=NOT_IDENTITY)
    """Images along whose sampling the prediction error is measured at every step; 0 leaves the curve out."""
    measure_cost: bool = Field(True, json_schema_extra=NOT_IDENTITY)
    """Measure time per step, FLOPs and memory of every method."""

    @field_validator("extractor_sha256", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """YAML takes digits alone for a number."""
        return str(value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _check(self) -> "EvaluateConfig":
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError("metrics must name every metric once")
        if self.judge_weights is not None and self.judge is None:
            raise ValueError("judge_weights needs a judge")
        return self


def evaluate_samples(measured: Measured, config: EvaluateConfig) -> dict[str, Score]:
    """Measure one sample set, on the CPU.

    Args:
        measured: samples, the guided teacher's samples, the real images.
        config: which metrics, and their settings.

    Returns:
        Scores by name; a metric that has nothing to look at gives none.

    Raises:
        InputError: a metric needs a package that is not installed.
    """
    scores: dict[str, Score] = {}
    for name in config.metrics:
        scores |= METRICS[name].scores(measured, config)
    return scores
