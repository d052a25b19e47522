"""Which base models' schedules our samplers walk as the model was trained, decided by what is known of their scheduler.

A network means something only along the schedule that it was trained on: how noisy an input is at a timestep, how it is
scaled, and what the answer stands for. Samplers are made from the configuration of the base model's own scheduler. A
class that is not listed here may mean something else by the same words: EDM preconditions its network, CogVideoX's
scheduler shifts its signal-to-noise ratio.
"""

import inspect
import math
from collections.abc import Mapping
from typing import Any

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable

_DIFFUSION = (
    "DDIMScheduler",
    "DDPMScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
)
_FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
_BOTH = (
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
)
"""Solvers that walk flow matching too, where `use_flow_sigmas` says so."""
KNOWN = (*_DIFFUSION, *_BOTH, *_FLOW)
"""Schedulers of diffusers whose configuration says all about the schedule that a model was trained on."""
_BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
_PREDICTIONS = ("epsilon", "v_prediction", "sample")
_FLOW_PREDICTION = "flow_prediction"
_POSITIVE = ("shift", "flow_shift", "base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len")


def check_schedule(base_config: Mapping[str, Any], named: str | None, where: str) -> None:
    """Our samplers walk this schedule as the model was trained.

    Args:
        base_config: the base model's diffusers scheduler configuration.
        named: the scheduler's class as the pipeline's model_index.json has it, None where it names none.
        where: the base model, for messages.

    Raises:
        InputError: they do not, with the class and what is allowed.
    """
    classes = [str(name) for name in (named, base_config.get("_class_name")) if name] or ["of no name"]
    if unknown := [name for name in classes if name not in KNOWN]:
        raise InputError(
            f"{where}: its scheduler {printable(unknown[0])} is none that we can walk; allowed: {', '.join(KNOWN)}"
        )
    for name in classes:
        if reason := _odd_prediction(name, base_config) or _odd_numbers(name, base_config):
            raise InputError(f"{where}: its scheduler {name} is one that we cannot walk: {reason}")


def _odd_prediction(name: str, config: Mapping[str, Any]) -> str | None:
    said, flow_sigmas = config.get("prediction_type", "epsilon"), bool(config.get("use_flow_sigmas"))
    if name in _FLOW:
        return "invert_sigmas is true, allowed: false" if config.get("invert_sigmas") else None
    allowed = (*_PREDICTIONS, _FLOW_PREDICTION) if name in _BOTH else _PREDICTIONS
    if said not in allowed:
        return f"prediction_type is {said!r}, allowed: {', '.join(allowed)}"
    if flow_sigmas != (said == _FLOW_PREDICTION):
        return (
            f"prediction_type {said} with use_flow_sigmas {str(flow_sigmas).lower()}; allowed: both of flow, or neither"
        )
    if (kind := config.get("timestep_type", "discrete")) != "discrete":
        return f"timestep_type is {kind!r}, allowed: 'discrete'"
    return None


def _odd_numbers(name: str, config: Mapping[str, Any]) -> str | None:
    for key in _POSITIVE:
        value = config.get(key)
        if value is not None and not (_is_number(value) and value > 0):
            return f"{key} is {value!r}, allowed: a number above 0"
    if config.get("use_dynamic_shifting") and config.get("base_image_seq_len") == config.get("max_image_seq_len", 4096):
        return "base_image_seq_len and max_image_seq_len are equal"
    steps = config.get("num_train_timesteps", 1000)
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        return f"num_train_timesteps is {steps!r}, allowed: a whole number above 0"
    return None if name in _FLOW else _odd_betas(name, config, steps)


def _odd_betas(name: str, config: Mapping[str, Any], steps: int) -> str | None:
    if (betas := config.get("trained_betas")) is not None:
        fits = (
            isinstance(betas, list)
            and len(betas) == steps
            and all(_is_number(each) and 0 < each <= 1 for each in betas)
        )
        return None if fits else f"trained_betas must be {steps} numbers in (0, 1]"
    for key in ("beta_start", "beta_end"):
        if key in config and not (_is_number(config[key]) and 0 < config[key] < 1):
            return f"{key} is {config[key]!r}, allowed: a number between 0 and 1"
    if unsaid := [key for key in _BETAS if key not in config and _default(name, key) != _default(_DIFFUSION[0], key)]:
        return f"it does not say its {unsaid[0]}, and other schedulers take another one by default"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _default(name: str, key: str) -> Any:
    import diffusers

    parameter = inspect.signature(getattr(diffusers, name).__init__).parameters.get(key)
    return None if parameter is None else parameter.default
