"""What every guidance rule promises; a kind without an example here fails."""

import pytest
import torch
from pydantic import TypeAdapter

from agd_core.basics.config_problems import _models
from agd_core.data.subjects import Subjects
from agd_core.evaluation.sampling import SampleConfig, sample_images
from agd_core.guidance import (
    CONDITIONAL,
    CachedGuidance,
    ClassifierFreeGuidance,
    GatedGuidance,
    GuidanceCall,
    GuidanceConfig,
    GuidedDenoiser,
    IntervalGuidance,
)
from agd_core.models.ask import Ask
from agd_core.models.schedulers import build_scheduler

Inside = IntervalGuidance[ClassifierFreeGuidance]
Gate = GatedGuidance[ClassifierFreeGuidance]
Cache = CachedGuidance[ClassifierFreeGuidance]
EXAMPLES = {
    "cfg": [
        ClassifierFreeGuidance(),
        ClassifierFreeGuidance(guided_channels=3),
        ClassifierFreeGuidance(rescale=0.7),
        ClassifierFreeGuidance(guided_channels=3, rescale=0.7),
    ],
    "interval": [
        Inside(high=1000.0, rule=ClassifierFreeGuidance()),
        Inside(low=0.3, high=1000.0, rule=ClassifierFreeGuidance()),
        Inside(high=1000.0, rule=ClassifierFreeGuidance(guided_channels=3)),
        Inside(high=1000.0, rule=ClassifierFreeGuidance(rescale=0.7)),
    ],
    "cfg-gate": [
        Gate(rule=ClassifierFreeGuidance()),
        Gate(until=0.3, rule=ClassifierFreeGuidance()),
        Gate(rule=ClassifierFreeGuidance(rescale=0.7)),
    ],
    "guidance-cache": [
        Cache(rule=ClassifierFreeGuidance()),
        Cache(every=3, rule=ClassifierFreeGuidance()),
        Cache(rule=ClassifierFreeGuidance(guided_channels=3)),
    ],
}
"""Rules by kind; no two of them are the same rule."""
RULES = [rule for rules in EXAMPLES.values() for rule in rules]
SAMPLED = SampleConfig(images=5, steps=7, batch_size=5, guidance_scales=(3.0,))
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.model_dump(exclude_defaults=True)))


def test_every_kind_has_an_example():
    assert {model.model_fields["kind"].default for model in _models(GuidanceConfig)} == set(EXAMPLES)
    assert all(rule.kind == kind for kind, rules in EXAMPLES.items() for rule in rules)


def test_other_settings_are_another_identity():
    identities = [str(rule.identity()) for rule in RULES]
    assert len(set(identities)) == len(identities)


@pytest.fixture
def asked(teacher):
    """Rows at timesteps and guidance scales of their own."""
    latents = torch.randn(4, *teacher.latent_shape, generator=torch.Generator().manual_seed(3))
    ask = Ask(teacher.class_condition([0, 3, 5, 9]), teacher.null_condition(4), torch.tensor([1.0, 2.0, 4.0, 7.5]))
    return latents, torch.tensor([999.0, 700.0, 400.0, 20.0]), ask


def call_of(teacher, asked):
    _, timestep, ask = asked
    return GuidanceCall(ask.guidance_scale, timestep, teacher.scheduler_config)


@each_rule
def test_the_settings_survive_json(rule):
    assert TypeAdapter(GuidanceConfig).validate_json(rule.model_dump_json()) == rule
    assert rule.label


@each_rule
def test_a_scale_of_one_is_the_conditional_prediction(rule, teacher, asked):
    latents, timestep, ask = asked
    plain = teacher.predict(latents, timestep, ask)
    alone = Ask(ask.condition, ask.null, torch.ones(4))
    assert torch.allclose(GuidedDenoiser(teacher, rule).predict(latents, timestep, alone), plain, atol=1e-5)
    guided = GuidedDenoiser(teacher, rule).predict(latents, timestep, ask)
    assert torch.allclose(guided[:1], plain[:1], atol=1e-5)
    assert not torch.allclose(guided[1:], plain[1:], atol=1e-3)


