"""Classifier-free guidance (https://arxiv.org/abs/2207.12598), in the convention where 1.0 means off."""

from typing import Literal

from pydantic import Field

from agd_core.basics.errors import InputError
from agd_core.guidance.base import CONDITIONAL, UNCONDITIONAL, Answers, Guidance, GuidanceCall, Pass
from agd_core.models.denoiser import Latents, rowwise
from agd_core.models.model import BaseModel


class ClassifierFreeGuidance(Guidance):
    """`guided = uncond + guidance_scale * (cond - uncond)`."""

    kind: Literal["cfg"] = "cfg"
    guided_channels: int | None = Field(None, ge=1)
    """Guide only the first channels, the rest stays conditional. None guides all, as diffusers does; the
    original DiT code guides 3 of 4 (https://github.com/facebookresearch/DiT, models.py)."""

    @property
    def label(self) -> str:
        """As everybody calls it."""
        return "CFG"

    def passes(self, model: BaseModel) -> tuple[Pass, ...]:
        """With the condition and without."""
        return CONDITIONAL, UNCONDITIONAL

    def combine(self, answers: Answers, call: GuidanceCall) -> Latents:
        """The formula, on the guided channels."""
        conditional, unconditional = answers[CONDITIONAL.name], answers[UNCONDITIONAL.name]
        guided = unconditional + rowwise(call.guidance_scale, conditional) * (conditional - unconditional)
        if self.guided_channels is not None:
            guided[:, self.guided_channels :] = conditional[:, self.guided_channels :]
        return guided

    def check(self, model: BaseModel) -> None:
        """No more channels are guided than there are."""
        channels, guided = model.latent_shape[0], self.guided_channels
        if guided is not None and guided > channels:
            raise InputError(f"guidance.guided_channels {guided} exceeds the {channels} channels of this base model")
