from typing import get_args

import pytest
import torch
from diffusers import DDIMScheduler

from agd_core.schedulers import SchedulerName, build_scheduler

CONFIG = dict(DDIMScheduler(beta_schedule="scaled_linear", timestep_spacing="trailing", clip_sample=False).config)
CLASSES = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "dpm-solver++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
}


def test_every_name_is_covered_here():
    assert set(CLASSES) == set(get_args(SchedulerName))


@pytest.mark.parametrize("steps", [1, 7, 50])
@pytest.mark.parametrize("name", CLASSES)
def test_a_scheduler_of_the_named_class_has_the_steps_set(name, steps):
    scheduler = build_scheduler(name, CONFIG, steps)
    assert type(scheduler).__name__ == CLASSES[name]
    assert scheduler.num_inference_steps == steps
    assert len(scheduler.timesteps) == steps
    assert (scheduler.timesteps.diff() < 0).all()


@pytest.mark.parametrize("name", CLASSES)
def test_the_base_models_noise_schedule_is_kept(name):
    scheduler = build_scheduler(name, CONFIG, 5)
    assert torch.equal(scheduler.alphas_cumprod, DDIMScheduler.from_config(CONFIG).alphas_cumprod)
    assert scheduler.config.prediction_type == CONFIG["prediction_type"]


@pytest.mark.parametrize("name", CLASSES)
def test_the_base_models_config_is_not_changed(name):
    config = dict(CONFIG)
    build_scheduler(name, config, 5)
    assert config == CONFIG


@pytest.mark.parametrize("name", CLASSES)
def test_sampling_an_exact_epsilon_ends_at_the_clean_latents(name):
    clean = torch.linspace(-1, 1, 16).view(1, 1, 4, 4)
    scheduler = build_scheduler(name, CONFIG, 20)
    latents = torch.ones(1, 1, 4, 4) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        alpha_bar = scheduler.alphas_cumprod[int(timestep)]
        scaled = scheduler.scale_model_input(latents, timestep)
        epsilon = (scaled - alpha_bar.sqrt() * clean) / (1 - alpha_bar).sqrt()
        latents = scheduler.step(epsilon, timestep, latents, generator=torch.Generator().manual_seed(0)).prev_sample
    assert torch.allclose(latents, clean, atol=0.02)
