"""Recomputing activations in the backward pass changes no gradient: the adapter acts there as it did in the call."""

import pytest
import torch

from agd_core.basics.seeding import generator
from agd_core.builtin.miniatures import miniature_folder
from agd_core.methods import CrossAttentionConfig, ModulatedMlpConfig, OffsetConfig
from agd_core.methods.attached import GuidedCall
from agd_core.models.ask import Ask
from agd_core.models.backbones import backbone_of
from agd_core.models.condition import Condition

KINDS = [
    CrossAttentionConfig(hidden_width=8),
    OffsetConfig(hidden_width=8),
    ModulatedMlpConfig(hidden_width=8, bottleneck_width=4),
]


def network_of(name):
    import diffusers

    kind, part = {
        "tiny-sd": (diffusers.UNet2DConditionModel, "unet"),
        "tiny-dit": (diffusers.DiTTransformer2DModel, "transformer"),
        "tiny-sd3": (diffusers.SD3Transformer2DModel, "transformer"),
    }[name]
    return kind.from_pretrained(miniature_folder(name) / part).requires_grad_(False)


CONDITIONS = {
    "tiny-sd": lambda: Condition(encoder_hidden_states=torch.randn(2, 7, 32, generator=generator("ckpt"))),
    "tiny-dit": lambda: Condition(class_labels=torch.tensor([3, 5])),
    "tiny-sd3": lambda: Condition(
        encoder_hidden_states=torch.randn(2, 7, 64, generator=generator("ckpt")), pooled=torch.ones(2, 48)
    ),
}


def gradients(name, config, checkpointing):
    """Gradients of an adapter after two calls whose backward passes come when both are over, and the module calls."""
    network, condition = network_of(name), CONDITIONS[name]()
    backbone = backbone_of(network)
    adapter = config.build(backbone)
    with torch.no_grad():
        for path, parameter in adapter.named_parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator("ckpt", path)))
    attached = adapter.attach(network)
    if checkpointing:
        network.enable_gradient_checkpointing(attached.checkpointed)
    calls = []
    network.get_submodule(backbone.sites[-1].path).register_forward_hook(lambda *_: calls.append(1))
    latents = torch.randn(2, network.config.in_channels, 8, 8, generator=generator("ckpt", "latents"))
    losses = []
    for scale in (3.0, 5.0):
        scales, timestep = torch.tensor([scale, 2.0]), torch.tensor([700.0, 20.0])
        with attached.during(GuidedCall(backbone, timestep, Ask(condition, condition, scales))):
            losses.append(backbone.call(latents, timestep, condition).square().mean())
    sum(losses).backward()
    assert attached.call is None
    return {path: parameter.grad for path, parameter in adapter.named_parameters()}, len(calls)


@pytest.mark.parametrize("config", KINDS, ids=lambda config: config.kind)
@pytest.mark.parametrize("name", CONDITIONS)
def test_gradients_are_those_without_checkpointing(name, config):
    kept, calls = gradients(name, config, checkpointing=False)
    recomputed, more_calls = gradients(name, config, checkpointing=True)
    assert (calls, more_calls) == (2, 4), "every block runs once more in the backward pass"
    for path, gradient in kept.items():
        assert gradient.abs().sum() > 0, path
        assert torch.allclose(recomputed[path], gradient, rtol=1e-4, atol=1e-7), path
