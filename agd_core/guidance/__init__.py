"""Guidance rules. A new rule is one file here plus one line in `_Rule`, then it also guides where it is spared.

A new way of sparing any of them is one file plus one line in `_Sparing`.
"""

from typing import Annotated

from pydantic import Field

from agd_core.guidance.base import CONDITIONAL, UNCONDITIONAL, Answers, Guidance, GuidanceCall, GuidedDenoiser, Pass
from agd_core.guidance.cache import CachedGuidance
from agd_core.guidance.classifier_free import ClassifierFreeGuidance
from agd_core.guidance.gate import GatedGuidance
from agd_core.guidance.interval import IntervalGuidance

_Rule = ClassifierFreeGuidance
"""Those that guide everywhere: the next one is joined to it by `|`."""
_Sparing = IntervalGuidance[_Rule] | GatedGuidance[_Rule] | CachedGuidance[_Rule]
"""Those that spare any of them."""
GuidanceConfig = Annotated[_Rule | _Sparing, Field(discriminator="kind")]
SparingConfig = Annotated[_Sparing, Field(discriminator="kind")]

__all__ = [
    "CONDITIONAL",
    "UNCONDITIONAL",
    "Answers",
    "CachedGuidance",
    "ClassifierFreeGuidance",
    "GatedGuidance",
    "Guidance",
    "GuidanceCall",
    "GuidanceConfig",
    "GuidedDenoiser",
    "IntervalGuidance",
    "Pass",
    "SparingConfig",
]
