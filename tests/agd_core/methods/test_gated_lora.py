"""What is special about the LoRA with a gate: an ordinary LoRA at every scale and timestep, and none at scale 1."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import agd_core
from agd_core.methods import GatedLoraConfig, LoraConfig
from agd_core.methods.attached import GuidedCall
from agd_core.models.ask import Ask
from tests.agd_core.methods.examples import MODELS, call_of, model_of, randomised
from tests.agd_core.pipelines.stock import counted_rows, images, open_miniature, write_adapter

CONFIG = GatedLoraConfig(rank=3, hidden_width=8)
RANK, SCALE, TIME = 3, 4.0, 300.0
each_network = pytest.mark.parametrize("network", MODELS)


def at(ask, scale, rows=3):
    return Ask(ask.condition[:rows], ask.null[:rows], torch.full((rows,), scale))


def as_plain(gated, call, own):
    """The ordinary LoRA that it is for this call, whose rows are alike: B times the gate's diagonal."""
    plain = LoraConfig(rank=RANK, guidance_scale=own).build(call.backbone)
    codes = gated.encode(call)[0]
    for path in gated._paths:
        mine, other = gated.get_submodule(path), plain.get_submodule(path)
        code = torch.nn.functional.silu(codes.scale[0, 0] + codes.time[0, 0])
        gate = (own - 1) * (1 + mine.modulation(code))
        other.lora_A.weight.copy_(mine.lora_A.weight)
        other.lora_B.weight.copy_(mine.lora_B.weight * gate)
    return plain


@each_network
@torch.no_grad()
def test_at_a_scale_and_timestep_it_is_an_ordinary_lora(network):
    model = model_of(network)
    latents, _, ask = call_of(model)
    ask, timestep = at(ask, SCALE), torch.full((3,), TIME)
    gated = randomised(CONFIG.build(model.backbone))
    plain = as_plain(gated, GuidedCall(model.backbone, timestep[:1], ask[:1]), SCALE)
    with gated.installed(model) as student, plain.installed(model) as ordinary:
        found = student.predict(latents, timestep, ask)
        assert torch.allclose(found, ordinary.predict(latents, timestep, ask), atol=1e-5)
        assert not torch.allclose(found, ordinary.predict(latents, timestep, at(ask, SCALE / 2)), atol=1e-3)


@torch.no_grad()
def test_it_may_sit_in_what_embeds_the_timestep_where_it_is_encoded_in_the_network():
    """As in offloaded pipelines: its code asks the base's embedder, while the embedder is asked for the network."""
    model = model_of("UNet2DConditionModel")
    call = call_of(model)
    gated = randomised(CONFIG.model_copy(update={"targets": ("linear_1", "to_q")}).build(model.backbone))
    with gated.installed(model) as student:
        ahead = student.predict(*call)
    attached = gated.attach(model.network)
    attached.begin(GuidedCall(model.backbone, *call[1:]))
    assert torch.equal(model.predict(*call), ahead)
    attached.detach()
    assert not torch.allclose(model.predict(*call), ahead, atol=1e-3)


@each_network
@torch.no_grad()
def test_at_scale_one_it_is_the_base_bit_for_bit(network):
    model = model_of(network)
    latents, timestep, ask = call_of(model)
    with randomised(CONFIG.build(model.backbone)).installed(model) as student:
        bare = model.predict(latents, timestep, ask)
        assert torch.equal(student.predict(latents, timestep, at(ask, 1.0)), bare)
        answer = next(student.steps(timestep[:1], at(ask, 1.0)))
        assert torch.equal(answer(latents), model.predict(latents, timestep[:1].expand(3), ask))
        assert not torch.allclose(student.predict(latents, timestep, at(ask, 1.5)), bare, atol=1e-3)


@pytest.mark.parametrize("use_timestep", [True, False])
@torch.no_grad()
def test_the_gate_hears_the_timestep_where_it_shall(use_timestep):
    model = model_of("DiTTransformer2DModel")
    ask = at(call_of(model)[2], SCALE, rows=1)
    trained = randomised(CONFIG.model_copy(update={"use_timestep": use_timestep}).build(model.backbone))
    attached = trained.attach(model.network)
    early, late = (attached.encode(GuidedCall(model.backbone, torch.tensor([t]), ask)) for t in (900.0, 20.0))
    attached.detach()
    assert all(torch.equal(one[1], other[1]) != use_timestep for one, other in zip(early, late, strict=True))


