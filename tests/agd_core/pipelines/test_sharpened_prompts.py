"""DICE in stock pipelines: one pass per step with the sharpened prompt, against the null prompt in its file."""

import copy

import pytest
import torch

import agd_core
from agd_core.methods import DiceConfig
from agd_core.methods.adapter_files import save_adapter
from agd_core.methods.attached import GuidedCall
from agd_core.methods.dice import Sharpener
from agd_core.models.ask import Ask
from agd_core.models.config import BaseModelConfig
from tests.agd_core.methods.examples import CPU, randomised
from tests.agd_core.pipelines.stock import (
    PIPELINES,
    PREDICTIONS,
    card_of,
    counted_rows,
    images,
    network_of,
    open_miniature,
    open_pipeline,
    write_adapter,
)
from tests.agd_core.pipelines.test_offloading import FORMS

PROMPT = "encoder_hidden_states"
SCALE = 7.5
CONFIG = DiceConfig(hidden_width=12, heads=3, guidance_scale=4.0)


def trained_on(model):
    """A sharpener with random weights that has seen the model's null prompt."""
    dice = randomised(CONFIG.build(model.backbone))
    dice.null.remember(model.null_condition(1))
    return dice


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(model, sharpener, its folder) of a miniature."""
    root, found = tmp_path_factory.mktemp("sharpeners"), {}

    def by_name(name):
        if name not in found:
            model = BaseModelConfig(source=f"builtin:{name}").build(CPU)
            dice = trained_on(model)
            save_adapter(
                dice, card_of(dice, model.network, PREDICTIONS.get(name, "epsilon")), model.network, root / name
            )
            found[name] = model, dice, root / name
        return found[name]

    return by_name


def sharpened(model, dice, prompt):
    """What an unguided pipeline must be given to make the same image."""
    ask = Ask(model.prompt_condition([prompt]), model.null_condition(1), torch.tensor([SCALE]))
    with torch.no_grad():
        prompt_embeds = dice.sharpened(GuidedCall(model.backbone, torch.tensor([500.0]), ask))
    given = {"prompt_embeds": prompt_embeds}
    if "pooled" in ask.condition:
        given["pooled_prompt_embeds"] = ask.condition["pooled"]
    if "encoder_hidden_states_mask" in ask.condition:
        given["prompt_attention_mask"] = ask.condition["encoder_hidden_states_mask"]
    return given


@pytest.mark.parametrize("case", ["sd", "sdxl", "sd3", "pixart"])
def test_it_is_the_unguided_image_of_the_sharpened_prompt(case, written):
    model, dice, folder = written(PIPELINES[case][0])
    pipe, given = open_pipeline(case), sharpened(model, dice, "a red cat")
    expected, plain = images(pipe, 1.0, prompt=None, **given), images(pipe, 1.0)
    with counted_rows(pipe) as unguided:
        images(pipe, 1.0)
    agd_core.load_adapter(pipe, folder)
    with counted_rows(pipe) as rows:
        found = images(pipe, SCALE)
    assert rows == unguided, "one pass per step"
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(found, plain, atol=1e-2)
    assert torch.equal(images(pipe, 1.0), plain)
    agd_core.unload(pipe)
    assert torch.equal(images(pipe, 1.0), plain)
    assert not network_of(pipe)._forward_pre_hooks


@pytest.fixture
def sharpenings(monkeypatch):
    """An entry for every call of a sharpener."""
    found, forward = [], Sharpener.forward
    monkeypatch.setattr(Sharpener, "forward", lambda self, *call: (found.append(len(call[0])), forward(self, *call))[1])
    return found


@pytest.mark.parametrize("case", ["sd", "sd3"])
def test_a_call_sharpens_for_its_first_step_and_for_all_behind_it(case, written, sharpenings):
    pipe = open_pipeline(case)
    agd_core.load_adapter(pipe, written(PIPELINES[case][0])[2])
    images(pipe, SCALE, num_inference_steps=5)
    assert sharpenings == [1, 1]


def test_an_offloaded_network_gets_its_prompt_at_every_step(written, sharpenings, tmp_path):
    pipe = open_pipeline("sd3")
    agd_core.load_adapter(pipe, written("tiny-sd3")[2])
    expected = images(pipe, SCALE)
    sharpenings.clear()
    FORMS["accelerate"](pipe, tmp_path)
    assert torch.allclose(images(pipe, SCALE), expected, atol=1e-5)
    assert sharpenings == [1] * len(pipe.scheduler.timesteps)


def test_a_controlnet_beside_it_keeps_the_prompt_as_it_was(written):
    pipe, seen = open_pipeline("sd-controlnet"), {"unet": [], "controlnet": []}
    agd_core.load_adapter(pipe, written("tiny-sd")[2])

    def note(name):
        def hook(module, args, kwargs):
            seen[name].append(kwargs[PROMPT])

        return hook

    for name in seen:
        getattr(pipe, name).register_forward_pre_hook(note(name), with_kwargs=True)
    images(pipe, SCALE)
    plain = pipe.encode_prompt("a red cat", CPU, 1, False)[0]
    assert len(seen["unet"]) == len(seen["controlnet"]) == len(pipe.scheduler.timesteps)
    assert all(torch.allclose(each, plain) for each in seen["controlnet"])
    assert not any(torch.allclose(each, plain, atol=1e-2) for each in seen["unet"])


def test_a_deep_copy_of_a_pipeline_has_a_sharpener_of_its_own(written):
    pipe = open_miniature("tiny-sd")
    agd_core.load_adapter(pipe, written("tiny-sd")[2])
    expected, twin = images(pipe), copy.deepcopy(pipe)
    agd_core.unload(pipe)
    assert torch.equal(images(twin), expected)
    agd_core.unload(twin)
    assert torch.equal(images(twin, 1.0), images(pipe, 1.0))


def test_one_that_was_never_trained_says_so(tmp_path):
    pipe = open_miniature("tiny-sd")
    agd_core.load_adapter(pipe, write_adapter(tmp_path, "tiny-sd", config=CONFIG))
    with pytest.raises(agd_core.InputError, match="was not trained"):
        images(pipe)
