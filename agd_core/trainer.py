"""Stage 2's core: train an adapter on stored guided predictions (AGD, arXiv 2503.07274, Algorithm 2)."""

from collections.abc import Callable

import torch
from pydantic import Field
from torch import nn

from agd_core.adapters import Adapter
from agd_core.base_models.base import BaseModel
from agd_core.checkpoint import Checkpoint
from agd_core.config import Config
from agd_core.order import batch_indices
from agd_core.progress import Progress, ShouldStop, never, silent
from agd_core.records import INPUT, TARGET, TrajectoryReader
from agd_core.student import Student
from agd_core.training_loop import Loop, LoopConfig


class TrainConfig(Config):
    """How an adapter is trained. The paper: Adam without weight decay, 10 % linear warm-up, cosine decay."""

    steps: int = Field(5000, ge=1)
    """Gradient steps (the paper: 5000 for DiT-XL/2)."""
    batch_size: int = Field(64, ge=1)
    """Stored (state, guided prediction) pairs per step (the paper: 64 for DiT-XL/2)."""
    learning_rate: float = Field(1e-4, gt=0, le=1)
    """Peak learning rate (the paper: 1e-4)."""
    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    """Part of the steps over which the learning rate rises linearly."""
    max_gradient_norm: float | None = Field(None, gt=0)
    """Clip gradients to this norm; None, as in the paper, does not clip."""
    seed: int = Field(0, ge=0)
    """Seeds the adapter's initial weights and the order of training pairs."""


def train_adapter(
    base_model: BaseModel,
    adapter: Adapter,
    reader: TrajectoryReader,
    config: TrainConfig,
    checkpoint: Checkpoint,
    on_progress: Progress = silent,
    should_stop: ShouldStop = never,
) -> list[float]:
    """Train in place, from the last checkpoint if there is one; return the loss of every step.

    No teacher is needed: its answers are in the store.

    Raises:
        Stopped: after a checkpoint, when `should_stop` answered True.
    """
    loop_config = LoopConfig(config.steps, config.learning_rate, config.warmup_fraction, config.max_gradient_norm)
    optimizer = torch.optim.Adam(adapter.parameters(), lr=config.learning_rate)
    with Student(base_model) as student:
        student.add("trained", adapter)
        loss_at = _distillation_loss(student, reader, config)
        return Loop(loop_config, {"adapter": adapter}, optimizer, loss_at, checkpoint).run(on_progress, should_stop)


def _distillation_loss(
    student: Student, reader: TrajectoryReader, config: TrainConfig
) -> Callable[[int], torch.Tensor]:
    base_model = student.base_model
    device = base_model.device

    def loss_at(step: int) -> torch.Tensor:
        batch = reader.read(batch_indices(reader.pairs, config.batch_size, config.seed, step).numpy())
        latents = torch.from_numpy(batch.latents).to(device).float()
        prediction = student.predict(
            latents[:, INPUT],
            torch.from_numpy(batch.timesteps).to(device),
            base_model.class_condition(batch.class_labels.tolist()),
            torch.from_numpy(batch.guidance_scales).to(device),
        )
        return nn.functional.mse_loss(prediction, latents[:, TARGET])

    return loss_at
