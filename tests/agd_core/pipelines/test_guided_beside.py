"""Guides, which are networks of their own, in stock pipelines."""

import copy
from itertools import permutations

import accelerate
import diffusers
import pytest
import torch

import agd_core
from agd_core.methods.adapter_files import read_adapter, read_card
from agd_core.methods.attached import GuidedCall
from agd_core.models.ask import Ask
from agd_core.models.backbones import backbone_of
from tests.agd_core.methods.examples import EXAMPLES
from tests.agd_core.pipelines.stock import (
    PIPELINES,
    images,
    network_of,
    open_miniature,
    open_pipeline,
    quiet,
    write_adapter,
)
from tests.composition_parts import IP_SUBFOLDER, IP_WEIGHTS, ip_image_embeds, write_ip_adapter, write_lora
from tests.soak import short

KINDS = ("guide-full", "guide-tiny")
CASES = [(case, kind) for case in PIPELINES for kind in KINDS]
KEPT = [CASES.index(each) for each in (("sd-controlnet", "guide-full"), ("sdxl", "guide-tiny"), ("sd3", "guide-full"))]
in_every_pipeline = pytest.mark.parametrize(("case", "kind"), short(CASES, keep=KEPT, several=True))


@pytest.fixture(scope="module")
def guides(tmp_path_factory):
    """Folders of guides by (miniature, kind), written once."""
    root, written = tmp_path_factory.mktemp("guides"), {}

    def folder(miniature, kind):
        if (miniature, kind) not in written:
            written[miniature, kind] = write_adapter(root / f"{miniature}-{kind}", miniature, config=EXAMPLES[kind])
        return written[miniature, kind]

    return folder


@pytest.fixture
def folder(case, kind, guides):
    return guides(PIPELINES[case][0], kind)


def close(one, other):
    return torch.allclose(torch.as_tensor(one), torch.as_tensor(other), atol=1e-5)


def rows_of(output):
    return len(output[-1] if isinstance(output, tuple) else output)


@in_every_pipeline
def test_one_pass_per_step_and_without_it_the_stock_pipeline_bit_for_bit(case, kind, folder):
    pipe = open_pipeline(case)
    stock, unguided = images(pipe), images(pipe, 1.0)
    rows, last = [], backbone_of(network_of(pipe)).inlets[-1].path
    handle = network_of(pipe).get_submodule(last).register_forward_hook(lambda *call: rows.append(rows_of(call[-1])))
    agd_core.load_adapter(pipe, folder)
    acting = images(pipe)
    handle.remove()
    assert rows == [1] * len(pipe.scheduler.timesteps)
    assert min((acting - stock).abs().max(), (acting - unguided).abs().max()) > 1e-2
    assert torch.equal(images(pipe, 1.0), unguided)
    agd_core.unload(pipe)
    assert torch.equal(images(pipe), stock)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network_of(pipe).modules())


@pytest.mark.parametrize(("case", "kind"), [("sd", "guide-tiny"), ("dit", "guide-full"), ("pixart", "guide-full")])
def test_a_pipeline_and_a_student_agree(case, kind, folder):
    pipe = open_pipeline(case)
    network, seen, answers = network_of(pipe), [], []
    agd_core.load_adapter(pipe, folder)
    network.register_forward_pre_hook(lambda module, *call: seen.append(call), with_kwargs=True)
    network.register_forward_hook(lambda module, args, output: answers.append(output[0].clone()))
    images(pipe, 5.0)
    agd_core.unload(pipe)
    backbone = backbone_of(network)
    trained = read_adapter(folder, read_card(folder)[0], backbone)
    for (args, kwargs), answer in zip(list(seen), list(answers), strict=True):
        call = backbone.read_call(args, kwargs)
        ask = Ask(call.condition, call.condition, torch.tensor([5.0]))
        attached = trained.attach(network)
        with torch.no_grad(), attached.during(GuidedCall(backbone, call.timestep, ask, latents=call.latents)):
            assert close(network(*args, **kwargs)[0], answer[-1:])
        attached.detach()


@pytest.mark.parametrize(("case", "kind"), [("sd", "guide-full"), ("sdxl", "guide-tiny"), ("sd3", "guide-full")])
def test_weights_that_are_away_between_calls_and_a_copy_of_the_pipeline(case, kind, folder):
    pipe = open_pipeline(case)
    agd_core.load_adapter(pipe, folder)
    expected, copied = images(pipe), copy.deepcopy(pipe)
    accelerate.cpu_offload(network_of(pipe), execution_device=torch.device("cpu"))
    assert all(parameter.is_meta for parameter in network_of(pipe).parameters())
    assert close(images(pipe), expected)
    agd_core.unload(pipe)
    agd_core.load_adapter(pipe, folder)
    assert close(images(pipe), expected)
    agd_core.unload(pipe)
    assert torch.equal(images(copied), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_it_loads_before_and_after_a_lora_and_an_ip_adapter(kind, guides, tmp_path):
    stock = open_miniature("tiny-sd")
    write_lora(tmp_path / "lora", stock.unet)
    write_ip_adapter(tmp_path / "ip", stock.unet)
    loads = {
        "guide": lambda pipe: agd_core.load_adapter(pipe, guides("tiny-sd", kind)),
        "lora": lambda pipe: pipe.load_lora_weights(tmp_path / "lora"),
        "ip": lambda pipe: pipe.load_ip_adapter(tmp_path / "ip", IP_SUBFOLDER, IP_WEIGHTS, image_encoder_folder=None),
    }
    made = []
    for order in (*permutations(loads), ("lora", "ip")):
        pipe = copy.deepcopy(stock)
        for part in order:
            loads[part](pipe)
        made.append(images(pipe, ip_adapter_image_embeds=ip_image_embeds("guide" not in order)))
    *guided, cfg = made
    assert all(torch.equal(each, guided[0]) for each in guided)
    assert not torch.allclose(guided[0], cfg, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_it_sees_the_latents_alone_of_what_an_inpainting_sibling_is_given(kind, guides):
    pipe = open_pipeline("sd-inpaint")
    unet = diffusers.UNet2DConditionModel.from_config(dict(pipe.unet.config) | {"in_channels": 9})
    state = {name: value for name, value in pipe.unet.state_dict().items() if name != "conv_in.weight"}
    unet.load_state_dict(state, strict=False)
    pipe = diffusers.StableDiffusionInpaintPipeline(**pipe.components | {"unet": unet}, requires_safety_checker=False)
    unguided = images(quiet(pipe), 1.0)
    agd_core.load_adapter(pipe, guides("tiny-sd", kind), allow_sibling=True)
    guided = images(pipe)
    assert torch.isfinite(guided).all()
    assert not torch.allclose(guided, unguided, atol=1e-2)
