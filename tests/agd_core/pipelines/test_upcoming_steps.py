"""Steps of a stock pipeline's call are prepared together, and their images are those of steps prepared one by one."""

from dataclasses import replace

import pytest
import torch

import agd_core
from agd_core.methods.agd.attach import AttachedLayers
from agd_core.methods.attached import Attached, GuidedCall
from agd_core.models.ask import Ask
from agd_core.models.condition import Condition
from agd_core.pipelines import upcoming_steps
from agd_core.pipelines.upcoming_steps import UpcomingSteps
from tests.agd_core.methods.examples import model_of
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


class Recorded(Attached):
    """A method whose code of a step is its timestep."""

    def __init__(self):
        self.alone, self.together = [], []

    def detach(self):
        """Nothing hangs anywhere."""

    def encode(self, call):
        self.alone.append(float(call.timestep))
        return float(call.timestep)

    def steps(self, call):
        for timestep in call.timestep:
            self.together.append(float(timestep))
            yield replace(call, codes=float(timestep))


@pytest.mark.parametrize(
    ("walk", "alone", "together"),
    [
        ([0, 1, 2, 3], [9], [8, 7, 6]),
        ([0, 0, 1, 1, 2, 2, 3], [9], [9, 8, 7, 6]),
        ([0, 2, 3], [9], [7, 6]),
        ([0, 1, 2, 0, 1], [9, 9, 8], [8, 7]),
    ],
    ids=["in order", "every step twice", "one left out", "from the beginning again"],
)
@torch.no_grad()
def test_every_step_gets_its_own_codes_in_whatever_order(walk, alone, together):
    backbone, attached, upcoming = model_of("DiTTransformer2DModel").backbone, Recorded(), UpcomingSteps()
    table = torch.tensor([9.0, 8.0, 7.0, 6.0])
    ask = Ask.unguided(Condition(class_labels=torch.tensor([3])))
    for index in walk:
        call = GuidedCall(backbone, table[index].expand(1), ask)
        upcoming.encode(attached, call, table[index])
        assert call.codes == float(table[index])
    assert (attached.alone, attached.together) == (alone, together)


@pytest.mark.parametrize("case", ["sd"])
def test_inference_mode_leaves_nothing_behind(case, pipe, prepared):
    with torch.inference_mode():
        images(pipe)
    prepared["alone"] = 0
    images(pipe)
    assert prepared["alone"] == 1


@pytest.mark.parametrize("case", ["sd"])
def test_a_callback_that_changes_the_prompt_in_place_is_heard(case, pipe, monkeypatch):
    def louder(pipe, step, timestep, tensors):
        tensors["prompt_embeds"].mul_(1.5)
        return tensors

    call = {"callback_on_step_end": louder, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    assert torch.allclose(images(pipe, **call), one_by_one(pipe, monkeypatch, **call), atol=1e-5)
    assert not torch.allclose(images(pipe, **call), images(pipe), atol=1e-3)
