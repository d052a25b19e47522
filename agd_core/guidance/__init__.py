"""Guidance rules. A new rule is one file here plus one line in `GuidanceConfig`."""

from agd_core.guidance.base import CONDITIONAL, UNCONDITIONAL, Answers, Guidance, GuidanceCall, GuidedDenoiser, Pass
from agd_core.guidance.classifier_free import ClassifierFreeGuidance

GuidanceConfig = ClassifierFreeGuidance

__all__ = [
    "CONDITIONAL",
    "UNCONDITIONAL",
    "Answers",
    "ClassifierFreeGuidance",
    "Guidance",
    "GuidanceCall",
    "GuidanceConfig",
    "GuidedDenoiser",
    "Pass",
]
