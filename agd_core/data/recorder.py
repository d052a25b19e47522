"""Handing what the teacher was asked and answered to a unit's writer, in the stored type."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from agd_core.basics.errors import NumericError
from agd_core.basics.progress import ShouldStop, Stopped
from agd_core.data.dataset import TORCH_TYPES
from agd_core.data.records import CollectionPlan, PlannedTrajectory, UnitWriter
from agd_core.models.denoising import Step


@dataclass(frozen=True)
class Recorder:
    """Hands what is wanted of one batch to the unit's writer."""

    batch: Sequence[PlannedTrajectory]
    wanted: Collection[int]
    writer: UnitWriter
    plan: CollectionPlan
    sampler: str
    """Its name, for messages."""
    network_dtype: torch.dtype
    should_stop: ShouldStop

    @property
    def dtype(self) -> torch.dtype:
        """The stored type."""
        return TORCH_TYPES[self.plan.dtype]

    @cached_property
    def slots(self) -> np.ndarray:
        """Where a step lies among the trajectory's kept ones, int64 `[batch, steps]`; -1 where it is not kept."""
        slots = np.full((len(self.batch), len(self.plan.timesteps)), -1)
        for row, trajectory in enumerate(self.batch):
            if trajectory.index in self.wanted:
                slots[row, list(trajectory.steps)] = range(len(trajectory.steps))
        return slots

    def poll(self) -> None:
        """End the work here where somebody asked for that.

        Raises:
            Stopped: somebody did.
        """
        if self.should_stop():
            raise Stopped("stopped within a unit of work; run the same command again to resume")

    def keep(self, step: Step, rows: Sequence[int] | None = None) -> None:
        """Write what is kept and wanted of this step.

        Args:
            step: some rows of the batch.
            rows: which; None: all of them.
        """
        self.poll()
        asked = np.arange(len(self.batch)) if rows is None else np.asarray(rows)
        slots = self.slots[asked, step.index]
        kept = np.flatnonzero(slots >= 0)
        if kept.size:
            predicted = torch.split(step.prediction[kept], self.plan.latent_shape[0], dim=1)
            at = (
                f"at step {step.index + 1} of {len(self.plan.timesteps)} of {self.sampler} (timestep {step.timestep:g})"
            )
            pairs = _carried(torch.stack([step.latents[kept], *predicted], dim=1), self.dtype, at, self.network_dtype)
            for row, slot, pair in zip(asked[kept].tolist(), slots[kept].tolist(), pairs, strict=True):
                self.writer.put(self.batch[row].index, slot, pair)


def _carried(pairs: Tensor, dtype: torch.dtype, at: str, network_dtype: torch.dtype) -> np.ndarray:
    """Pairs `[rows, latents and predictions, ...]` in the stored type, as the numpy type that carries it."""
    stored = pairs.to(dtype)
    if not torch.isfinite(stored).all():
        raise NumericError(f"{_not_finite(pairs, dtype, network_dtype)} {at}")
    stored = stored.cpu()
    carried: np.ndarray = (stored.view(torch.uint16) if dtype is torch.bfloat16 else stored).numpy()
    return carried


def _not_finite(pairs: Tensor, dtype: torch.dtype, network_dtype: torch.dtype) -> str:
    """Why: the latents were rounded to the stored type before the network saw them, its answer was not."""
    latents, answers = pairs[:, 0], pairs[:, 1:]
    if latents.isnan().any() or (dtype is torch.float32 and latents.isinf().any()):
        return "the sampler's step before made the latents NaN or infinite (is the base model's scheduler right?)"
    if torch.isfinite(latents).all() and not torch.isfinite(answers).all():
        advice = (
            "base_model.dtype float32 has a wider range" if network_dtype is torch.float16 else "are its weights whole?"
        )
        return f"the network's answer is NaN or infinite ({advice})"
    name = str(dtype).removeprefix("torch.")
    return f"a latent or prediction does not fit {name} (collect.dtype; float32 holds it)"
