"""Guidance in an interval of noise levels (https://arxiv.org/abs/2404.07724): any rule inside it, none outside."""

from typing import Generic, Literal

from pydantic import Field, model_validator

from agd_core.guidance.base import GuidanceCall, Rows
from agd_core.guidance.sparing import Rule, SparingGuidance


class IntervalGuidance(SparingGuidance[Rule], Generic[Rule]):
    """A rule where `low < noise level <= high` (the paper's section 3), one conditional pass elsewhere."""

    kind: Literal["interval"] = "interval"
    low: float = Field(0.0, ge=0)
    """At and below this noise level nothing is guided, see `agd_core.models.schedulers.noise_level` (paper: 0.28)."""
    high: float = Field(gt=0, allow_inf_nan=False)
    """Above this noise level nothing is guided (paper: 2.9, and 5.42 for Stable Diffusion XL)."""

    @model_validator(mode="after")
    def _check(self) -> "IntervalGuidance[Rule]":
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        return self

    @property
    def label(self) -> str:
        """The rule's, and where it guides."""
        return f"{self.rule.label} in {self.low:g} to {self.high:g}"

    def guides(self, call: GuidanceCall) -> Rows:
        """Inside of the interval."""
        return (self.low < call.noise_level) & (call.noise_level <= self.high)
