"""Guidance rules. A new rule is one file here plus one line in `_Rule`, then it also guides in an interval."""

from typing import Annotated

from pydantic import Field

from agd_core.guidance.base import CONDITIONAL, UNCONDITIONAL, Answers, Guidance, GuidanceCall, GuidedDenoiser, Pass
from agd_core.guidance.classifier_free import ClassifierFreeGuidance
from agd_core.guidance.interval import IntervalGuidance

_Rule = ClassifierFreeGuidance
"""Those that guide everywhere: the next one is joined to it by `|`."""
GuidanceConfig = Annotated[_Rule | IntervalGuidance[_Rule], Field(discriminator="kind")]

__all__ = [
    "CONDITIONAL",
    "UNCONDITIONAL",
    "Answers",
    "ClassifierFreeGuidance",
    "Guidance",
    "GuidanceCall",
    "GuidanceConfig",
    "GuidedDenoiser",
    "IntervalGuidance",
    "Pass",
]
