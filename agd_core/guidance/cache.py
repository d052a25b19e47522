"""A guidance cache: what guidance leads away from is evaluated at every k-th step and reckoned in between.

In between, each further pass is taken to be as far from the conditional one as it was when it was last evaluated, so
with CFG `guided = cond + (guidance_scale - 1) * (cond - uncond)` with `cond - uncond` of an earlier step. This is the
CFG-Cache of FasterCache (https://arxiv.org/abs/2410.19355) without the weights of its equation 11 for low and high
frequencies.
"""

from typing import ClassVar, Generic, Literal

import torch
from pydantic import Field

from agd_core.guidance.base import CONDITIONAL, Answers, GuidanceCall, Rows
from agd_core.guidance.sparing import Rule, SparingGuidance
from agd_core.models.denoiser import Latents


class CachedGuidance(SparingGuidance[Rule], Generic[Rule]):
    """A rule at every step, all of its passes evaluated at steps 0, `every`, 2 `every`, ..."""

    kind: Literal["guidance-cache"] = "guidance-cache"
    follows_sampler: ClassVar[bool] = True
    every: int = Field(2, ge=2, le=1000)
    """Steps from one evaluation to the next; at 2 a quarter of CFG's evaluations is saved."""

    @property
    def label(self) -> str:
        """The rule's, and how often it is evaluated."""
        return f"{self.rule.label} cache {self.every}"

    def guides(self, call: GuidanceCall) -> Rows:
        """At every k-th step everywhere, in between nowhere."""
        return torch.full_like(call.timestep, self._evaluates(call), dtype=torch.bool)

    def combine(self, answers: Answers, call: GuidanceCall) -> Latents:
        """As the rule does; what was not evaluated lies where it lay from the conditional prediction."""
        conditional = answers[CONDITIONAL.name]
        others = [name for name in answers if name != CONDITIONAL.name]
        if self._evaluates(call):
            call.memory.update({_kept(name): answers[name] - conditional for name in others})
            return self.rule.combine(answers, call)
        reckoned = {name: conditional + call.memory[_kept(name)] for name in others}
        return self.rule.combine({**answers, **reckoned}, call)

    def _evaluates(self, call: GuidanceCall) -> bool:
        return call.step % self.every == 0


def _kept(name: str) -> str:
    """Where the memory has a pass, away from what the rule itself may keep there."""
    return f"cached {name}"
