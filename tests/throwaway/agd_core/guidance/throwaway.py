"""Guidance with a third pass that asks the conditional network once more."""

from operator import attrgetter
from typing import Literal

from agd_core.guidance.base import CONDITIONAL, UNCONDITIONAL, Guidance, Pass
from agd_core.models.denoiser import rowwise

AGAIN = Pass("again", attrgetter("condition"))


class ThrowawayGuidance(Guidance):
    kind: Literal["three-pass"] = "three-pass"

    def passes(self, model):
        return CONDITIONAL, UNCONDITIONAL, AGAIN

    def combine(self, answers, call):
        conditional, away = answers[CONDITIONAL.name], answers[AGAIN.name] - answers[UNCONDITIONAL.name]
        return conditional + rowwise(call.guidance_scale - 1, away) * away
