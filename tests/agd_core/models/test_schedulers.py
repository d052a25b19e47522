import json
from itertools import pairwise
from typing import get_args

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

from agd_core.basics.errors import InputError
from agd_core.basics.seeding import generator
from agd_core.models.ask import Ask
from agd_core.models.condition import Condition
from agd_core.models.denoiser import Denoiser
from agd_core.models.denoising import denoise
from agd_core.models.schedulers import (
    IMAGE_TOKENS,
    SchedulerName,
    allowed_samplers,
    build_scheduler,
    is_flow_matching,
    noise_level,
    noised_input,
)


def stored(scheduler):
    """What a folder's scheduler_config.json says of it."""
    return json.loads(scheduler.to_json_string())


DIFFUSION = stored(DDIMScheduler(beta_schedule="scaled_linear", timestep_spacing="trailing", clip_sample=False))
FLOW = stored(FlowMatchEulerDiscreteScheduler(shift=3.0))
CLASSES = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "dpm-solver++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
}
FLOW_CLASSES = {"flow-euler": "FlowMatchEulerDiscreteScheduler"}
ALL = [(name, DIFFUSION) for name in CLASSES] + [(name, FLOW) for name in FLOW_CLASSES]


def test_every_name_is_covered_here():
    assert set(CLASSES | FLOW_CLASSES) == set(get_args(SchedulerName))


@pytest.mark.parametrize("steps", [1, 7, 50])
@pytest.mark.parametrize(("name", "config"), ALL)
def test_a_scheduler_of_the_named_class_has_the_steps_set(name, config, steps):
    scheduler = build_scheduler(name, config, steps)
    assert type(scheduler).__name__ == (CLASSES | FLOW_CLASSES)[name]
    assert scheduler.num_inference_steps == steps
    assert len(scheduler.timesteps) == steps
    assert (scheduler.timesteps.diff() < 0).all()


@pytest.mark.parametrize("name", CLASSES)
def test_the_base_models_noise_schedule_is_kept(name):
    scheduler = build_scheduler(name, DIFFUSION, 5)
    assert torch.equal(scheduler.alphas_cumprod, DDIMScheduler.from_config(DIFFUSION).alphas_cumprod)
    assert scheduler.config.prediction_type == DIFFUSION["prediction_type"]


@pytest.mark.parametrize(("name", "config"), [*ALL, ("flow-euler", FLOW | {IMAGE_TOKENS: 16})])
def test_the_base_models_config_is_not_changed(name, config):
    before = dict(config)
    build_scheduler(name, config, 5)
    assert config == before


@pytest.mark.parametrize("name", CLASSES)
def test_sampling_an_exact_epsilon_ends_at_the_clean_latents(name):
    clean = torch.linspace(-1, 1, 16).view(1, 1, 4, 4)
    scheduler = build_scheduler(name, DIFFUSION, 20)
    latents = torch.ones(1, 1, 4, 4) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        alpha_bar = scheduler.alphas_cumprod[int(timestep)]
        scaled = scheduler.scale_model_input(latents, timestep)
        epsilon = (scaled - alpha_bar.sqrt() * clean) / (1 - alpha_bar).sqrt()
        latents = scheduler.step(epsilon, timestep, latents, generator=torch.Generator().manual_seed(0)).prev_sample
    assert torch.allclose(latents, clean, atol=0.02)


class Velocity(Denoiser):
    """A smooth function of all that a network is given, row by row."""

    network_evaluations = 0

    def predict(self, latents, timestep, ask):
        row = (timestep / 1000 + ask.guidance_scale + ask.condition["class_labels"]).view(-1, 1, 1, 1)
        return torch.sin(latents + row) - 0.3 * latents.flip(2)


def walked(config, seeds, steps=6, name="flow-euler"):
    return denoise(Velocity(), build_scheduler(name, config, steps), ask_of(seeds), seeds, (2, 4, 4))


def ask_of(labels):
    condition, scales = Condition(class_labels=torch.tensor(labels)), torch.linspace(1, 4, 9)[torch.tensor(labels)]
    return Ask(condition, condition, scales)


def test_the_flow_loop_is_eulers_method_on_the_shifted_schedule():
    """dx/dsigma = v, from sigma 1 to 0, evenly spaced before the shift 3 sigma / (1 + 2 sigma) is applied."""
    latents = torch.stack([torch.randn((2, 4, 4), generator=generator(seed, "noise")) for seed in (5, 8)])
    lowest = 3 * 0.001 / (1 + 2 * 0.001)
    even = torch.linspace(1, lowest, 6, dtype=torch.float64)
    sigmas = torch.cat([3 * even / (1 + 2 * even), torch.zeros(1, dtype=torch.float64)]).float()
    for sigma, following in pairwise(sigmas):
        velocity = Velocity().predict(latents, (1000 * sigma).expand(2), ask_of([5, 8]))
        latents = latents + (following - sigma) * velocity
    assert torch.allclose(walked(FLOW, [5, 8]), latents, atol=1e-5)


def test_a_straight_flow_ends_at_the_clean_latents():
    clean, noise = torch.linspace(-1, 1, 16).view(1, 1, 4, 4), torch.randn(1, 1, 4, 4)
    scheduler, latents = build_scheduler("flow-euler", FLOW, 9), noise
    for timestep in scheduler.timesteps:
        latents = scheduler.step(noise - clean, timestep, latents).prev_sample
    assert torch.allclose(latents, clean, atol=1e-5)


