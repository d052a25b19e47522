"""Guidance that is spared: any rule, whose passes beside the conditional one are made in some rows or steps only.

Such a rule costs less than the one that it spares and needs no training, so it is what a distilled adapter has to beat.
"""

from abc import abstractmethod
from typing import Generic, TypeVar

import torch

from agd_core.guidance.base import CONDITIONAL, Answers, Guidance, GuidanceCall, Pass, Rows
from agd_core.models.denoiser import Latents, rowwise
from agd_core.models.model import BaseModel

Rule = TypeVar("Rule", bound=Guidance)


class SparingGuidance(Guidance, Generic[Rule]):
    """A rule where `guides` says so, one conditional pass elsewhere."""

    rule: Rule
    """What guides."""

    @abstractmethod
    def guides(self, call: GuidanceCall) -> Rows:
        """The rows in which every pass of the rule is made."""

    def passes(self, model: BaseModel) -> tuple[Pass, ...]:
        """Those of the rule."""
        return self.rule.passes(model)

    def rows(self, one: Pass, call: GuidanceCall) -> Rows | None:
        """In the other rows the conditional pass alone is needed."""
        needed = self.rule.rows(one, call)
        if one is CONDITIONAL:
            return needed
        return self.guides(call) if needed is None else self.guides(call) & needed

    def combine(self, answers: Answers, call: GuidanceCall) -> Latents:
        """As the rule does, in the rows where it guides."""
        conditional = answers[CONDITIONAL.name]
        return torch.where(rowwise(self.guides(call), conditional), self.rule.combine(answers, call), conditional)

    def everywhere(self) -> Guidance:
        """The rule, as where it guides."""
        return self.rule.everywhere()

    def check(self, model: BaseModel) -> None:
        """As the rule does."""
        self.rule.check(model)
