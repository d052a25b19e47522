"""Planning and collecting guided trajectories with the real teacher."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from agd_core.errors import NumericError
from agd_core.guidance import GuidedDenoiser
from agd_core.guidance.classifier_free import ClassifierFreeGuidance
from agd_core.records import INPUT, TARGET
from agd_core.schedulers import build_scheduler
from agd_core.trajectory import CollectConfig, collect_block, plan_trajectories

CONFIG = CollectConfig(trajectories=9, steps=10, kept_steps=4, guidance_scale_min=1.0, guidance_scale_max=5.0)


@pytest.fixture(scope="module")
def guided(teacher):
    return GuidedDenoiser(teacher, ClassifierFreeGuidance())


def test_a_longer_plan_begins_with_the_shorter_one():
    longer = CONFIG.model_copy(update={"trajectories": 30})
    assert plan_trajectories(longer, 10)[:9] == plan_trajectories(CONFIG, 10)


def test_the_plan_is_balanced_and_in_range():
    plan = plan_trajectories(CONFIG.model_copy(update={"trajectories": 200}), 10)
    scales = np.array([row.guidance_scale for row in plan])
    assert np.bincount([row.class_label for row in plan]).tolist() == [20] * 10
    assert scales.min() >= 1.0
    assert scales.max() <= 5.0
    assert abs(scales.mean() - 3.0) < 0.3
    assert len({row.seed for row in plan}) == 200


def test_kept_steps_are_one_from_each_part():
    for row in plan_trajectories(CONFIG, 10):
        assert len(row.steps) == 4
        assert all(low <= step < high for step, low, high in zip(row.steps, (0, 2, 5, 8), (2, 5, 8, 10), strict=True))
    for all_of_them in (None, 10, 25):
        everything = plan_trajectories(CONFIG.model_copy(update={"kept_steps": all_of_them}), 10)
        assert everything[0].steps == tuple(range(10))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_stored_is_what_the_teacher_answers(teacher, guided, dtype):
    config = CONFIG.model_copy(update={"dtype": dtype})
    planned = plan_trajectories(config, 10)
    block = collect_block(guided, teacher, planned, config)
    schedule = build_scheduler("ddim", teacher.scheduler_config, config.steps).timesteps
    assert block.shape == (9, 4, 2, 4, 8, 8)
    assert block.dtype == dtype
    for slot in range(4):
        answer = guided.predict(
            torch.from_numpy(block[:, slot, INPUT]).float(),
            schedule[[row.steps[slot] for row in planned]].float(),
            teacher.class_condition([row.class_label for row in planned]),
            torch.tensor([row.guidance_scale for row in planned]),
        )
        stored = torch.from_numpy(block[:, slot, TARGET]).float()
        assert torch.allclose(answer, stored, rtol=1e-3, atol=1e-3 if dtype == "float16" else 1e-5)


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "dpm-solver++", "euler"])
def test_a_trajectory_does_not_depend_on_its_batch(teacher, guided, scheduler):
    config = CONFIG.model_copy(update={"scheduler": scheduler, "dtype": "float32"})
    planned = plan_trajectories(config, 10)
    together = collect_block(guided, teacher, planned, config)
    alone = collect_block(guided, teacher, planned, config.model_copy(update={"batch_size": 2}))
    assert np.isfinite(together).all()
    np.testing.assert_allclose(together, alone, atol=2e-5 * max(1.0, np.abs(together).max()))


def test_a_value_that_does_not_fit_the_type_is_an_error(teacher):
    class Exploding:
        network_evaluations = 0

        def predict(self, latents, timestep, condition, guidance_scale):
            return latents * 0 + 1e6

    with pytest.raises(NumericError, match="float16"):
        collect_block(Exploding(), teacher, plan_trajectories(CONFIG, 10), CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"guidance_scale_min": 5.0, "guidance_scale_max": 2.0},
            "guidance_scale_min 5 must be below guidance_scale_max 2",
        ),
        ({"kept_steps": 0}, "kept_steps"),
        ({"scheduler": "magic"}, "scheduler"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        CollectConfig(**change)
