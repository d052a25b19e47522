"""Guidance rules. A new rule is one file here plus one line in `GuidanceConfig`."""

from agd_core.guidance.base import Guidance, GuidedDenoiser
from agd_core.guidance.classifier_free import ClassifierFreeGuidanceConfig

GuidanceConfig = ClassifierFreeGuidanceConfig

__all__ = ["ClassifierFreeGuidanceConfig", "Guidance", "GuidanceConfig", "GuidedDenoiser"]