def step_flops(config, model, call):
    """Of a sampler's second step."""
    latents, timesteps, ask = call
    with randomised(config.build(model.backbone)).installed(model) as student:
        _, answer = (answer for answer, _ in zip(student.steps(timesteps, ask), range(2), strict=False))
        with FlopCounterMode(display=False) as counter:
            answer(latents)
    return counter.get_total_flops()


@each_network
@pytest.mark.parametrize("rows", [slice(3), slice(1, 2)], ids=["rows differ", "one row"])
@torch.no_grad()
def test_a_samplers_step_costs_what_a_step_of_a_plain_lora_costs(network, rows):
    model = model_of(network)
    latents, _, ask = call_of(model)
    call = latents[rows], torch.tensor([900.0, 500.0]), ask[rows]
    assert step_flops(CONFIG, model, call) == step_flops(LoraConfig(rank=RANK), model, call)


@pytest.mark.parametrize("scales", [(SCALE,), (SCALE, SCALE, SCALE), (2.0, 3.0, SCALE)])
@torch.no_grad()
def test_its_gate_is_in_b_before_the_first_step_where_all_rows_are_alike(scales):
    model = model_of("DiTTransformer2DModel")
    ask = call_of(model)[2][torch.zeros(len(scales), dtype=torch.long)]
    ask = Ask(ask.condition, ask.null, torch.tensor(scales))
    attached = randomised(CONFIG.build(model.backbone)).attach(model.network)
    calls = list(attached.steps(GuidedCall(model.backbone, torch.tensor([900.0, 20.0]), ask)))
    attached.detach()
    alike = len(set(scales)) == 1
    assert {len(prepared) for call in calls for prepared in call.codes} == {2 if alike else 3}
    first, second = (call.codes[0] for call in calls)
    assert torch.equal(first[1], second[1]) != alike, "B differs from step to step"
    assert torch.equal(first[-1], second[-1]) is False


def prepared_together(model, rows):
    """Numbers for each step, and how many steps are prepared together."""
    attached = CONFIG.build(model.backbone).attach(model.network)
    ask = call_of(model)[2][:rows]
    numbers = sum(site.layer.prepared_size(site.width, rows) for site in attached._sites)
    window = attached._window(GuidedCall(model.backbone, torch.zeros(9), ask))
    attached.detach()
    return numbers, window


def test_no_more_steps_are_prepared_than_have_room(monkeypatch):
    model = model_of("UNet2DConditionModel")
    widths = [len(beside.weight) for beside in CONFIG.adapted(model.backbone).values()]
    monkeypatch.setattr("agd_core.methods.agd.attach._MOST_PREPARED", 4 * 5 * RANK * sum(widths))
    assert prepared_together(model, rows=1) == (RANK * sum(widths), 5)
    assert prepared_together(model, rows=3)[0] == 3 * RANK * len(widths)


@pytest.mark.parametrize("name", ["tiny-sd", "tiny-sd3", "tiny-dit"])
def test_a_stock_pipeline_guides_in_one_pass_at_any_scale(name, tmp_path):
    pipe, folder = open_miniature(name), write_adapter(tmp_path / "gated", name, config=CONFIG)
    with counted_rows(pipe) as unguided:
        plain = torch.as_tensor(images(pipe, 1.0))
    agd_core.load_adapter(pipe, folder)
    with counted_rows(pipe) as rows:
        weak = torch.as_tensor(images(pipe, 2.0))
    assert rows == unguided, "no more than without guidance"
    strong = torch.as_tensor(images(pipe, SCALE))
    assert torch.equal(torch.as_tensor(images(pipe, 1.0)), plain)
    differences = [(one - other).abs().max() for one, other in ((plain, weak), (weak, strong), (plain, strong))]
    assert min(differences) > 1e-3
