"""Prediction errors in closed form: networks that answer a constant, so the guided prediction is known."""

import math

import pytest
import torch

from agd_core.basics.progress import Stopped
from agd_core.basics.seeding import derive_seed
from agd_core.data.subjects import Subjects
from agd_core.evaluation.prediction_error import UNGUIDED, measure_prediction_errors
from agd_core.evaluation.sampling import SampleConfig
from agd_core.guidance import CachedGuidance, ClassifierFreeGuidance, GatedGuidance, GuidedDenoiser
from agd_core.models.condition import Condition
from agd_core.models.denoiser import Denoiser
from agd_core.models.denoising import denoise
from agd_core.models.model import BaseModel
from agd_core.models.schedulers import build_scheduler

CPU = torch.device("cpu")
CONSTANTS = torch.tensor([1.0, 2.0, 0.5])
"""The prediction of class 0, of class 1, and without a class."""


class Constant(BaseModel):
    """Predicts its class's constant everywhere, and keeps what it was asked."""

    def __init__(self):
        self.prediction_channels = 2
        self.latent_shape, self.class_names, self.scheduler_config = (2, 3, 3), ("a", "b"), {}
        self.device, self.dtype = CPU, torch.float32
        self.asked = []

    def evaluate_network(self, latents, timestep, condition):
        self.asked.append((latents.clone(), timestep.clone()))
        return CONSTANTS[condition["class_labels"]][:, None, None, None].expand_as(latents)

    def class_condition(self, labels):
        return Condition(class_labels=torch.tensor(labels))

    def null_condition(self, batch, negative_prompt=None):
        return Condition(class_labels=torch.full((batch,), 2))

    decode = None


class Guided(Denoiser):
    """A student that is off from the exact guided prediction by a part of the latents."""

    network_evaluations = 0

    def __init__(self, off=0.0):
        self.off = off

    def predict(self, latents, timestep, ask):
        cond, uncond = CONSTANTS[ask.condition["class_labels"]], CONSTANTS[2]
        return (uncond + ask.guidance_scale * (cond - uncond))[:, None, None, None] + self.off * latents


def settings(**others):
    return SampleConfig(images=2, steps=4, seed=3, **others)


def teacher_of(base_model):
    return GuidedDenoiser(base_model, ClassifierFreeGuidance())


def measure(base_model, methods, images=6, scale=3.0, config=None, **others):
    config = (config or settings()).model_copy(update={"images": images, "guidance_scales": (scale,)})
    return measure_prediction_errors(teacher_of(base_model), methods, Subjects(base_model), config, **others)


def test_an_exact_student_errs_nowhere_and_no_guidance_errs_as_the_formula_says():
    errors = measure(Constant(), {"exact": Guided()})
    assert [point.mse for point in errors.points["exact"]] == [0.0] * 4
    assert [point.relative for point in errors.points["exact"]] == [0.0] * 4
    per_class = [((3 - 1) * (constant - 0.5)) ** 2 for constant in (1.0, 2.0)]
    for point in errors.points[UNGUIDED]:
        assert point.mse == pytest.approx(sum(per_class) / 2)
        assert point.standard_error == pytest.approx(torch.tensor(per_class * 3).std().item() / math.sqrt(6))
        assert (point.relative, point.relative_standard_error) == (1.0, 0.0)
    assert list(errors.guided_mean_square) == pytest.approx([(2.0**2 + 5.0**2) / 2] * 4)


def test_a_rule_is_asked_step_by_step_as_a_sampler_asks_it():
    base_model, rule = Constant(), ClassifierFreeGuidance()
    sparing = {
        "gate": GuidedDenoiser(base_model, GatedGuidance[ClassifierFreeGuidance](rule=rule)),
        "cache": GuidedDenoiser(base_model, CachedGuidance[ClassifierFreeGuidance](rule=rule)),
    }
    errors = measure(base_model, sparing, config=settings(batch_size=4))
    relative = {name: [point.relative for point in errors.points[name]] for name in sparing}
    assert relative == {"gate": [0.0, 0.0, 1.0, 1.0], "cache": [0.0] * 4}, "the difference is the same at every step"
    assert [denoiser.network_evaluations for denoiser in sparing.values()] == [6 * (4 + 2)] * 2


