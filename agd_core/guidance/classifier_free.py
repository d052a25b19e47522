"""Classifier-free guidance (https://arxiv.org/abs/2207.12598), in the convention where 1.0 means off."""

from typing import Literal

from pydantic import Field

from agd_core.config import Config
from agd_core.denoiser import Latents, PerRow, rowwise
from agd_core.guidance.base import Guidance


class ClassifierFreeGuidanceConfig(Config):
    """`guided = uncond + guidance_scale * (cond - uncond)`."""

    kind: Literal["cfg"] = "cfg"
    guided_channels: int | None = Field(None, ge=1)
    """Guide only the first channels, the rest stays conditional. None guides all, as diffusers does; the
    original DiT code guides 3 of 4 (https://github.com/facebookresearch/DiT, models.py)."""

    def build(self) -> "ClassifierFreeGuidance":
        """The rule itself."""
        return ClassifierFreeGuidance(self.guided_channels)


class ClassifierFreeGuidance(Guidance):
    """The one formula."""

    def __init__(self, guided_channels: int | None = None) -> None:
        self.guided_channels = guided_channels

    def combine(self, conditional: Latents, unconditional: Latents, guidance_scale: PerRow) -> Latents:
        """`uncond + guidance_scale * (cond - uncond)` on the guided channels."""
        guided = unconditional + rowwise(guidance_scale, conditional) * (conditional - unconditional)
        if self.guided_channels is not None:
            guided[:, self.guided_channels :] = conditional[:, self.guided_channels :]
        return guided
