"""Guidance that stops after a share of the steps: from there on one conditional pass.

This is the fixed form of Adaptive Guidance (https://arxiv.org/abs/2312.12487), which stops where the two predictions
have become alike, and finds the second half of the steps to be so. Servers know it as a gate
(https://github.com/sgl-project/sglang/pull/25848).
"""

import math
from typing import ClassVar, Generic, Literal

import torch
from pydantic import Field

from agd_core.guidance.base import GuidanceCall, Rows
from agd_core.guidance.sparing import Rule, SparingGuidance

_DIGITS = 9
"""0.7 times 10 steps is 7 and not a little more."""


class GatedGuidance(SparingGuidance[Rule], Generic[Rule]):
    """A rule in the first `ceil(until * steps)` steps, one conditional pass in the others."""

    kind: Literal["cfg-gate"] = "cfg-gate"
    follows_sampler: ClassVar[bool] = True
    until: float = Field(0.5, gt=0, lt=1)
    """Share of the sampler's steps after which nothing is guided; at 0.5 a quarter of CFG's evaluations is saved."""

    @property
    def label(self) -> str:
        """The rule's, and when it stops."""
        return f"{self.rule.label} gate {self.until:g}"

    def guides(self, call: GuidanceCall) -> Rows:
        """Before the gate: everywhere, after it nowhere."""
        open_steps = math.ceil(round(self.until * call.steps, _DIGITS))
        return torch.full_like(call.timestep, call.step < open_steps, dtype=torch.bool)
