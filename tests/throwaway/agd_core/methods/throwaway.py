"""One learned factor for every channel of the prediction."""

from contextlib import contextmanager
from typing import Literal

import torch

from agd_core.methods.base import MethodConfig, Trained
from agd_core.models.denoiser import Denoiser, rowwise


class ThrowawayConfig(MethodConfig):
    about = "Every channel has a factor."
    kind: Literal["gain"] = "gain"

    def build(self, backbone, seed=0):
        return Gain(self, backbone.network.config.in_channels)


class Gain(Trained):
    def __init__(self, config, channels):
        super().__init__(config)
        self.gain = torch.nn.Parameter(torch.ones(channels))

    @contextmanager
    def installed(self, model, checkpointing=False):
        yield Amplified(model, self.to(model.device).gain)


class Amplified(Denoiser):
    def __init__(self, base_model, gain):
        self.base_model, self.gain = base_model, gain

    @property
    def network_evaluations(self):
        return self.base_model.network_evaluations

    def predict(self, latents, timestep, ask):
        prediction = self.base_model.predict(latents, timestep, ask)
        return prediction * rowwise(self.gain, prediction[0])
