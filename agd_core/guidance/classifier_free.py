"""Classifier-free guidance (https://arxiv.org/abs/2207.12598), in the convention where 1.0 means off."""

from typing import Literal

import torch
from pydantic import Field

from agd_core.basics.config import IDENTITY_IF_SET
from agd_core.basics.errors import InputError
from agd_core.guidance.base import CONDITIONAL, UNCONDITIONAL, Answers, Guidance, GuidanceCall, Pass
from agd_core.models.denoiser import Latents, PerRow, rowwise
from agd_core.models.model import BaseModel


class ClassifierFreeGuidance(Guidance):
    """`guided = uncond + guidance_scale * (cond - uncond)`."""

    kind: Literal["cfg"] = "cfg"
    guided_channels: int | None = Field(None, ge=1)
    """Guide only the first channels, the rest stays conditional. None guides all, as diffusers does; the
    original DiT code guides 3 of 4 (https://github.com/facebookresearch/DiT, models.py)."""
    rescale: float = Field(0.0, ge=0, le=1, json_schema_extra=IDENTITY_IF_SET)
    """How far what is guided gets the standard deviation that it has without guidance, against over-exposure: 0 leaves
    it, 1 gives all of it (https://arxiv.org/abs/2305.08891, section 3.4: 0.7; diffusers' `guidance_rescale`)."""

    @property
    def label(self) -> str:
        """As everybody calls it, and how it is rescaled."""
        return f"CFG, rescale {self.rescale:g}" if self.rescale else "CFG"

    def passes(self, model: BaseModel) -> tuple[Pass, ...]:
        """With the condition and without."""
        return CONDITIONAL, UNCONDITIONAL

    def combine(self, answers: Answers, call: GuidanceCall) -> Latents:
        """The formula, on the guided channels."""
        conditional, unconditional = answers[CONDITIONAL.name], answers[UNCONDITIONAL.name]
        guided = unconditional + rowwise(call.guidance_scale, conditional) * (conditional - unconditional)
        if self.rescale:
            guided = self._rescaled(guided, conditional, call.guidance_scale)
        if self.guided_channels is not None:
            guided[:, self.guided_channels :] = conditional[:, self.guided_channels :]
        return guided

    def _rescaled(self, guided: Latents, conditional: Latents, guidance_scale: PerRow) -> Latents:
        """Equations 15 and 16 of the paper, each row by itself; where the scale is 1 there is nothing to mend."""
        axes = tuple(range(1, guided.ndim))
        deviations = [each[:, : self.guided_channels].std(axes, keepdim=True) for each in (conditional, guided)]
        rescaled = guided * (deviations[0] / deviations[1])
        mixed = self.rescale * rescaled + (1 - self.rescale) * guided
        return torch.where(rowwise(guidance_scale == 1, guided), conditional, mixed)

    def check(self, model: BaseModel) -> None:
        """No more channels are guided than there are."""
        channels, guided = model.latent_shape[0], self.guided_channels
        if guided is not None and guided > channels:
            raise InputError(f"guidance.guided_channels {guided} exceeds the {channels} channels of this base model")
