"""Samplers are diffusers' schedulers; a further one is one line in `_SCHEDULERS`.

Schedulers differ in what they offer and expect. What the denoising loop asks of one it asks the scheduler itself, and
knows no names.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, get_args

import diffusers
import torch
from torch import Tensor

from agd_core.basics.errors import InputError, first_line

SchedulerName = Literal["ddim", "ddpm", "dpm-solver++", "euler", "flow-euler"]

IMAGE_TOKENS = "image_tokens"
"""Key that a flow-matching model adds to its scheduler configuration: how many tokens its transformer makes of one
latent. A schedule with `use_dynamic_shifting` is shifted by it."""

_LEARNED = ("learned", "learned_range")


@dataclass(frozen=True)
class _Sampler:
    class_name: str
    """A scheduler of diffusers."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """What it takes otherwise than the base model's configuration says."""
    flow: bool = False
    """Whether it walks flow-matching models; the others walk diffusion models."""


_SCHEDULERS: dict[SchedulerName, _Sampler] = {
    "ddim": _Sampler("DDIMScheduler"),
    "ddpm": _Sampler("DDPMScheduler"),
    "dpm-solver++": _Sampler("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "variance_type": None}),
    "euler": _Sampler("EulerDiscreteScheduler"),
    "flow-euler": _Sampler("FlowMatchEulerDiscreteScheduler", flow=True),
}


def build_scheduler(name: SchedulerName, base_config: dict[str, Any], steps: int) -> Any:
    """A diffusers scheduler with the base model's noise schedule, set to `steps` inference steps.

    It may keep state from step to step, so every run of the loop needs one of its own.

    Args:
        name: the sampler.
        base_config: the base model's diffusers scheduler configuration, see also `IMAGE_TOKENS`.
        steps: inference steps.

    Raises:
        InputError: the sampler is of another sort than the model, cannot be made from its schedule or divides zero by
            zero on it, or the schedule shifts with an unknown image size.
    """
    sampler = _SCHEDULERS[name]
    if sampler.flow != is_flow_matching(base_config):
        raise InputError(_other_sort(name, flow=not sampler.flow))
    config = {key: value for key, value in base_config.items() if key != IMAGE_TOKENS}
    overrides = sampler.overrides | (_fixed_shift(base_config) if sampler.flow else {})
    try:
        scheduler = getattr(diffusers, sampler.class_name).from_config(config, **overrides)
        scheduler.set_timesteps(steps, **_shift_by_size(scheduler.config, base_config) if sampler.flow else {})
    except InputError:
        raise
    except (ArithmeticError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"sampler {name!r} cannot be made from the base model's scheduler configuration: {first_line(error)}"
        ) from error
    _check_zero_snr(name, scheduler)
    return scheduler


def _check_zero_snr(name: SchedulerName, scheduler: Any) -> None:
    """No step divides zero by zero: where nothing of the image is left, the noise says nothing about it."""
    if scheduler.config.get("prediction_type") != "epsilon" or not hasattr(scheduler, "alphas_cumprod"):
        return
    dead = [int(timestep) for timestep in scheduler.timesteps if scheduler.alphas_cumprod[int(timestep)] == 0]
    if dead:
        raise InputError(
            f"sampler {name!r}: its step at timestep {dead[0]} has zero terminal SNR (rescale_betas_zero_snr of the "
            "base model's scheduler), where a prediction of epsilon says nothing about the image (0/0); allowed there: "
            "prediction_type v_prediction, timestep_spacing leading, or another sampler: dpm-solver++, euler"
        )


def is_flow_matching(base_config: Mapping[str, Any]) -> bool:
    """Whether a model with this diffusers scheduler configuration was trained by flow matching."""
    named = "FlowMatch" in str(base_config.get("_class_name", ""))
    return named or base_config.get("prediction_type") == "flow_prediction"


def noise_level(base_config: Mapping[str, Any], timestep: Tensor) -> Tensor:
    """How noisy latents are at a timestep: the noise's standard deviation over the factor of the clean latents.

    This is sigma as EDM has it (https://arxiv.org/abs/2206.00364), from 0 to infinity and the same for every sort of
    model, whatever a sampler scales its latents by.

    Args:
        base_config: the base model's diffusers scheduler configuration.
        timestep: `[batch]`, what the network is handed; what lies between two training steps is interpolated.
    """
    if is_flow_matching(base_config):
        noise = timestep / float(base_config.get("num_train_timesteps", 1000))
        return noise / (1 - noise)
    alphas = _alphas(json.dumps(base_config, sort_keys=True, default=str)).to(timestep.device)
    below = timestep.long().clamp(0, len(alphas) - 1)
    above = (below + 1).clamp(max=len(alphas) - 1)
    alpha = torch.lerp(alphas[below], alphas[above], timestep - below)
    return ((1 - alpha) / alpha).sqrt()


@lru_cache(maxsize=8)
def _alphas(base_config: str) -> Tensor:
    """How much of the clean latents' variance is left after every training step."""
    alphas: Tensor = diffusers.DDPMScheduler.from_config(json.loads(base_config)).alphas_cumprod
    return alphas


def allowed_samplers(base_config: dict[str, Any]) -> tuple[SchedulerName, ...]:
    """The samplers that can walk a model with this diffusers scheduler configuration."""
    flow = is_flow_matching(base_config)
    return tuple(name for name in get_args(SchedulerName) if _SCHEDULERS[name].flow == flow)


def initial_noise_scale(scheduler: Any) -> Tensor | float:
    """What standard normal noise is multiplied by to become the first latents; flow matching takes it as it is."""
    scale: Tensor | float = getattr(scheduler, "init_noise_sigma", 1.0)
    return scale


def network_input(scheduler: Any, latents: Tensor, timestep: Tensor) -> Tensor:
    """What the network receives for these latents; schedulers that have no input scaling hand them over unchanged."""
    scale = getattr(scheduler, "scale_model_input", None)
    scaled: Tensor = latents if scale is None else scale(latents, timestep)
    return scaled


def noised_input(scheduler: Any, index: int, clean: Tensor, noise: Tensor) -> Tensor:
    """What the network receives for clean latents that were noised to the level of one step of a sampler.

    A draw of q(x_t | x_0) by the scheduler's own `add_noise` (https://arxiv.org/abs/2006.11239, equation 4), or, of
    flow matching, `scale_noise` (a point between image and noise, https://arxiv.org/abs/2209.03003); then scaled as for
    the network.

    Args:
        scheduler: its timesteps are set; it is left as it is.
        index: of the step.
        clean: x_0, `[batch, *latent_shape]`.
        noise: standard normal, of the same shape.
    """
    alone, timestep = copy(scheduler), scheduler.timesteps[index]
    if hasattr(alone, "set_begin_index"):  # these know a step by its number: two may have the same timestep
        alone.set_begin_index(index)
    timesteps = timestep.expand(len(clean)).to(clean.device)
    if hasattr(alone, "scale_noise"):
        return network_input(alone, alone.scale_noise(clean, timesteps, noise), timestep)
    return network_input(alone, alone.add_noise(clean, noise, timesteps), timestep)


def step_arguments(scheduler: Any, generators: Sequence[torch.Generator]) -> dict[str, Any]:
    """What `scheduler.step` takes beside the prediction: one generator per row where it may draw noise."""
    return {"generator": generators} if "generator" in inspect.signature(scheduler.step).parameters else {}


def scheduler_output(scheduler: Any, prediction: Tensor, channels: int) -> Tensor:
    """What `scheduler.step` is to be given of a prediction: all of it where it samples with the learned variance.

    Args:
        scheduler: a diffusers scheduler.
        prediction: `[batch, channels, height, width]`, or twice the channels with a learned variance behind.
        channels: of a latent.

    Raises:
        InputError: the scheduler samples with a learned variance and the prediction has none.
    """
    if not takes_learned_variance(scheduler):
        return prediction[:, :channels]
    if prediction.shape[1] != 2 * channels:
        raise InputError(
            f"the sampler's variance_type is {scheduler.config.variance_type!r}, but predictions have "
            f"{prediction.shape[1]} channels and no variance; allowed: {2 * channels} channels, or 'fixed_small'"
        )
    return prediction


def takes_learned_variance(scheduler: Any) -> bool:
    """Whether the scheduler samples with a variance that the network predicts.

    The class counts as well: every scheduler keeps the configuration's `variance_type`, used or not.
    """
    return isinstance(scheduler, diffusers.DDPMScheduler) and scheduler.config.variance_type in _LEARNED


def _other_sort(name: SchedulerName, flow: bool) -> str:
    model = "a flow-matching model" if flow else "a diffusion model that is not flow matching"
    allowed = ", ".join(other for other in get_args(SchedulerName) if _SCHEDULERS[other].flow == flow)
    return f"sample.scheduler or collect.scheduler {name!r} cannot walk {model}; allowed: {allowed}"


def _fixed_shift(base_config: dict[str, Any]) -> dict[str, float]:
    """The shift as diffusers' flow-matching schedulers name it; its multistep solvers name it `flow_shift`."""
    return {"shift": base_config["flow_shift"]} if "flow_shift" in base_config and "shift" not in base_config else {}


def _shift_by_size(config: Any, base_config: dict[str, Any]) -> dict[str, float]:
    """The shift of a schedule that depends on the image's size: linear in its tokens, as StableDiffusion3Pipeline's."""
    if not config.use_dynamic_shifting:
        return {}
    if IMAGE_TOKENS not in base_config:
        raise InputError(
            "the base model's scheduler has use_dynamic_shifting, but its network does not say how large an image is; "
            "allowed: use_dynamic_shifting false with a fixed shift in scheduler_config.json"
        )
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    return {"mu": config.base_shift + slope * (base_config[IMAGE_TOKENS] - config.base_image_seq_len)}
