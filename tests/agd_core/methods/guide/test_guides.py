"""What is special about guides: their sizes, where their features come in, whose weights they begin with."""

from contextlib import nullcontext
from dataclasses import replace
from functools import cache

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from agd_core.basics.errors import InputError
from agd_core.data.subjects import Subjects
from agd_core.evaluation.bench import Bench
from agd_core.memory import Sized, training_memory
from agd_core.memory.estimates import _fakes
from agd_core.memory.fake_model import FakeModel
from agd_core.memory.full_size import full_size_model
from agd_core.methods import FullGuideConfig, Pairs, TinyGuideConfig
from agd_core.methods.attached import GuidedCall
from agd_core.models.ask import Ask
from agd_core.models.backbones import NetworkCall, backbone_of
from agd_core.models.config import BaseModelConfig
from tests.agd_core.methods.examples import EXAMPLES, MODELS, call_of, model_of, randomised

CPU = torch.device("cpu")
UNET = "UNet2DConditionModel"
TRANSFORMERS = [name for name in MODELS if name != UNET]
GUIDES = {kind: EXAMPLES[kind] for kind in ("guide-full", "guide-tiny")}
CONTROLNETS = {"sd15": 361_279_120, "sd21": 364_228_240, "sdxl": 1_251_014_160}
"""Of `ControlNetModel.from_unet`, as in the re-implementation of DICE's authors."""
each_guide = pytest.mark.parametrize("kind", GUIDES)


def full_size(config, name):
    with torch.device("meta"):
        return config.build(backbone_of(full_size_model(name).network()))


@pytest.mark.parametrize("name", CONTROLNETS)
def test_guide_full_has_a_controlnets_parameters(name):
    assert full_size(FullGuideConfig(), name).parameter_count() == CONTROLNETS[name]


def test_guide_tiny_has_about_a_hundredth_of_the_bases_parameters():
    network = full_size_model("sd15").network()
    assert 0.005 < full_size(TinyGuideConfig(), "sd15").parameter_count() / backbone_of(network).parameters <= 0.012


