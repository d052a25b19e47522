"""What is special about DICE: the prompt is sharpened once, against a null prompt that lies in the file."""

import pytest
import torch
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from agd_core.basics.errors import InputError
from agd_core.memory.full_size import full_size_model
from agd_core.methods import DiceConfig, Pairs
from agd_core.methods.attached import GuidedCall
from agd_core.methods.dice import Sharpener
from agd_core.models.ask import UNKNOWN, Ask
from agd_core.models.backbones import backbone_of
from agd_core.models.condition import Condition
from agd_core.models.denoising import denoise
from agd_core.models.schedulers import build_scheduler
from tests.agd_core.methods.examples import CASES, call_of, model_of, randomised

PROMPT, MASK = "encoder_hidden_states", "encoder_hidden_states_mask"
OWN = 4.0
CONFIG = DiceConfig(hidden_width=12, heads=3, guidance_scale=OWN)
NETWORKS = [network for kind, network in CASES if kind == "dice"]
each_network = pytest.mark.parametrize("network", NETWORKS)


def called(model, ask, off_at_one=False):
    return GuidedCall(model.backbone, torch.full((len(ask),), 500.0), ask, off_at_one)


def at(ask, *scales):
    return Ask(ask.condition, ask.null, torch.tensor(scales))


@pytest.fixture
def model(network):
    return model_of(network)


@pytest.fixture
def ask(model):
    return call_of(model)[2]


@pytest.fixture
def dice(model):
    return randomised(CONFIG.build(model.backbone))


@pytest.fixture
def sharpenings(monkeypatch):
    """Prompts of every call of a sharpener."""
    found, forward = [], Sharpener.forward
    monkeypatch.setattr(Sharpener, "forward", lambda self, *call: (found.append(len(call[0])), forward(self, *call))[1])
    return found


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("sd15", 1_836_800), ("sdxl", 3_148_800), ("sd3-medium", 5_248_000), ("pixart-sigma", 5_248_000)],
)
def test_it_has_as_many_parameters_as_the_authors(name, parameters):
    with torch.device("meta"):
        assert DiceConfig().build(backbone_of(full_size_model(name).network())).parameter_count() == parameters


@pytest.mark.parametrize(("name", "share"), [("sd15", 0.0004), ("sd3-medium", 0.0006)])
@torch.no_grad()
def test_sharpening_costs_next_to_nothing_beside_a_pass(name, share):
    model = full_size_model(name)
    with torch.device("meta"):
        backbone, rows = backbone_of(model.network()), torch.ones(1)
        condition = backbone.empty_condition(model.network_config, 1, model.prompt_tokens)
        with FlopCounterMode(display=False) as one_pass:
            backbone.call(torch.empty(1, *backbone.latent_shape(model.network_config)), rows, condition)
        with FlopCounterMode(display=False) as sharpening:
            DiceConfig().build(backbone).sharpened(GuidedCall(backbone, rows, Ask(condition, condition, rows)))
    assert sharpening.get_total_flops() / one_pass.get_total_flops() == pytest.approx(share, abs=5e-5)


def test_it_takes_every_class_of_networks_with_prompts_and_no_other():
    assert NETWORKS == ["UNet2DConditionModel", "SD3Transformer2DModel", "PixArtTransformer2DModel"]


def test_heads_share_the_width():
    with pytest.raises(ValidationError, match="hidden_width 12 is no multiple of heads 5"):
        DiceConfig(hidden_width=12, heads=5)


@torch.no_grad()
def test_the_sharpener_is_the_papers():
    sharpener, (width, hidden, heads) = Sharpener(10, 12, 3), (10, 12, 3)
    torch.nn.init.normal_(sharpener.leave.weight)
    prompt, null = torch.randn(2, 7, width), torch.randn(2, 5, width)
    theirs = torch.nn.MultiheadAttention(hidden, heads, batch_first=True)
    theirs.in_proj_weight.copy_(torch.cat([each.weight for each in (sharpener.query, sharpener.key, sharpener.value)]))
    theirs.in_proj_bias.zero_()
    theirs.out_proj.load_state_dict(sharpener.out.state_dict())
    ours, others = sharpener.enter(prompt).relu(), sharpener.enter(null).relu()
    expected = sharpener.leave(theirs(ours, others, others)[0].relu())
    assert torch.allclose(sharpener(prompt, null, None), expected, atol=1e-5)
    few = sharpener(prompt, null, torch.tensor([[True, True, True, False, False]] * 2))
    assert torch.allclose(few, sharpener(prompt, null[:, :3], None), atol=1e-5)


@each_network
@torch.no_grad()
def test_the_scale_is_the_dial_and_at_one_the_prompt_is_as_it_was(model, ask, dice):
    prompt = ask.condition[PROMPT]
    assert torch.equal(dice.sharpened(called(model, at(ask, 1.0, 1.0, 1.0))), prompt)
    full = dice.sharpened(called(model, at(ask, OWN, OWN, OWN))) - prompt
    dialled = dice.sharpened(called(model, at(ask, 1.0, 1 + (OWN - 1) / 2, 1 + 1.5 * (OWN - 1)))) - prompt
    assert torch.allclose(dialled, full * torch.tensor([0.0, 0.5, 1.5])[:, None, None], atol=1e-5)
    assert full.abs().amax() > 1e-2
    off = dice.sharpened(called(model, at(ask, 0.5, 1.0, OWN), off_at_one=True)) - prompt
    assert torch.allclose(off, full * torch.tensor([0.0, 0.0, 1.0])[:, None, None], atol=1e-5)


