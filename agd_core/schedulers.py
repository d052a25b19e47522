"""Samplers are diffusers' schedulers; a further one is one line in `_SCHEDULERS`."""

from typing import Any, Literal

import diffusers

SchedulerName = Literal["ddim", "ddpm", "dpm-solver++", "euler"]

_SCHEDULERS = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {"variance_type": "fixed_small"}),
    "dpm-solver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "euler": ("EulerDiscreteScheduler", {}),
}


def build_scheduler(name: SchedulerName, base_config: dict[str, Any], steps: int) -> Any:
    """A diffusers scheduler with the base model's noise schedule, set to `steps` inference steps."""
    class_name, overrides = _SCHEDULERS[name]
    scheduler = getattr(diffusers, class_name).from_config(base_config, **overrides)
    scheduler.set_timesteps(steps)
    return scheduler
