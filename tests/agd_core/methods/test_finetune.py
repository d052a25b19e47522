"""What is special about a fine-tuned network: its scale embedding, the base at scale 1, its precision, its file."""

from functools import cache

import diffusers
import pytest
import torch
from safetensors import safe_open

import agd_core
from agd_core.basics.errors import InputError
from agd_core.builtin.miniatures import miniature_folder
from agd_core.memory.full_size import full_size_model
from agd_core.methods import FinetuneConfig, Pairs
from agd_core.methods.adapter_files import WEIGHTS, AdapterCard, open_adapter, save_adapter
from agd_core.models.ask import Ask
from agd_core.models.backbones import backbone_of
from agd_core.models.config import BaseModelConfig
from agd_core.models.doors.guidance_embedding import decode, encode
from agd_core.models.reading import load_component
from tests.agd_core.methods.examples import CPU, MODELS, call_of, model_of, randomised
from tests.agd_core.pipelines.stock import open_miniature, write_adapter

SCALES = torch.linspace(0, 30, 3001)
ADDED = {"sd15": 163_840, "sd21": 163_840, "sdxl": 163_840, "sd3-medium": 131_072, "dit-xl-2-256": 28 * 131_072}
"""512 x 320 in UNets, 512 x 256 elsewhere; a DiT of diffusers embeds its timestep in every one of 28 blocks."""


@cache
def half_model(name):
    return BaseModelConfig(source=f"builtin:{name}", dtype="bfloat16").build(CPU)


@pytest.mark.parametrize("name", ADDED)
def test_the_projection_of_the_scale_is_all_that_is_added(name):
    backbone = backbone_of(full_size_model(name).network())
    with torch.device("meta"):
        trained = FinetuneConfig().build(backbone)
    assert trained.parameter_count() == backbone.parameters + ADDED[name]
    assert {tensor.device.type for tensor in trained.state_dict().values()} == {"meta"}


