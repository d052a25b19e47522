"""Steps of a stock pipeline's call are prepared together, and their images are those of steps prepared one by one."""

import pytest
import torch

import agd_core
from agd_core.methods.agd.attach import AttachedLayers
from agd_core.pipelines import upcoming_steps
from tests.agd_core.pipelines.stock import PIPELINES, images, open_pipeline


@pytest.fixture
def pipe(case, adapters):
    opened = open_pipeline(case)
    agd_core.load_adapter(opened, adapters(PIPELINES[case][0]))
    return opened


@pytest.fixture
def prepared(monkeypatch):
    """How many steps were prepared, one by one and together."""
    found = {"alone": 0, "together": []}
    encode, steps = AttachedLayers.encode, AttachedLayers.steps

    def counted_encode(self, call):
        found["alone"] += 1
        return encode(self, call)

    def counted_steps(self, call):
        found["together"].append(len(call.timestep))
        return steps(self, call)

    monkeypatch.setattr(AttachedLayers, "encode", counted_encode)
    monkeypatch.setattr(AttachedLayers, "steps", counted_steps)
    return found


def one_by_one(pipe, monkeypatch, **call):
    with monkeypatch.context() as context:
        context.setattr(upcoming_steps, "_place", lambda timestep: (None, 0))
        return images(pipe, **call)


@pytest.mark.parametrize("case", PIPELINES)
def test_all_but_the_first_step_are_prepared_together(case, pipe, prepared, monkeypatch):
    expected = one_by_one(pipe, monkeypatch)
    steps = prepared["alone"]
    prepared["alone"] = 0
    assert torch.allclose(images(pipe), expected, atol=1e-5)
    assert prepared == {"alone": 1, "together": [steps - 1]}


@pytest.mark.parametrize("case", ["sd"])
def test_a_callback_that_changes_the_prompt_in_place_is_heard(case, pipe, monkeypatch):
    def louder(pipe, step, timestep, tensors):
        tensors["prompt_embeds"].mul_(1.5)
        return tensors

    call = {"callback_on_step_end": louder, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    assert torch.allclose(images(pipe, **call), one_by_one(pipe, monkeypatch, **call), atol=1e-5)
    assert not torch.allclose(images(pipe, **call), images(pipe), atol=1e-3)
