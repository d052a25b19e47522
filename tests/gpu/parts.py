"""What these tests share."""

from functools import cache

import torch

from agd_core.models.ask import Ask
from agd_core.models.config import BaseModelConfig
from tests.agd_core.methods.examples import FIRST, MODELS

DIT, UNET, SD3 = "DiTTransformer2DModel", "UNet2DConditionModel", "SD3Transformer2DModel"
CASES = [*FIRST.items(), ("agd-cross-attention", UNET), ("agd-cross-attention", SD3)]
"""Every kind of method, and every family of networks."""


@cache
def model_on(device, network, dtype="float32"):
    """The miniature with this class of networks."""
    return BaseModelConfig(source=f"builtin:{MODELS[network]}", dtype=dtype).build(device)


def moved(call, device):
    """A call, `tests.agd_core.methods.examples.call_of`, on a device."""
    latents, timestep, ask = call
    there = Ask(ask.condition.to(device), ask.null.to(device), ask.guidance_scale.to(device))
    return latents.to(device), timestep.to(device), there


def predicted(model, trained, call):
    """What the student predicts."""
    with trained.installed(model) as student, torch.no_grad():
        return student.predict(*call)
