"""Does collecting only what training reads cost quality? Held-out error of smaller plans against the full recipe.

Full recipe: the authors' DiT setting (DDPM, 1000 steps, every step stored), 320 trajectories of the built-in teacher.
The plans are sized from the training settings and have a tenth of its network evaluations and bytes. All train the
same adapter with the same settings. The error is the mean square difference between student and guided teacher on
held-out trajectories of the full recipe (another seed), as a share of the unguided base model's.

    python benchmarks/plan_against_full_recipe.py --output /tmp/plan --seeds 2
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch

from agd_core.data.dataset import latents_tensor, tensor_of
from agd_core.data.records import INPUT, TARGET
from agd_core.methods.adapter_files import load_student
from agd_core.models.ask import Ask
from agd_core.models.condition import Condition
from agd_core.models.denoiser import Denoiser
from agd_core.models.model import BaseModel
from flows.presets import load_config
from flows.run import Run
from flows.stages.collect import collect
from flows.stages.distill import train_all
from flows.stages.trajectories import open_trajectories
from flows.terminal import Terminal
from flows.workplace import Workplace
from storage.trajectories.zarr_store import ZarrTrajectoryStore

COMMON = ("methods=[{kind: agd-modulated-mlp}]", "train.batch_size=64", "train.learning_rate=0.002")
FULL = ("collect.scheduler=ddpm", "collect.steps=1000", "collect.kept_steps=null", "collect.trajectories=320")
PLANS = {
    "full recipe": FULL,
    "sized, ddpm, 50 steps": (*FULL, "collect.steps=50", "collect.trajectories=null"),
    "sized, ddim, 50 steps": (*FULL, "collect.scheduler=ddim", "collect.steps=50", "collect.trajectories=null"),
}
HELD_OUT = (*FULL, "collect.kept_steps=50", "collect.trajectories=60", "collect.seed=1000")
BATCH = 500


def held_out_error(base_model: BaseModel, student: Denoiser, store: ZarrTrajectoryStore) -> float:
    """Mean square error of the student's prediction, as a share of the base model's."""
    return square_error(student, store, base_model.device) / square_error(base_model, store, base_model.device)


@torch.no_grad()
def square_error(denoiser: Denoiser, store: ZarrTrajectoryStore, device: torch.device) -> float:
    """Of a denoiser's prediction against the stored one, summed over all stored pairs."""
    total, conditions = 0.0, Condition.from_arrays(store.plan.conditions, device)
    for first in range(0, store.plan.pairs, BATCH):
        batch = store.read(np.arange(first, min(first + BATCH, store.plan.pairs)))
        latents = latents_tensor(batch.latents, store.plan.dtype, device)
        ask = Ask.of_columns(conditions, batch.rows, batch.scalars, device)
        error = denoiser.predict(latents[:, INPUT], tensor_of(batch.timesteps, device), ask)
        total += float((error - latents[:, TARGET:].flatten(1, 2)).square().sum())
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2000)
    arguments = parser.parse_args()
    with Terminal() as terminal:
        place = Workplace(
            arguments.output, announce=terminal.announce, progress=terminal.progress, should_stop=terminal.should_stop
        )
        base_model = Run(load_config("fashion-dit"), place).check().model
        held_out = open_trajectories(collect(Run(load_config("fashion-dit", HELD_OUT), place, base_model)))
        print(
            "| plan | NFE | MB | held-out error by seed | mean | against full |\n| --- | --- | --- | --- | --- | --- |"
        )
        reference = None
        for name, overrides in PLANS.items():
            errors = []
            for seed in range(arguments.seeds):
                seeds = (f"collect.seed={seed}", f"train.seed={seed}", f"train.steps={arguments.steps}")
                config = load_config("fashion-dit", (*COMMON, *overrides, *seeds))
                trajectories = collect(Run(config, place, base_model))
                ((_, adapter),) = train_all(Run(config, place, base_model), trajectories)
                with load_student(base_model, adapter.path) as student:
                    errors.append(held_out_error(base_model, student, held_out))
            plan = open_trajectories(trajectories).plan
            evaluations = 2 * len(plan.trajectories) * config.collect.steps
            mean = statistics.mean(errors)
            reference = reference or mean
            listed = ", ".join(f"{error:.4f}" for error in errors)
            size = plan.pairs * plan.pair_bytes / 1e6
            print(
                f"| {name} | {evaluations:,} | {size:.2f} | {listed} | {mean:.4f} | {mean / reference:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
