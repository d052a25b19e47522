"""How many network evaluations work takes, step by step, before any of it is done."""

import torch

from agd_core.data.trajectory import network_evaluations
from agd_core.guidance import Guidance
from agd_core.models.ask import Ask
from agd_core.models.schedulers import SchedulerName, build_scheduler
from flows.run import Run


def evaluations_by_step(run: Run, rule: Guidance, scheduler: SchedulerName, steps: int, scale: float) -> list[int]:
    """Those of the base model under a rule, for one row at each of a sampler's steps."""
    timesteps = build_scheduler(scheduler, run.model.scheduler_config, steps).timesteps
    null, device = run.model.null_condition(1), run.model.device
    ask = Ask(null, null, torch.tensor([scale], device=device))  # no rule looks at a condition to be counted
    return run.guided(rule).evaluations(timesteps.to(device, torch.float32), ask)


def collection_evaluations(run: Run) -> int:
    """Those of all trajectories; images that the teacher makes to be noised are in it."""
    config = run.collect
    scale = config.guidance_scale_max
    by_step = evaluations_by_step(run, run.config.guidance, config.scheduler, config.steps, scale)
    return network_evaluations(config, run.states, by_step)
