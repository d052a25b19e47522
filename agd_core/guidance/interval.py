"""Guidance in an interval of noise levels (https://arxiv.org/abs/2404.07724): any rule inside it, none outside."""

from typing import Generic, Literal, TypeVar

import torch
from pydantic import Field, model_validator

from agd_core.guidance.base import CONDITIONAL, Answers, Guidance, GuidanceCall, Pass, Rows
from agd_core.models.denoiser import Latents, rowwise
from agd_core.models.model import BaseModel

Rule = TypeVar("Rule", bound=Guidance)


class IntervalGuidance(Guidance, Generic[Rule]):
    """A rule where `low < noise level <= high` (the paper's section 3), one conditional pass elsewhere."""

    kind: Literal["interval"] = "interval"
    low: float = Field(0.0, ge=0)
    """At and below this noise level nothing is guided, see `agd_core.models.schedulers.noise_level` (paper: 0.28)."""
    high: float = Field(gt=0, allow_inf_nan=False)
    """Above this noise level nothing is guided (paper: 2.9, and 5.42 for Stable Diffusion XL)."""
    rule: Rule
    """What guides inside the interval."""

    @model_validator(mode="after")
    def _check(self) -> "IntervalGuidance[Rule]":
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        return self

    @property
    def label(self) -> str:
        """The rule's, and where it guides."""
        return f"{self.rule.label} in {self.low:g} to {self.high:g}"

    def passes(self, model: BaseModel) -> tuple[Pass, ...]:
        """Those of the rule."""
        return self.rule.passes(model)

    def rows(self, one: Pass, call: GuidanceCall) -> Rows | None:
        """Outside of the interval the conditional pass alone is needed."""
        needed = self.rule.rows(one, call)
        if one is CONDITIONAL:
            return needed
        return self._inside(call) if needed is None else self._inside(call) & needed

    def combine(self, answers: Answers, call: GuidanceCall) -> Latents:
        """As the rule does, inside the interval."""
        conditional = answers[CONDITIONAL.name]
        return torch.where(rowwise(self._inside(call), conditional), self.rule.combine(answers, call), conditional)

    def everywhere(self) -> Guidance:
        """The rule, as inside the interval."""
        return self.rule.everywhere()

    def check(self, model: BaseModel) -> None:
        """As the rule does."""
        self.rule.check(model)

    def _inside(self, call: GuidanceCall) -> Rows:
        return (self.low < call.noise_level) & (call.noise_level <= self.high)
