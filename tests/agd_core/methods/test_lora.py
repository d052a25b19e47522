"""What is special about LoRAs: the dial, and the file that others load."""

import pytest
import torch

import agd_core
from agd_core.basics.errors import InputError
from agd_core.methods import GatedLoraConfig, LoraConfig
from agd_core.models.ask import Ask
from agd_core.models.config import BaseModelConfig
from tests.agd_core.methods.examples import MODELS, call_of, model_of, randomised
from tests.agd_core.pipelines.stock import counted_rows, images, open_miniature, write_adapter

OWN = 4.0
CONFIG = LoraConfig(rank=3, guidance_scale=OWN)


def at(ask, scale):
    return Ask(ask.condition, ask.null, torch.full((len(ask),), scale))


@pytest.mark.parametrize("network", MODELS)
@torch.no_grad()
def test_the_weight_is_the_dial(network):
    model = model_of(network)
    latents, timestep, ask = call_of(model)
    lora, half = randomised(CONFIG.build(model.backbone)), randomised(CONFIG.build(model.backbone))
    for name, weight in half.named_parameters():
        weight.mul_(0.5 if "lora_B" in name else 1.0)
    with lora.installed(model) as student, half.installed(model) as halved:
        assert torch.equal(student.predict(latents, timestep, at(ask, 1.0)), model.predict(latents, timestep, ask))
        dialled = student.predict(latents, timestep, at(ask, 1 + (OWN - 1) / 2))
        assert torch.allclose(dialled, halved.predict(latents, timestep, at(ask, OWN)), atol=1e-5)
        assert not torch.allclose(dialled, student.predict(latents, timestep, at(ask, OWN)), atol=1e-3)


@pytest.mark.parametrize(("source", "target"), [("tiny-sd", "time_emb_proj"), ("tiny-dit", "linear_1")])
@torch.no_grad()
def test_a_layer_of_one_vector_per_image_may_have_one_too(source, target):
    model = BaseModelConfig(source=f"builtin:{source}").build(torch.device("cpu"))
    latents, timestep, ask = call_of(model)
    lora = randomised(LoraConfig(rank=2, guidance_scale=OWN, targets=(target,)).build(model.backbone))
    with lora.installed(model) as student:
        found = student.predict(latents, timestep, ask)
        each = [slice(row, row + 1) for row in range(len(latents))]
        rows = [student.predict(latents[row], timestep[row], ask[row]) for row in each]
    assert torch.allclose(found, torch.cat(rows), atol=1e-5)
    assert not torch.allclose(found[1:], model.predict(latents, timestep, ask)[1:], atol=1e-3)


CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "conv_in", "conv_out")
"""Of a UNet: kernels of 3 and of 1, one with a stride of 2, the first and the last."""


@pytest.mark.parametrize("config", [CONFIG, GatedLoraConfig(rank=3)], ids=["lora", "gated-lora"])
@torch.no_grad()
def test_a_convolution_may_have_one_too(config):
    model = BaseModelConfig(source="builtin:tiny-sd").build(torch.device("cpu"))
    latents, timestep, ask = call_of(model)
    lora = randomised(config.model_copy(update={"targets": CONVOLUTIONS}).build(model.backbone))
    with lora.installed(model) as student:
        found = student.predict(latents, timestep, ask)
        each = [slice(row, row + 1) for row in range(len(latents))]
        rows = [student.predict(latents[row], timestep[row], ask[row]) for row in each]
    assert torch.allclose(found, torch.cat(rows), atol=1e-5)
    bare = model.predict(latents, timestep, ask)
    assert torch.equal(found[:1], bare[:1]), "guidance scale 1"
    assert not torch.allclose(found[1:], bare[1:], atol=1e-3)


def test_a_layer_with_another_kernel_is_no_target():
    with pytest.raises(InputError, match=r"no linear layer or convolution of .* ends in the target 'pos_embed.proj'"):
        LoraConfig(targets=("to_q", "pos_embed.proj")).build(model_of("SD3Transformer2DModel").backbone)


@pytest.mark.parametrize(
    ("name", "targets"), [("tiny-sd", ("to_q", "to_v")), ("tiny-sd3", ("to_q", "to_v")), ("tiny-sd", CONVOLUTIONS)]
)
def test_diffusers_loads_the_file_as_a_lora_and_needs_no_guidance_then(name, targets, tmp_path):
    config = CONFIG.model_copy(update={"targets": targets})
    pipe, folder = open_miniature(name), write_adapter(tmp_path / "lora", name, config=config)
    with counted_rows(pipe) as unguided:
        plain = images(pipe, 1.0)
    agd_core.load_adapter(pipe, folder)
    with counted_rows(pipe) as rows:
        ours = images(pipe, OWN)
    assert rows == unguided, "no more than without guidance"
    agd_core.unload(pipe)
    pipe.load_lora_weights(folder, weight_name="adapter.safetensors")
    assert torch.allclose(torch.as_tensor(images(pipe, 1.0)), torch.as_tensor(ours), atol=1e-4)
    assert not torch.allclose(torch.as_tensor(ours), torch.as_tensor(plain), atol=1e-2)
    pipe.unload_lora_weights()
    assert torch.equal(torch.as_tensor(images(pipe, 1.0)), torch.as_tensor(plain))