@each_rule
def test_each_row_is_guided_by_itself(rule, teacher, asked):
    latents, timestep, ask = asked
    guided = GuidedDenoiser(teacher, rule)
    together, rows = guided.predict(*asked), [slice(i, i + 1) for i in range(4)]
    alone = torch.cat([guided.predict(latents[row], timestep[row], ask[row]) for row in rows])
    assert torch.allclose(together, alone, atol=1e-4)


@each_rule
def test_every_row_of_every_pass_is_counted(rule, teacher, asked):
    guided, before = GuidedDenoiser(teacher, rule), teacher.network_evaluations
    guided.predict(*asked)
    needed = [rule.rows(one, call_of(teacher, asked)) for one in rule.passes(teacher)]
    assert guided.network_evaluations == sum(4 if rows is None else int(rows.sum()) for rows in needed)
    assert 4 < guided.network_evaluations <= 4 * len(needed)
    assert teacher.network_evaluations - before == guided.network_evaluations


@each_rule
def test_the_evaluations_of_a_sampler_are_known_before_they_are_made(rule, teacher):
    guided, subjects = GuidedDenoiser(teacher, rule), Subjects(teacher)
    samples = sample_images(guided, subjects, SAMPLED)
    timesteps = build_scheduler("ddim", teacher.scheduler_config, SAMPLED.steps).timesteps.float()
    counts = GuidedDenoiser(teacher, rule).evaluations(timesteps, subjects.ask([0, 1], 3.0))
    assert len(counts) == SAMPLED.steps
    assert samples.nfe == sum(counts) / 2


@each_rule
def test_a_sampler_does_not_see_how_images_are_batched_nor_what_was_sampled_before(rule, teacher):
    guided, subjects = GuidedDenoiser(teacher, rule), Subjects(teacher)
    together = sample_images(guided, subjects, SAMPLED)
    by_two = sample_images(guided, subjects, SAMPLED.model_copy(update={"batch_size": 2}))
    assert torch.allclose(by_two.latents, together.latents, atol=1e-4)
    assert by_two.nfe == together.nfe
    again = sample_images(guided, subjects, SAMPLED)
    assert torch.equal(again.latents, together.latents)


@each_rule
def test_two_runs_of_a_sampler_at_a_time_share_nothing(rule, teacher, asked):
    """As where several are measured side by side."""
    latents, _, ask = asked
    guided, timesteps = GuidedDenoiser(teacher, rule), torch.tensor([900.0, 600.0, 300.0, 30.0])
    alone = [answer(latents + step) for step, answer in enumerate(guided.steps(timesteps, ask))]
    runs = guided.steps(timesteps, ask), guided.steps(timesteps, ask)
    for step, (one, other) in enumerate(zip(*runs, strict=True)):
        assert torch.equal(one(latents + step), alone[step])
        other(-latents)


@each_rule
def test_everywhere_it_needs_all_its_passes_in_every_row(rule, teacher, asked):
    everywhere = rule.everywhere()
    assert all(everywhere.rows(one, call_of(teacher, asked)) is None for one in rule.passes(teacher))
    assert everywhere.passes(teacher) == rule.passes(teacher)


@each_rule
def test_the_conditional_pass_comes_first_and_is_needed_everywhere(rule, teacher, asked):
    first, *others = rule.passes(teacher)
    assert first is CONDITIONAL
    assert rule.rows(first, call_of(teacher, asked)) is None
    assert len({first.name, *(one.name for one in others)}) == 1 + len(others)


@each_rule
@pytest.mark.parametrize("space", [(3, 3), (2, 3, 3)], ids=["image", "video"])
def test_combining_leaves_the_answers_alone(rule, teacher, asked, space):
    answers = {one.name: torch.randn(4, 4, *space) for one in rule.passes(teacher)}
    before = {name: answer.clone() for name, answer in answers.items()}
    combined = rule.combine(answers, call_of(teacher, asked))
    assert combined.shape == (4, 4, *space)
    assert all(torch.equal(answers[name], before[name]) for name in answers)
