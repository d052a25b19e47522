"""How long a training has taken, whatever interrupted it, in a small file beside the adapter."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn
from typing_extensions import TypedDict

from agd_core.basics.atomic import write_json
from agd_core.basics.checkpoint import Checkpoint
from agd_core.basics.safe_files import read_json
from storage.artefacts import Artefact

TRAINING = "training.json"
_UNTIL = "checkpoint_seconds.json"


class TrainingTime(TypedDict):
    """What the file of a finished training holds."""

    seconds: Annotated[float, Field(ge=0)] | None
    """Wall time of all its steps and checkpoints; what a kill threw away and was made again counts once. None where it
    went on from a checkpoint that said nothing of time."""
    device: str


class TimedCheckpoint(Checkpoint):
    """A checkpoint with the seconds that the training took until then, in a file beside it.

    Args:
        path: as in `Checkpoint`.
        digest: as in `Checkpoint`.
        clock: in seconds.
    """

    def __init__(self, path: Path, digest: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(path, digest)
        self._clock, self._begun = clock, clock()
        self._before: float | None = 0.0
        self._until = path.with_name(_UNTIL)

    @property
    def seconds(self) -> float | None:
        """Of the training until now; None where nobody knows."""
        return None if self._before is None else self._before + self._clock() - self._begun

    def load(
        self,
        modules: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        position_at: Callable[[int], Mapping[str, Any] | None] = lambda step: None,
    ) -> tuple[int, list[float]]:
        """As `Checkpoint.load`; the clock goes on from there."""
        found = super().load(modules, optimizer, position_at)
        self._before = self._seconds_before() if self.path.exists() else 0.0
        self._begun = self._clock()
        return found

    def save(
        self,
        step: int,
        losses: list[float],
        modules: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        position: Mapping[str, Any] | None = None,
    ) -> None:
        """As `Checkpoint.save`."""
        super().save(step, losses, modules, optimizer, position)
        write_json({"seconds": self.seconds}, self._until)

    def remove(self) -> None:
        """As `Checkpoint.remove`."""
        super().remove()
        self._until.unlink(missing_ok=True)

    def _seconds_before(self) -> float | None:
        content = read_json(self._until) if self._until.exists() else {}
        seconds = content.get("seconds") if isinstance(content, dict) else None
        return float(seconds) if isinstance(seconds, int | float) else None


def read_training_time(artefact: Artefact) -> TrainingTime | None:
    """How long an adapter's training took; None for one of a version that did not say."""
    return artefact.json(TRAINING, TrainingTime) if (artefact.path / TRAINING).exists() else None
