"""The dial LoRA's file in other people's hands: loaded and merged it costs nothing and makes our student's pictures."""

import copy

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

import agd_core
from agd_core.methods import LoraConfig
from agd_core.models.ask import Ask
from agd_core.models.config import BaseModelConfig
from tests.agd_core.methods.examples import CPU, MODELS, call_of, randomised
from tests.agd_core.pipelines.stock import images, network_of, open_miniature, write_adapter

OWN, RANK = 4.0, 3
ATTENTION = LoraConfig(rank=RANK, guidance_scale=OWN)
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv")
FILE = "adapter.safetensors"


def everywhere(convolutions):
    """A LoRA of all that docs/methods.md names for such a network."""
    targets = (*ATTENTION.targets, *FEED_FORWARD, *(CONVOLUTIONS if convolutions else ()))
    return ATTENTION.model_copy(update={"targets": targets})


def counted(work):
    """(FLOPs of it, what it returns)."""
    with FlopCounterMode(display=False) as counter:
        found = work()
    return counter.get_total_flops(), found


def close(one, other):
    """Whether pictures are the same up to float32's rounding."""
    return torch.allclose(torch.as_tensor(one), torch.as_tensor(other), atol=1e-4)


@pytest.mark.parametrize("weight", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("name", ["tiny-sd", "tiny-sdxl", "tiny-sd3"])
def test_a_pipeline_loads_it_and_merges_it_at_any_weight(name, weight, tmp_path):
    pipe, config = open_miniature(name), everywhere(name != "tiny-sd3")
    folder = write_adapter(tmp_path / "lora", name, config=config)
    agd_core.load_adapter(pipe, folder)
    ours = images(pipe, 1 + weight * (OWN - 1))
    agd_core.unload(pipe)
    bare, plain = counted(lambda: images(pipe, 1.0))
    pipe.load_lora_weights(folder, weight_name=FILE)
    assert counted(lambda: images(pipe, 1.0))[0] > bare, "beside the network it costs something"
    pipe.fuse_lora(lora_scale=weight)
    merged, theirs = counted(lambda: images(pipe, 1.0))
    assert merged == bare
    assert close(theirs, ours)
    assert not torch.allclose(torch.as_tensor(theirs), torch.as_tensor(plain), atol=1e-2)
    pipe.unload_lora_weights()
    assert not any(isinstance(module, peft.tuners.lora.LoraLayer) for module in network_of(pipe).modules())
    merged, theirs = counted(lambda: images(pipe, 1.0))
    assert merged == bare
    assert close(theirs, ours)


def test_a_pipelines_adapter_weight_is_the_dial(tmp_path):
    pipe, folder = open_miniature("tiny-sd"), write_adapter(tmp_path / "lora", "tiny-sd", config=everywhere(True))
    agd_core.load_adapter(pipe, folder)
    ours = images(pipe, 1 + 1.5 * (OWN - 1))
    agd_core.unload(pipe)
    pipe.load_lora_weights(folder, weight_name=FILE, adapter_name="guidance")
    pipe.set_adapters("guidance", 1.5)
    assert close(images(pipe, 1.0), ours)


@pytest.mark.parametrize("network", MODELS)
@torch.no_grad()
def test_peft_merges_it_into_every_class_of_networks(network, tmp_path):
    """PixArt's and DiT's pipelines load no LoRAs; peft itself does."""
    model = BaseModelConfig(source=f"builtin:{MODELS[network]}").build(CPU)
    latents, timestep, ask = call_of(model)
    config = everywhere("UNet" in network)
    lora, at_own = randomised(config.build(model.backbone)), Ask(ask.condition, ask.null, torch.full((3,), OWN))
    with lora.installed(model) as student:
        ours = student.predict(latents, timestep, at_own)
    save_file(lora.state_dict(), tmp_path / FILE)
    bare, plain = counted(lambda: model.predict(latents, timestep, ask))
    inject(model.network, model.backbone.component, config.targets, tmp_path / FILE)
    assert counted(lambda: model.predict(latents, timestep, ask))[0] > bare
    for module in model.network.modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            module.merge()
    merged, theirs = counted(lambda: model.predict(latents, timestep, ask))
    assert merged == bare
    assert torch.allclose(theirs, ours, atol=1e-4)
    assert not torch.allclose(theirs, plain, atol=1e-2)


def inject(network, component, targets, path):
    """What peft's users write for a network without a loader."""
    weights = {name.removeprefix(f"{component}."): tensor for name, tensor in load_file(path).items()}
    config = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(targets))
    peft.inject_adapter_in_model(config, network)
    report = peft.set_peft_model_state_dict(network, weights)
    assert not report.unexpected_keys
    assert not [name for name in report.missing_keys if "lora_" in name]


@pytest.mark.parametrize("name", ["tiny-sd", "tiny-sd3"])
def test_merged_at_weight_zero_it_is_the_network_as_it_was(name, tmp_path):
    pipe, folder = open_miniature(name), write_adapter(tmp_path / "lora", name, config=ATTENTION)
    before = copy.deepcopy(network_of(pipe).state_dict())
    pipe.load_lora_weights(folder, weight_name=FILE)
    pipe.fuse_lora(lora_scale=0.0)
    pipe.unload_lora_weights()
    after = network_of(pipe).state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
