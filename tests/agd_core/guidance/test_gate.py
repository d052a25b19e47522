"""Guided in the first part of a sampler's steps, one pass after it."""

import pytest
import torch
from pydantic import ValidationError

from agd_core.data.subjects import Subjects
from agd_core.evaluation.sampling import SampleConfig, sample_images
from agd_core.guidance import ClassifierFreeGuidance, GatedGuidance, GuidedDenoiser
from flows.presets import load_config

CFG = ClassifierFreeGuidance()
Gate = GatedGuidance[ClassifierFreeGuidance]


@pytest.fixture
def asked(teacher):
    latents = torch.randn(3, *teacher.latent_shape, generator=torch.Generator().manual_seed(0))
    return latents, torch.tensor([900.0, 700.0, 500.0, 300.0, 100.0]), Subjects(teacher).ask([0, 1, 2], 3.0)


@pytest.mark.parametrize(("until", "guided_steps"), [(0.5, 3), (0.4, 2), (0.9, 5), (0.01, 1)])
def test_steps_before_the_gate_are_the_rules_and_those_after_it_conditional(teacher, asked, until, guided_steps):
    latents, timesteps, ask = asked
    guided, always = GuidedDenoiser(teacher, Gate(until=until, rule=CFG)), GuidedDenoiser(teacher, CFG)
    found = [answer(latents) for answer in guided.steps(timesteps, ask)]
    assert guided.network_evaluations == 3 * (5 + guided_steps)
    for step, timestep in enumerate(timesteps):
        whole = always if step < guided_steps else teacher
        assert torch.allclose(found[step], whole.predict(latents, timestep.expand(3), ask), atol=1e-5)


@pytest.mark.parametrize(
    ("until", "steps", "guided_steps"), [(0.5, 20, 10), (0.5, 5, 3), (0.7, 10, 7), (0.1, 3, 1), (0.29, 100, 29)]
)
def test_the_share_is_of_the_samplers_steps(teacher, until, steps, guided_steps):
    """Also where 0.7 times 10 is a little more than 7."""
    guided = GuidedDenoiser(teacher, Gate(until=until, rule=CFG))
    ask = Subjects(teacher).ask([0], 3.0)
    assert guided.evaluations(torch.linspace(999, 1, steps), ask) == [2] * guided_steps + [1] * (steps - guided_steps)


def test_a_prediction_by_itself_is_guided(teacher, asked):
    latents, timesteps, ask = asked
    alone = GuidedDenoiser(teacher, Gate(until=0.1, rule=CFG)).predict(latents, timesteps[:3], ask)
    assert torch.equal(alone, GuidedDenoiser(teacher, CFG).predict(latents, timesteps[:3], ask))


def test_the_gate_at_a_half_saves_a_quarter_of_the_evaluations(teacher):
    config = SampleConfig(images=2, steps=8, batch_size=2, guidance_scales=(3.0,))
    assert sample_images(GuidedDenoiser(teacher, Gate(rule=CFG)), Subjects(teacher), config).nfe == 12


def test_a_gate_is_chosen_like_every_rule():
    rule = load_config("fashion-dit", ["guidance={kind: cfg-gate, rule: {kind: cfg, rescale: 0.7}}"]).guidance
    assert rule == Gate(until=0.5, rule=ClassifierFreeGuidance(rescale=0.7))
    assert rule.label == "CFG, rescale 0.7 gate 0.5"


@pytest.mark.parametrize("until", [0.0, 1.0, -0.5, float("nan")])
def test_a_gate_that_is_always_open_or_shut_is_refused(until):
    with pytest.raises(ValidationError, match="until"):
        Gate(until=until, rule=CFG)
