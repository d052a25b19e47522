"""Guided inside an interval of noise levels, one pass outside of it."""

import pytest
import torch
from pydantic import ValidationError

from agd_core.data.subjects import Subjects
from agd_core.evaluation.sampling import SampleConfig, sample_images
from agd_core.guidance import ClassifierFreeGuidance, GuidedDenoiser, IntervalGuidance
from agd_core.models.schedulers import build_scheduler, noise_level
from flows.presets import load_config

Inside = IntervalGuidance[ClassifierFreeGuidance]
CFG = ClassifierFreeGuidance()


def test_rows_outside_are_conditional_bit_for_bit_and_rows_inside_are_the_rules(teacher):
    timestep = torch.tensor([999.0, 600.0, 300.0, 5.0])
    levels = noise_level(teacher.scheduler_config, timestep).tolist()
    latents = torch.randn(4, *teacher.latent_shape, generator=torch.Generator().manual_seed(0))
    ask = Subjects(teacher).ask([0, 1, 2, 3], 3.0)
    guided = GuidedDenoiser(teacher, Inside(low=levels[3], high=levels[1], rule=CFG))
    found, inside = guided.predict(latents, timestep, ask), slice(1, 3)
    assert guided.network_evaluations == 4 + 2
    always = GuidedDenoiser(teacher, CFG).predict(latents, timestep, ask)
    plain = teacher.predict(latents, timestep, ask)
    assert torch.allclose(found[inside], always[inside], atol=1e-5)
    for row in (0, 3):
        assert torch.allclose(found[row], plain[row], atol=1e-6)
        assert not torch.allclose(found[row], always[row], atol=1e-3)


def test_sampling_counts_one_evaluation_outside_and_two_inside(teacher):
    config = SampleConfig(images=2, steps=8, batch_size=2, guidance_scales=(3.0,))
    timesteps = build_scheduler("ddim", teacher.scheduler_config, 8).timesteps
    levels = noise_level(teacher.scheduler_config, timesteps.float()).tolist()
    samples = sample_images(GuidedDenoiser(teacher, Inside(high=levels[3], rule=CFG)), Subjects(teacher), config)
    assert samples.nfe == 8 + 5


def test_an_interval_is_chosen_like_every_rule():
    changes = ["guidance={kind: interval, low: 0.28, high: 2.9, rule: {kind: cfg}}", "guidance.rule.guided_channels=3"]
    rule = load_config("fashion-dit", changes).guidance
    assert rule == Inside(low=0.28, high=2.9, rule=ClassifierFreeGuidance(guided_channels=3))
    assert rule.label == "CFG in 0.28 to 2.9"
    assert load_config("fashion-dit", [*changes, "guidance.rule.rescale=0.7"]).guidance.label.startswith(
        "CFG, rescale 0.7"
    )


def test_a_rule_is_the_same_inside_and_by_itself():
    for rule in (CFG, ClassifierFreeGuidance(rescale=0.7)):
        assert Inside(high=3.0, rule=rule).identity()["rule"] == rule.identity()


def test_an_empty_interval_is_refused():
    with pytest.raises(ValidationError, match="low 3 must be below high 2"):
        Inside(low=3.0, high=2.0, rule=CFG)
