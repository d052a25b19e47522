"""Guidance that is evaluated at every k-th step and reckoned in between."""

import pytest
import torch
from pydantic import ValidationError

from agd_core.data.states import GuidedStates
from agd_core.data.subjects import Subjects
from agd_core.data.trajectory import CollectConfig, collect_unit, plan_collection
from agd_core.evaluation.sampling import SampleConfig, sample_images
from agd_core.guidance import CachedGuidance, ClassifierFreeGuidance, GuidedDenoiser
from flows.presets import load_config
from tests.agd_core.guidance.test_passes import PerturbedAndWeak
from tests.storage.memory_store import MemoryTrajectoryStore

CFG = ClassifierFreeGuidance()
Cache = CachedGuidance[ClassifierFreeGuidance]
SCALE = 3.0


@pytest.fixture
def asked(teacher):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(5, 3, *teacher.latent_shape, generator=generator)
    return latents, torch.tensor([900.0, 700.0, 500.0, 300.0, 100.0]), Subjects(teacher).ask([0, 1, 2], SCALE)


def walked(denoiser, asked):
    latents, timesteps, ask = asked
    return [answer(latents[step]) for step, answer in enumerate(denoiser.steps(timesteps, ask))]


@pytest.mark.parametrize(("every", "evaluated"), [(2, {0, 2, 4}), (3, {0, 3}), (9, {0})])
def test_in_between_the_difference_of_the_last_evaluation_stands(teacher, asked, every, evaluated):
    guided = GuidedDenoiser(teacher, Cache(every=every, rule=CFG))
    found, (latents, timesteps, ask) = walked(guided, asked), asked
    assert guided.network_evaluations == 3 * (5 + len(evaluated))
    difference = None
    for step, timestep in enumerate(timesteps):
        conditional = teacher.predict(latents[step], timestep.expand(3), ask)
        if step in evaluated:
            whole = GuidedDenoiser(teacher, CFG).predict(latents[step], timestep.expand(3), ask)
            difference = (whole - conditional) / (SCALE - 1)
            assert torch.allclose(found[step], whole, atol=1e-5)
        assert torch.allclose(found[step], conditional + (SCALE - 1) * difference, atol=1e-4)


def test_it_is_nearer_to_cfg_than_no_guidance_is(teacher):
    config = SampleConfig(images=10, steps=20, guidance_scales=(SCALE,))
    denoisers = teacher, GuidedDenoiser(teacher, CFG), GuidedDenoiser(teacher, Cache(rule=CFG))
    plain, whole, cached = (sample_images(denoiser, Subjects(teacher), config) for denoiser in denoisers)
    assert (plain.nfe, whole.nfe, cached.nfe) == (20, 40, 30)
    errors = [float((other.latents - whole.latents).square().mean()) for other in (plain, cached)]
    assert errors[1] < 0.1 * errors[0]


def test_every_further_pass_of_a_rule_is_kept(teacher, asked):
    guided = GuidedDenoiser(teacher, CachedGuidance[PerturbedAndWeak](rule=PerturbedAndWeak(weak=None)))
    walked(guided, asked)
    assert guided.network_evaluations == 3 * (5 + 2 * 3)


def test_a_prediction_by_itself_is_the_rules(teacher, asked):
    latents, timesteps, ask = asked
    guided = GuidedDenoiser(teacher, Cache(rule=CFG))
    walked(guided, asked)
    alone = guided.predict(latents[0], timesteps[:3], ask)
    assert torch.equal(alone, GuidedDenoiser(teacher, CFG).predict(latents[0], timesteps[:3], ask))


def collected(teacher, batch_size, wanted=None):
    """The pairs of one unit, or of some of its trajectories."""
    config = CollectConfig(trajectories=6, steps=4, shard_trajectories=6, dtype="float32", batch_size=batch_size)
    store = MemoryTrajectoryStore(plan_collection(config, Subjects(teacher), {}))
    guided = GuidedDenoiser(teacher, Cache(rule=CFG))
    with store.write_unit(0) as writer:
        collect_unit(GuidedStates(guided), teacher, store.plan, writer, config)
    return torch.from_numpy(store.read(range(store.plan.pairs)).latents), guided


def test_it_can_be_a_teacher_whose_trajectories_do_not_depend_on_batches(teacher):
    together, guided = collected(teacher, 6)
    assert guided.network_evaluations == 6 * (4 + 2)
    by_two, _ = collected(teacher, 2)
    assert torch.allclose(by_two, together, atol=1e-4)
    assert torch.equal(collected(teacher, 6)[0], together)


def test_a_cache_is_chosen_like_every_rule():
    rule = load_config("fashion-dit", ["guidance={kind: guidance-cache, every: 4, rule: {kind: cfg}}"]).guidance
    assert rule == Cache(every=4, rule=CFG)
    assert rule.label == "CFG cache 4"


@pytest.mark.parametrize("every", [1, 0, -2, 2.5])
def test_a_cache_that_keeps_nothing_is_refused(every):
    with pytest.raises(ValidationError, match="every"):
        Cache(every=every, rule=CFG)
