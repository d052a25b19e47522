"""The authors' trajectory folder, re-implemented to measure against: what our store has to beat.

One folder per trajectory: a headerless float16 memory map of all its steps, and one `torch.save` file of conditions.
Both are opened again for every item that is read (github.com/cristianpjensen/agd, sample_trajectories.py, train.py).
Here it stores the same two slots per step as ours (the authors keep a third for DiT's variance) and loads with
`weights_only=True`.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from agd_core.data.records import CollectionPlan

Batch = tuple[torch.Tensor, dict[str, torch.Tensor]]


def write_trajectories(root: Path, plan: CollectionPlan, pairs: np.ndarray) -> None:
    """Write every trajectory of a plan, its steps taken in turn from `pairs` `[any, 2, C, H, W]`."""
    for trajectory in plan.trajectories:
        folder = root / f"{trajectory.index:06d}"
        folder.mkdir(parents=True)
        conditions = {
            name: torch.from_numpy(table[[trajectory.rows["condition"]]]) for name, table in plan.conditions.items()
        }
        torch.save(conditions | dict(trajectory.scalars), folder / "conditioning.pt")
        shape = (plan.stored_steps, *plan.pair_shape)
        stored = np.memmap(folder / "trajectory.npy", np.float16, "w+", shape=shape)
        for step in range(plan.stored_steps):
            stored[step] = pairs[(trajectory.index + step) % len(pairs)]
        stored.flush()


def read_batch(root: Path, plan: CollectionPlan, pairs: np.ndarray) -> Batch:
    """A training batch, one item after the other as the authors' dataset and the default collate function do."""
    items = [_item(root, plan, *divmod(pair, plan.stored_steps)) for pair in pairs.tolist()]
    conditions = {name: torch.cat([condition[name] for _, condition in items]) for name in plan.conditions}
    return torch.stack([latents for latents, _ in items]), conditions


def files(root: Path) -> Iterator[Path]:
    """Every file of it."""
    return (path for path in root.rglob("*") if path.is_file())


def _item(root: Path, plan: CollectionPlan, trajectory: int, slot: int) -> Batch:
    folder = root / f"{trajectory:06d}"
    shape = (plan.stored_steps, *plan.pair_shape)
    stored = np.memmap(folder / "trajectory.npy", np.float16, "r", shape=shape)
    condition = torch.load(folder / "conditioning.pt", weights_only=True)
    return torch.from_numpy(stored[slot].copy()), condition
