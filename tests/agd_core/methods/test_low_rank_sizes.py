"""How many parameters the LoRAs have on full-size networks, beside peft's own count; on the meta device."""

import peft
import pytest
import torch

from agd_core.memory.full_size import full_size_model
from agd_core.methods import GatedLoraConfig, LoraConfig
from agd_core.models.backbones import backbone_of

ATTENTION = LoraConfig.model_fields["targets"].default
BLOCKS = (*ATTENTION, "ff.net.0.proj", "ff.net.2")
UNET = (*BLOCKS, "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv")
SD3_TEXT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
SD3 = (*BLOCKS, *SD3_TEXT, "ff_context.net.0.proj", "ff_context.net.2")
SIZES = [
    ("sd15", 4, ATTENTION, 797_184),
    ("sd15", 16, ATTENTION, 3_188_736),
    ("sd15", 16, BLOCKS, 5_984_256),
    ("sd15", 16, UNET, 15_241_216),
    ("sdxl", 16, UNET, 47_923_200),
    ("dit-xl-2-256", 16, ATTENTION, 4_128_768),
    ("dit-xl-2-256", 16, BLOCKS, 9_289_728),
    ("sdxl", 16, ATTENTION, 23_224_320),
    ("sdxl", 16, BLOCKS, 41_861_120),
    ("sd3-medium", 16, ATTENTION, 4_718_592),
    ("sd3-medium", 16, SD3, 20_938_752),
    ("pixart-sigma", 16, ATTENTION, 8_257_536),
    ("pixart-sigma", 16, BLOCKS, 13_418_496),
]
"""Model, rank, targets, parameters: those of docs/methods.md."""


@pytest.mark.parametrize(("name", "rank", "targets", "parameters"), SIZES)
def test_they_are_those_of_peft(name, rank, targets, parameters):
    network = full_size_model(name).network()
    with torch.device("meta"):
        plain = LoraConfig(rank=rank, targets=targets).build(backbone_of(network)).parameter_count()
        gated = GatedLoraConfig(rank=rank, targets=targets, hidden_width=24)
        found = gated.build(backbone_of(network)).parameter_count()
        layers = peft_layers(network, rank, targets)
    assert plain == sum(map(numbers, layers)) * rank
    assert found - plain == len(layers) * rank * (24 + 1) + encoder(24, backbone_of(network).embedding_widths[0])
    assert plain == parameters


def peft_layers(network, rank, targets):
    """The layers that peft would give a LoRA, after checking its number of parameters."""
    peft.inject_adapter_in_model(peft.LoraConfig(r=rank, target_modules=list(targets)), network)
    layers = [module for module in network.modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
    count = sum(each.numel() for name, each in network.named_parameters() if "lora_" in name)
    assert count == sum(map(numbers, layers)) * rank
    return layers


def numbers(layer):
    """Inputs and outputs together; a convolution's inputs are those of its whole kernel."""
    weight = layer.base_layer.weight
    return len(weight) + weight[0].numel()


def encoder(width, time_width):
    """Scale: W -> 4W -> W and a LayerNorm; the timestep's projection."""
    scale = 4 * width * (width + 1) + width * (4 * width + 1) + 2 * width
    return scale + width * (time_width + 1)


def test_gates_without_the_timestep_are_smaller():
    network = full_size_model("sd15").network()
    with torch.device("meta"):
        with_time, without = (
            GatedLoraConfig(use_timestep=each).build(backbone_of(network)).parameter_count() for each in (True, False)
        )
    assert with_time - without == 24 * (backbone_of(network).embedding_widths[0] + 1)
