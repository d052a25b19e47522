"""Guidance: turns a bare model into a teacher that is itself a `Denoiser`."""

from abc import ABC, abstractmethod

import torch

from agd_core.ask import Ask
from agd_core.base_models.base import BaseModel
from agd_core.condition import Condition
from agd_core.denoiser import Latents, PerRow, Prediction


class Guidance(ABC):
    """A rule that combines a conditional and an unconditional prediction."""

    @abstractmethod
    def combine(self, conditional: Latents, unconditional: Latents, guidance_scale: PerRow) -> Latents:
        """The guided prediction; at `guidance_scale == 1` it must equal `conditional`; the arguments are left alone."""


class GuidedDenoiser:
    """A base model under guidance: both predictions in one batch of twice the rows, two NFE per image."""

    def __init__(self, base_model: BaseModel, guidance: Guidance) -> None:
        self.base_model = base_model
        self.guidance = guidance

    @property
    def network_evaluations(self) -> int:
        """Rows that went through the base network so far."""
        return self.base_model.network_evaluations

    @torch.no_grad()
    def predict(self, latents: Latents, timestep: PerRow, ask: Ask) -> Prediction:
        """The guided prediction, one guidance scale per row.

        The rule guides as many channels as a latent has; a learned variance behind them is the conditional one, as in
        DiT's `forward_with_cfg` (https://github.com/facebookresearch/DiT, models.py).
        """
        both = Ask.unguided(Condition.cat([ask.condition, ask.null]))
        doubled = self.base_model.predict(torch.cat([latents, latents]), timestep.repeat(2), both)
        conditional, unconditional = doubled.chunk(2)
        channels = latents.shape[1]
        guided = self.guidance.combine(conditional[:, :channels], unconditional[:, :channels], ask.guidance_scale)
        return torch.cat([guided, conditional[:, channels:]], dim=1)