@each_network
@torch.no_grad()
def test_the_start_token_and_everything_but_the_prompt_stay(model, ask, dice):
    seen, start = [], model.backbone.start_tokens
    with dice.installed(model) as student:
        handle = model.network.register_forward_pre_hook(lambda _, *call: seen.append(call), with_kwargs=True)
        student.predict(*call_of(model)[:2], at(ask, OWN, OWN, OWN))
        handle.remove()
    ((args, kwargs),) = seen
    found = model.backbone.read_call(args, kwargs).condition.tensors()
    changes = (found.pop(PROMPT) - ask.condition[PROMPT]).abs().amax(dim=(0, 2))
    assert not changes[:start].any()
    assert (changes[start:] > 0).all()
    assert all(torch.equal(tensor, ask.condition[name]) for name, tensor in found.items())
    assert found.keys() == ask.condition.tensors().keys() - {PROMPT}


@each_network
@torch.no_grad()
def test_a_whole_sampling_sharpens_every_prompt_once(model, ask, dice, sharpenings):
    sampler = "flow-euler" if model.prediction_type == "flow" else "ddim"
    schedulers = (build_scheduler(sampler, model.scheduler_config, 5) for _ in range(2))
    with dice.installed(model) as student:
        found = denoise(student, next(schedulers), ask, [0, 1, 2], model.latent_shape)
    assert sharpenings == [3], "all three prompts together, for all five steps"
    assert not torch.equal(found, denoise(model, next(schedulers), ask, [0, 1, 2], model.latent_shape))


@each_network
@torch.no_grad()
def test_a_step_costs_what_an_unguided_one_costs(model, ask, dice):
    latents, timestep, _ = call_of(model)
    with FlopCounterMode(display=False) as bare:
        model.predict(latents, timestep, ask)
    with dice.installed(model) as student:
        answer = next(student.steps(timestep[:1], ask))
        with FlopCounterMode(display=False) as counter:
            answer(latents)
    assert counter.get_total_flops() == bare.get_total_flops()


@each_network
@torch.no_grad()
def test_another_null_prompt_is_sharpened_against_and_padding_is_none(model, ask, dice):
    ask = at(ask, OWN, OWN, OWN)
    plain = dice.sharpened(called(model, ask))
    negative = Ask(ask.condition, model.prompt_condition(["blurry"] * 3), ask.guidance_scale)
    assert not torch.allclose(dice.sharpened(called(model, negative)), plain, atol=1e-3)
    if MASK in ask.null:
        tensors = ask.null.tensors()
        padding = tensors[PROMPT] + 9 * (1 - tensors[MASK])[:, :, None]
        same = Ask(ask.condition, Condition(**tensors | {PROMPT: padding}), ask.guidance_scale)
        assert torch.allclose(dice.sharpened(called(model, same)), plain, atol=1e-5)


@each_network
def test_the_null_prompt_of_the_first_batch_is_kept_and_stands_in_where_nobody_tells_one(model, ask, dice):
    unknown = Ask(ask.condition, UNKNOWN, ask.guidance_scale)
    with pytest.raises(InputError, match="was not trained"):
        dice.sharpened(called(model, unknown))
    call = call_of(model)
    with dice.installed(model) as student, torch.no_grad():
        for each in (ask, other(model, ask)):
            dice.loss(student, Pairs(*call[:2], each, model.predict(*call)))
        told = dice.sharpened(called(model, ask))
        assert torch.equal(dice.sharpened(called(model, unknown)), told)
    again = CONFIG.build(model.backbone)
    again.load_state_dict(dice.state_dict())
    with torch.no_grad():
        assert torch.equal(again.sharpened(called(model, unknown)), told)


def other(model, ask):
    return Ask(ask.condition, model.prompt_condition(["blurry"] * 3), ask.guidance_scale)


@each_network
@torch.no_grad()
def test_a_negative_prompt_that_is_new_may_also_be_led_away_from(model, ask, dice):
    ask, start = at(ask, OWN, OWN, OWN), model.backbone.start_tokens
    led = randomised(CONFIG.model_copy(update={"negative_weight": 0.5}).build(model.backbone))
    assert torch.equal(led.sharpened(called(model, ask)), dice.sharpened(called(model, ask)))
    led.null.remember(ask.null)
    assert torch.equal(led.sharpened(called(model, ask)), dice.sharpened(called(model, ask))), "the one of training"
    new = other(model, ask)
    away = 0.5 * (new.null[PROMPT] - ask.null[PROMPT])
    away[:, :start] = 0
    expected = dice.sharpened(called(model, new)) - away
    assert torch.allclose(led.sharpened(called(model, new)), expected, atol=1e-5)
    assert not torch.allclose(led.sharpened(called(model, new)), dice.sharpened(called(model, new)), atol=1e-3)
    short = Condition(**{name: each[:, :9] for name, each in new.null.tensors().items() if each.ndim > 1})
    with pytest.raises(InputError, match=r"not \d+ and 9 for the negative one"):
        led.sharpened(called(model, Ask(ask.condition, short, ask.guidance_scale)))
    dice.sharpened(called(model, Ask(ask.condition, short, ask.guidance_scale)))