@pytest.mark.parametrize("kind", ["StableDiffusionPipeline", "StableDiffusionXLPipeline"])
@pytest.mark.parametrize("width", [8, 256, 512])
def test_the_scale_is_embedded_as_diffusers_pipelines_do(kind, width):
    theirs = getattr(diffusers, kind).get_guidance_scale_embedding(None, SCALES - 1, embedding_dim=width)
    assert torch.equal(encode(SCALES, width), theirs)
    assert torch.equal(encode(torch.ones(1), width)[0], torch.cat([torch.zeros(width // 2), torch.ones(width // 2)]))


def test_what_is_encoded_is_decoded():
    assert (decode(encode(SCALES, 8)) - SCALES).abs().max() < 4e-6


@pytest.mark.parametrize("name", ["tiny-sd", "tiny-sdxl"])
def test_the_weights_of_a_unet_are_those_of_diffusers_layout(name):
    unet = open_miniature(name).unet
    trained = FinetuneConfig().build(backbone_of(unet))
    stock = type(unet).from_config({**unet.config, "time_cond_proj_dim": 512})
    expected = {f"unet.{key}": tensor.shape for key, tensor in stock.state_dict().items()}
    assert {key: tensor.shape for key, tensor in trained.state_dict().items()} == expected


@pytest.mark.parametrize("network", MODELS)
@torch.no_grad()
def test_without_guidance_the_base_answers_and_nothing_else_changes(network):
    model, everywhere = model_of(network), FinetuneConfig().everywhere()
    latents, timestep, ask = call_of(model)
    ask = Ask(ask.condition, ask.null, torch.tensor([1.0, 4.0, 0.0]))
    trained, other = (randomised(each.build(model.backbone)) for each in (FinetuneConfig(), everywhere))
    bare = model.predict(latents, timestep, ask)
    with trained.installed(model) as student, other.installed(model) as whole:
        expected, before = whole.predict(latents, timestep, ask), student.network_evaluations
        mixed = student.predict(latents, timestep, ask)
        assert student.network_evaluations - before == 3
        unguided = student.predict(latents, timestep, ask[torch.tensor([0, 2, 0])])
        stepped = [answer(latents) for answer in student.steps(torch.tensor([900.0, 20.0]), ask)]
        again = [student.predict(latents, torch.full((3,), each), ask) for each in (900.0, 20.0)]
        rows = [slice(row, row + 1) for row in range(3)]
        alone = torch.cat([student.predict(latents[row], timestep[row], ask[row]) for row in rows])
    assert torch.equal(unguided, model.predict(latents, timestep, ask[torch.tensor([0, 2, 0])]))
    assert torch.allclose(mixed[::2], bare[::2], atol=1e-5)
    assert (mixed - alone).abs().max() < 1e-5 * max(1, mixed.abs().max())
    assert (mixed[1] - expected[1]).abs().max() < 1e-5 * max(1, expected.abs().max())
    assert not torch.allclose(expected[::2], bare[::2], atol=1e-2)
    assert all(torch.allclose(one, two, atol=1e-5) for one, two in zip(stepped, again, strict=True))


def test_training_teaches_rows_without_guidance_too():
    model = model_of("DiTTransformer2DModel")
    latents, timestep, ask = call_of(model)
    ask = Ask(ask.condition, ask.null, torch.ones(3))
    trained = FinetuneConfig().build(model.backbone)
    with trained.installed(model) as student:
        trained.loss(student, Pairs(latents, timestep, ask, torch.zeros_like(latents))).backward()
    assert all(parameter.grad.isfinite().all() for parameter in trained.parameters())


@pytest.mark.parametrize("name", ["tiny-sd", "tiny-sdxl"])
def test_a_base_in_half_precision_is_trained_in_float32_and_sampled_in_its_own(name, tmp_path):
    model = half_model(name)
    call = call_of(model)
    trained = FinetuneConfig().build(model.backbone)
    card = AdapterCard.of(model, randomised(trained), f"builtin:{name}", {"kind": "cfg"}, (1.0, 8.0), "d" * 64)
    with trained.installed(model) as student:
        trained.loss(student, Pairs(*call, guided=torch.zeros_like(call[0]))).backward()
        with torch.no_grad():
            mixed = student.predict(*call)
    assert {parameter.grad.dtype for parameter in trained.parameters()} == {torch.float32}
    save_adapter(trained, card, model.network, tmp_path)
    frozen = open_adapter(model, tmp_path)
    with frozen.installed(model) as student, torch.no_grad():
        found = student.predict(*call)
    assert {parameter.dtype for parameter in frozen.parameters()} == {torch.bfloat16}
    assert found.dtype is torch.float32
    assert (found - mixed).abs().max() < 0.05 * mixed.abs().max()


def test_a_stock_pipeline_refuses_it_in_one_line(tmp_path):
    pipe = open_miniature("tiny-sd")
    folder = write_adapter(tmp_path / "finetune", "tiny-sd", config=FinetuneConfig())
    with pytest.raises(InputError, match=r"^finetune does not work in stock pipelines; .*load_student") as caught:
        agd_core.load_adapter(pipe, folder)
    assert "\n" not in str(caught.value)
    assert pipe.unet.config.time_cond_proj_dim is None
    assert not pipe.unet._forward_pre_hooks


def test_a_network_that_is_distilled_already_is_refused(tmp_path):
    kind = diffusers.UNet2DConditionModel
    config = kind.load_config(miniature_folder("tiny-sd") / "unet")
    kind.from_config({**config, "time_cond_proj_dim": 256}).save_pretrained(tmp_path)
    backbone = backbone_of(load_component(kind, tmp_path, torch.float32, CPU))
    with pytest.raises(InputError, match="takes a guidance embedding: it is distilled already"):
        FinetuneConfig().check(backbone)


def test_a_checked_configuration_takes_no_memory_and_no_draw():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    FinetuneConfig().check(model_of("SD3Transformer2DModel").backbone)
    assert torch.equal(torch.rand(2), expected)


def test_the_file_has_the_networks_own_names(tmp_path):
    folder = write_adapter(tmp_path / "finetune", "tiny-sd3", config=FinetuneConfig())
    with safe_open(folder / WEIGHTS, "pt") as file:
        names = set(file.keys())
    network = open_miniature("tiny-sd3").transformer
    added = "transformer.time_text_embed.timestep_embedder.cond_proj.weight"
    assert names == {f"transformer.{name}" for name in network.state_dict()} | {added}
