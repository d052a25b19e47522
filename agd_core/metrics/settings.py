"""What is measured on every sample set."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from agd_core.config import Config

ExtractorName = Literal["fashion-classifier", "inception-v3", "efficientnet-lite0", "dinov2", "clip", "none"]
MetricName = Literal["frechet", "kid", "inception-score", "precision-recall", "agreement", "paired", "lpips"]


class EvaluateConfig(Config):
    """What is measured on every sample set."""

    extractor: ExtractorName = "fashion-classifier"
    """Network in whose features images are compared with real ones; "none" leaves that out."""
    extractor_weights: str | None = None
    """File (inception-v3) or folder in transformers format (dinov2, clip) with the extractor's weights."""
    extractor_sha256: str | None = Field(None, pattern="^[0-9a-f]{8,64}$")
    """What the sha256 of the extractor's weights must begin with; inception-v3 knows its own."""
    judge: ExtractorName | None = None
    """Network that judges whether an image shows its class or prompt; none given: the extractor, where it can."""
    judge_weights: str | None = None
    """The same for the judge."""
    reference: tuple[str, ...] = ()
    """Real images: folders, WebDataset .tar, .zarr, .parquet, merged; none: those shipped with the extractor."""
    reference_crop: int | None = Field(None, ge=8, le=4096)
    """Bring real images to this size: the short side resized, the centre cropped; None takes them as they are."""
    metrics: tuple[MetricName, ...] = ("frechet", "kid", "inception-score", "precision-recall", "agreement", "paired")
    """What to measure; those without something to look at (no real images, no classes) are left out."""
    distance_subsets: int = Field(100, ge=2)
    """Random subsets through whose distances the bias of the Frechet distance is taken out, about this many."""
    kid_subsets: int = Field(20, ge=1, le=1000)
    """Subsets over which the kernel distance is averaged."""
    kid_subset_size: int = Field(1000, ge=2)
    """Images per subset, or as many as there are."""
    neighbours: int = Field(3, ge=1, le=50)
    """k of the k-nearest-neighbour balls of precision and recall."""
    lpips_weights: str | None = None
    """torchvision's VGG16 weights file, for the LPIPS distance."""
    curve_images: int = Field(32, ge=0, le=10_000)
    """Images along whose sampling the prediction error is measured at every step; 0 leaves the curve out."""
    measure_cost: bool = True
    """Measure time per step, FLOPs and memory of every method."""
    seed: int = Field(0, ge=0)
    """Seeds the subsets."""

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
        if "lpips" in self.metrics and not self.lpips_weights:
            raise ValueError("metrics names lpips, which needs lpips_weights")
        return self
