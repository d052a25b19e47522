"""A small store of random pairs, as training reads a collection's: for those who time its steps."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from agd_core.data.dataset import TORCH_TYPES
from agd_core.data.records import CARRIERS, CollectionPlan
from agd_core.data.trajectory import plan_collection
from flows.run import Run
from storage.objects import LocalObjects
from storage.trajectories.zarr_store import ZarrTrajectoryStore


def store_of_random_pairs(run: Run, pairs: int, folder: Path) -> ZarrTrajectoryStore:
    """At least so many pairs of the run's shapes and stored type; nothing is encoded or collected for it."""
    store = ZarrTrajectoryStore.prepare(LocalObjects(folder), plan := _plan(run, pairs))
    for unit in range(plan.units):
        with store.write_unit(unit) as writer:
            for trajectory in plan.unit(unit):
                for slot in range(plan.stored_steps):
                    writer.put(trajectory.index, slot, _random_pair(plan))
    return store


def _plan(run: Run, pairs: int) -> CollectionPlan:
    """Every subject is "no condition"; of prompts one is enough."""
    subjects = replace(run.collected, prompts=run.collected.prompts[:1])
    conditions = subjects.null(len(subjects) + 1).to_arrays()
    config = run.config.collect
    trajectories = math.ceil(pairs / config.stored_steps)
    sized = config.model_copy(update={"trajectories": trajectories})
    return plan_collection(sized, subjects, {"random pairs": pairs}, conditions)


def _random_pair(plan: CollectionPlan) -> np.ndarray:
    values = torch.randn(plan.pair_shape).to(TORCH_TYPES[plan.dtype])
    return values.view(torch.uint8).numpy().view(CARRIERS[plan.dtype])