@pytest.mark.parametrize(("name", "config"), [*ALL, ("flow-euler", FLOW | {"stochastic_sampling": True})])
def test_a_row_does_not_depend_on_its_batch(name, config):
    together = walked(config, [3, 0, 7], name=name)
    alone = torch.cat([walked(config, [seed], name=name) for seed in (3, 0, 7)])
    assert torch.isfinite(together).all()
    assert torch.allclose(together, alone, atol=1e-6 * max(1.0, float(together.abs().max())))
    assert not torch.allclose(together[0], together[1])


def test_stochastic_steps_draw_from_the_rows_generators():
    assert not torch.allclose(walked(FLOW | {"stochastic_sampling": True}, [3]), walked(FLOW, [3]), atol=0.1)


@pytest.mark.parametrize(("name", "config"), ALL)
def test_every_run_has_a_scheduler_of_its_own(name, config):
    assert torch.equal(walked(config, [2], name=name), walked(config, [2], name=name))


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("config", [FLOW, DIFFUSION | {"prediction_type": "flow_prediction"}], ids=["class", "type"])
def test_a_flow_matching_model_refuses_diffusion_samplers(name, config):
    with pytest.raises(InputError) as refused:
        build_scheduler(name, config, 5)
    assert str(refused.value) == (
        f"sample.scheduler or collect.scheduler '{name}' cannot walk a flow-matching model; allowed: flow-euler"
    )
    assert allowed_samplers(config) == ("flow-euler",)
    assert is_flow_matching(config)


def test_a_diffusion_model_refuses_flow_samplers():
    with pytest.raises(InputError) as refused:
        build_scheduler("flow-euler", DIFFUSION, 5)
    assert str(refused.value) == (
        "sample.scheduler or collect.scheduler 'flow-euler' cannot walk a diffusion model that is not flow matching; "
        "allowed: ddim, ddpm, dpm-solver++, euler"
    )
    assert allowed_samplers(DIFFUSION) == tuple(CLASSES)
    assert not is_flow_matching(DIFFUSION)


def test_the_fixed_shift_of_a_multistep_solvers_configuration_is_kept():
    solver = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    assert torch.equal(
        build_scheduler("flow-euler", stored(solver), 7).sigmas, build_scheduler("flow-euler", FLOW, 7).sigmas
    )


@pytest.mark.parametrize("tokens", [256, 1024, 4096])
def test_a_shift_by_image_size_is_the_stock_pipelines(tokens):
    config = FLOW | {"use_dynamic_shifting": True, "base_shift": 0.4, "max_shift": 1.3}
    stock = FlowMatchEulerDiscreteScheduler.from_config(config)
    stock.set_timesteps(8, mu=calculate_shift(tokens, 256, 4096, 0.4, 1.3))
    ours = build_scheduler("flow-euler", config | {IMAGE_TOKENS: tokens}, 8)
    assert torch.equal(ours.timesteps, stock.timesteps)
    assert torch.equal(ours.sigmas, stock.sigmas)


def test_a_shift_by_an_unknown_image_size_is_refused():
    with pytest.raises(InputError, match="use_dynamic_shifting, but its network does not say") as refused:
        build_scheduler("flow-euler", FLOW | {"use_dynamic_shifting": True}, 8)
    assert "\n" not in str(refused.value)


def test_the_noise_level_is_edms_sigma_for_every_sort_of_model():
    diffusion, flow = DDPMScheduler(), {"_class_name": "FlowMatchEulerDiscreteScheduler"}
    config = stored(diffusion)
    alphas = diffusion.alphas_cumprod
    sigmas = ((1 - alphas) / alphas).sqrt()
    assert torch.allclose(noise_level(config, torch.tensor([0.0, 500.0, 999.0])), sigmas[[0, 500, 999]])
    between = noise_level(config, torch.tensor([500.25]))
    assert sigmas[500] < between < sigmas[501]
    assert torch.allclose(noise_level(flow, torch.tensor([250.0, 500.0])), torch.tensor([1 / 3, 1.0]))
    terminal = config | {"rescale_betas_zero_snr": True}
    assert noise_level(terminal, torch.tensor([999.0])) == torch.inf


@pytest.mark.parametrize("steps", [1, 7, 50])
@pytest.mark.parametrize(("name", "config"), ALL)
def test_noised_latents_are_those_of_the_forward_process_at_every_step(name, config, steps):
    """By sigma = noise over signal: what the network takes has variance 1 for variance 1, or lies between the two."""
    scheduler, draws = build_scheduler(name, config, steps), torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(3, 2, 4, 4, generator=draws) for _ in range(2))
    for index, timestep in enumerate(scheduler.timesteps):
        sigma = noise_level(config, timestep[None].float())
        whole = 1 + sigma if is_flow_matching(config) else (1 + sigma**2).sqrt()
        expected = noise if sigma.isinf() else (clean + sigma * noise) / whole
        assert torch.allclose(noised_input(scheduler, index, clean, noise), expected, atol=2e-5)


@pytest.mark.parametrize(("name", "config"), ALL)
def test_noising_leaves_the_sampler_as_it_is(name, config):
    scheduler, untouched = build_scheduler(name, config, 5), build_scheduler(name, config, 5)
    for index in (3, 0, 3):
        noised_input(scheduler, index, torch.ones(1, 2, 4, 4), torch.ones(1, 2, 4, 4))
    for each in (scheduler, untouched):
        assert getattr(each, "step_index", None) is getattr(each, "begin_index", None) is None
    assert torch.equal(scheduler.timesteps, untouched.timesteps)


def test_steps_of_one_timestep_are_told_apart_by_their_number():
    scheduler = build_scheduler("euler", DIFFUSION, 3)
    scheduler.timesteps[1] = scheduler.timesteps[0]
    first, second = (noised_input(scheduler, at, torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)) for at in (0, 1))
    assert second.mean() > 5 * first.mean()