@cache
def full_size_flops(name, config=None):
    """Floating-point operations of one pass for one image, at the size of the model; a guide's are among them."""
    model = full_size_model(name)
    sized = Sized(model, model.network_config["sample_size"])
    network = sized.network()
    with _fakes(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        network.to_empty(device="cpu")
        denoiser, condition = FakeModel(sized, network), sized.conditions(1)
        call = sized.latents(1), torch.ones(1), Ask(condition, condition, torch.ones(1))
        with FlopCounterMode(display=False) as counter:
            if config is None:
                denoiser.predict(*call)
            else:
                with config.build(denoiser.backbone).installed(denoiser) as student:
                    student.predict(*call)
    return counter.get_total_flops()


def test_guide_tiny_costs_near_one_pass_and_guide_full_a_third_of_one_more():
    base = full_size_flops("sd15")
    assert 1 < full_size_flops("sd15", TinyGuideConfig()) / base <= 1.05
    assert full_size_flops("sd15", FullGuideConfig()) / base == pytest.approx(1.35, abs=0.02)


@each_guide
def test_what_a_step_costs_has_the_guides_operations_in_it(kind):
    model = model_of(UNET)
    trained = GUIDES[kind].build(model.backbone)
    methods = {"base": lambda: nullcontext(model), "guide": lambda: trained.installed(model)}
    bench = Bench(methods, Subjects(model, ("a red bus",)), 3.0, (900.0, 500.0, 100.0))
    base, guided = bench.count("base"), bench.count("guide")
    assert base.evaluations == guided.evaluations == 1
    latents, ask = bench.inputs(1)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        trained.features(GuidedCall(model.backbone, torch.tensor([500.0]), ask, latents=latents))
    assert guided.flops - base.flops == counter.get_total_flops() > 0


@each_guide
@pytest.mark.parametrize("network", MODELS)
@torch.no_grad()
def test_at_scale_one_the_student_is_the_conditional_model_bit_for_bit(kind, network):
    model = model_of(network)
    latents, timestep, ask = call_of(model)
    ones = replace(ask, guidance_scale=torch.ones(3))
    with randomised(GUIDES[kind].build(model.backbone)).installed(model) as student:
        assert torch.equal(student.predict(latents, timestep, ones), model.predict(latents, timestep, ask))
        assert not torch.allclose(student.predict(latents, timestep, ask), model.predict(latents, timestep, ask))


@each_guide
@torch.no_grad()
def test_rows_that_a_pipeline_calls_unguided_get_nothing(kind):
    model = model_of(UNET)
    latents, timestep, ask = call_of(model)
    half = replace(ask, guidance_scale=torch.tensor([0.0, 0.5, 3.0]))
    trained = randomised(GUIDES[kind].build(model.backbone))
    features = trained.features(GuidedCall(model.backbone, timestep, half, off_at_one=True, latents=latents))
    assert all(not each[:2].any() and each[2].any() for each in features)


@each_guide
@pytest.mark.parametrize("theirs", [False, True], ids=["alone", "beside a ControlNet of the user's own"])
@torch.no_grad()
def test_features_come_in_where_diffusers_adds_a_controlnets_residuals(kind, theirs):
    model = model_of(UNET)
    latents, timestep, ask = call_of(model)
    trained, unet = randomised(GUIDES[kind].build(model.backbone)), model.network
    call = GuidedCall(model.backbone, timestep, ask, latents=latents)
    features = trained.features(call)
    own = [torch.randn_like(each) if theirs else torch.zeros_like(each) for each in features]
    told = {**model.backbone.prompt_arguments(ask.condition), "return_dict": False}
    attached = trained.attach(unet)
    with attached.during(replace(call)):
        found = unet(latents, timestep, **residuals(own), **told)[0]
    attached.detach()
    both = [one + other for one, other in zip(features, own, strict=True)]
    assert torch.allclose(found, unet(latents, timestep, **residuals(both), **told)[0], atol=1e-4)


def residuals(features):
    return {"down_block_additional_residuals": features[:-1], "mid_block_additional_residual": features[-1]}


@torch.no_grad()
def test_guide_full_of_a_unet_is_a_controlnet_for_everybody():
    """Its file holds diffusers' ControlNet; the control image is the scale, and the conditioning scale is scale - 1."""
    model, scale = model_of(UNET), 3.5
    latents, timestep, ask = call_of(model)
    trained = randomised(FullGuideConfig().build(model.backbone))
    weights = {name.removeprefix("guide.controlnet."): value for name, value in trained.state_dict().items()}
    controlnet = ControlNetModel.from_unet(model.network, load_weights_from_unet=False).eval()
    controlnet.load_state_dict(weights)
    told = {**model.backbone.prompt_arguments(ask.condition), "return_dict": False}
    image = torch.full((3, 3, *(8 * side for side in latents.shape[2:])), scale)
    down, middle = controlnet(latents, timestep, controlnet_cond=image, conditioning_scale=scale - 1, **told)
    with trained.installed(model) as student:
        found = student.predict(latents, timestep, replace(ask, guidance_scale=torch.full((3,), scale)))
    assert torch.allclose(found, model.network(latents, timestep, **residuals([*down, middle]), **told)[0], atol=1e-4)


def test_guide_full_begins_with_the_weights_of_the_base():
    for network in MODELS:
        model = model_of(network)
        guide = FullGuideConfig().build(model.backbone).guide
        guide = guide.controlnet if network == UNET else guide
        base, own = dict(model.network.named_parameters()), dict(guide.named_parameters())
        shared = base.keys() & own.keys()
        assert len(shared) > len(own) / 2
        assert all(torch.equal(base[name], own[name]) for name in shared)
        assert all(own[name].requires_grad for name in own)


@pytest.mark.parametrize("network", TRANSFORMERS)
@torch.no_grad()
def test_copies_of_blocks_begin_with_the_tokens_of_the_first_half(network):
    model = model_of(network)
    latents, timestep, ask = call_of(model)
    trained = FullGuideConfig().build(model.backbone)
    for head in trained.guide.heads:
        torch.nn.init.eye_(head.weight)
    found = trained.guide(GuidedCall(model.backbone, timestep, ask), latents)
    blocks, count = model.network.transformer_blocks, len(found)
    assert count == len(blocks) - len(blocks) // 2
    call = NetworkCall(latents, timestep, ask.condition)
    for one, other in zip(found, model.backbone.through(blocks[:count], call, torch.zeros(1)), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@each_guide
@pytest.mark.parametrize(("source", "dtype"), [("tiny-dit", "bfloat16"), ("tiny-sd", "float16")])
def test_a_guide_of_a_base_in_half_precision_learns_in_float32(kind, source, dtype):
    half = BaseModelConfig(source=f"builtin:{source}", dtype=dtype).build(CPU)
    whole = model_of(type(half.network).__name__)
    found = {}
    for model in (half, whole):
        trained = randomised(GUIDES[kind].build(model.backbone))
        pairs = Pairs(*call_of(whole), guided=torch.zeros(3, 4, *model.latent_shape[1:]))
        with trained.installed(model) as student:
            loss = trained.loss(student, pairs)
            loss.backward()
        assert {parameter.grad.dtype for parameter in trained.parameters()} == {torch.float32}
        found[model.dtype] = loss.item()
    assert found[half.dtype] == pytest.approx(found[torch.float32], rel=0.05)


@each_guide
def test_checkpointing_makes_the_predicted_memory_of_training_smaller(kind):
    model = full_size_model("sd15")
    sized = Sized(model, 32)
    config = {"guide-full": FullGuideConfig(), "guide-tiny": TinyGuideConfig()}[kind]
    kept, saving = (training_memory(sized, config, 4, activation_checkpointing=each) for each in (False, True))
    assert saving.peak_bytes < kept.peak_bytes
    assert kept.parts["adapter weights"] >= 4 * full_size(config, "sd15").parameter_count()


def test_a_network_that_nobody_has_told_us_the_inlets_of_is_refused_in_one_line():
    model = model_of(UNET)

    class Unknown(type(model.backbone)):
        inlets = property(lambda self: super(type(model.backbone), self).inlets)

    for config in GUIDES.values():
        with pytest.raises(InputError, match=r"^methods: no guide is known for networks of class UNet2DCondition"):
            config.check(Unknown(model.network))


def test_a_unet_of_which_diffusers_makes_no_controlnet_is_refused_in_one_line():
    unet = UNet2DConditionModel(
        block_out_channels=(8, 8),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=8,
    )
    with pytest.raises(InputError, match="guide-full fits no UNet like this one: unknown mid_block_type") as caught:
        FullGuideConfig().check(backbone_of(unet))
    assert "\n" not in str(caught.value)
    TinyGuideConfig().check(backbone_of(unet))


@each_guide
@torch.no_grad()
def test_latents_of_odd_sides_find_features_of_theirs(kind):
    model = model_of(UNET)
    _, timestep, ask = call_of(model)
    with randomised(GUIDES[kind].build(model.backbone)).installed(model) as student:
        assert student.predict(torch.randn(3, 4, 13, 10), timestep, ask).shape == (3, 4, 13, 10)
