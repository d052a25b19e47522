"""A small example of every kind of method, and a small model of every class of networks."""

from functools import cache
from typing import get_args

import torch

from agd_core.basics.errors import InputError
from agd_core.basics.seeding import generator
from agd_core.builtin.miniatures import MINIATURES, miniature_folder
from agd_core.data.subjects import Subjects
from agd_core.methods import (
    AnyMethodConfig,
    CrossAttentionConfig,
    DiceConfig,
    FinetuneConfig,
    FullGuideConfig,
    GatedLoraConfig,
    LoraConfig,
    ModulatedMlpConfig,
    OffsetConfig,
    TinyGuideConfig,
)
from agd_core.models.backbones import BACKBONES
from agd_core.models.config import BaseModelConfig
from agd_core.models.denoiser import Denoiser
from agd_core.models.reading import network_class

CPU = torch.device("cpu")
KINDS = {config.model_fields["kind"].default: config for config in get_args(get_args(AnyMethodConfig)[0])}
EXAMPLES = {
    example.kind: example
    for example in (
        CrossAttentionConfig(hidden_width=16),
        OffsetConfig(hidden_width=16),
        ModulatedMlpConfig(hidden_width=16, bottleneck_width=8),
        LoraConfig(rank=4),
        GatedLoraConfig(rank=4, hidden_width=16),
        FinetuneConfig(base_at_one=False),
        DiceConfig(hidden_width=16, heads=2),
        FullGuideConfig(),
        TinyGuideConfig(width_fraction=0.5, depth=2, code_width=16),
    )
}
NOTHING_RANDOM = ("finetune",)
"""Kinds that begin alike whatever the seed: as the base, and with zeros."""
MODELS = {network_class(miniature_folder(name), name).class_name: name for name in reversed(MINIATURES)}
"""A miniature of every class of networks, by the class."""
assert MODELS.keys() == BACKBONES.keys(), "every class of networks has a miniature"


def takes(kind, network):
    """Whether a kind of method says that it can work with this class of networks."""
    try:
        EXAMPLES[kind].check_class(BACKBONES[network])
    except InputError:
        return False
    return True


CASES = [(kind, network) for kind in EXAMPLES for network in MODELS if takes(kind, network)]
"""Every kind of method on every class of networks that it can work with."""
_QUICKEST = ("DiTTransformer2DModel", *MODELS)
FIRST = {kind: next(network for network in _QUICKEST if takes(kind, network)) for kind in EXAMPLES}
"""One class of networks for every kind of method."""
PROMPTS = ("a red bus", "two dogs asleep", "snow")
SCALES = (1.0, 2.0, 7.5)


@cache
def model_of(network):
    """The small model with this class of networks."""
    return BaseModelConfig(source=f"builtin:{MODELS[network]}").build(CPU)


def call_of(model):
    """A call of three rows."""
    subjects = Subjects(model, () if model.class_names else PROMPTS)
    latents = torch.randn(3, *model.latent_shape, generator=generator("contract", "latents"))
    ask = subjects.ask(range(3), 1.0)
    return latents, torch.tensor([900.0, 500.0, 20.0]), type(ask)(ask.condition, ask.null, torch.tensor(SCALES))


class Alone(Denoiser):
    """A denoiser that is one function."""

    network_evaluations = 0

    def __init__(self, predict):
        self.predict = predict


def randomised(trained, draw="contract"):
    """Weights as if it were trained; another draw, another training."""
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator(draw, name)))
    return trained