def test_timesteps_are_those_of_the_sampler():
    errors = measure(Constant(), {"exact": Guided()})
    schedule = build_scheduler("ddim", {}, 4).timesteps.tolist()
    assert [[point.timestep for point in curve] for curve in errors.points.values()] == [schedule] * 2


def test_every_method_is_asked_on_the_latents_that_the_teacher_saw():
    base_model = Constant()
    measure(base_model, {}, images=2)
    walk, bare = base_model.asked[::2], base_model.asked[1::2]
    assert len(walk) == len(bare) == 4
    assert all(torch.equal(seen[0], both[0][:2]) for seen, both in zip(bare, walk, strict=True))
    assert all(torch.equal(seen[1], both[1][:2]) for seen, both in zip(bare, walk, strict=True))


def test_the_walk_is_guided_sampling_with_seeds_of_its_own():
    base_model, plain = Constant(), Constant()
    measure(base_model, {}, images=2)
    scheduler, seeds = build_scheduler("ddim", {}, 4), [derive_seed(3, "curve", row) for row in range(2)]
    denoise(teacher_of(plain), scheduler, Subjects(plain).ask([0, 1], 3.0), seeds, plain.latent_shape)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(base_model.asked[::2], plain.asked, strict=True))


def test_an_error_that_depends_on_the_latents_has_the_standard_error_of_a_ratio():
    base_model = Constant()
    errors = measure(base_model, {"off": Guided(off=0.1)}, images=6)
    first, latents = errors.points["off"][0], base_model.asked[1][0]
    mine = (0.1 * latents.double()).square().mean(dim=(1, 2, 3))
    plain = torch.tensor([1.0, 9.0] * 3).double()
    ratio = mine.mean() / plain.mean()
    assert first.mse == pytest.approx(mine.mean().item(), rel=1e-5)
    assert first.relative == pytest.approx(ratio.item(), rel=1e-5)
    spread = ((mine - ratio * plain) / plain.mean()).std().item()
    assert first.relative_standard_error == pytest.approx(spread / math.sqrt(6), rel=1e-4)


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "euler", "dpm-solver++"])
def test_the_batch_size_changes_nothing(scheduler):
    at_once, in_threes = (
        measure(Constant(), {"off": Guided(off=0.1)}, 10, config=settings(batch_size=batch, scheduler=scheduler))
        for batch in (10, 3)
    )
    for name in (UNGUIDED, "off"):
        for one, other in zip(at_once.points[name], in_threes.points[name], strict=True):
            assert vars(one) == pytest.approx(vars(other), rel=1e-5)


def test_at_scale_one_nothing_is_relative():
    errors = measure(Constant(), {"exact": Guided()}, scale=1.0)
    assert {point.mse for curve in errors.points.values() for point in curve} == {0.0}
    assert {point.relative for curve in errors.points.values() for point in curve} == {None}


def test_a_single_image_has_no_standard_error():
    point = measure(Constant(), {}, images=1).points[UNGUIDED][0]
    assert (point.standard_error, point.relative_standard_error) == (None, None)


def test_a_stop_is_heard_at_every_step():
    base_model, answers = Constant(), iter([False, False, True])
    with pytest.raises(Stopped, match="while measuring the prediction error"):
        measure(base_model, {}, should_stop=lambda: next(answers))
    assert len(base_model.asked) == 3 + 2


def test_progress_counts_the_steps_of_images():
    told = []
    measure(Constant(), {}, images=5, config=settings(batch_size=3), on_progress=lambda *said: told.append(said))
    assert told == [(done, 20) for done in (3, 6, 9, 12, 14, 16, 18, 20)]


def test_plain_data_names_the_settings_and_every_point():
    plain = measure(Constant(), {"exact": Guided()}).as_dict()
    points = plain.pop("points")
    assert plain.pop("guided_mean_square") == pytest.approx([14.5] * 4)
    assert plain == {"guidance_scale": 3.0, "scheduler": "ddim", "steps": 4, "images": 6}
    assert list(points) == [UNGUIDED, "exact"]
    keys = {"timestep", "mse", "standard_error", "relative", "relative_standard_error"}
    assert all(point.keys() == keys for curve in points.values() for point in curve)
