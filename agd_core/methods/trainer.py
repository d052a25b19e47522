"""Stage 2's core: train a method on stored guided predictions (AGD, arXiv 2503.07274, Algorithm 2)."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from pydantic import Field, model_validator

from agd_core.basics.checkpoint import Checkpoint
from agd_core.basics.config import NOT_IDENTITY, Config
from agd_core.basics.progress import Progress, ShouldStop, never, silent
from agd_core.basics.seeding import derive_seed
from agd_core.data.ahead import Ahead
from agd_core.data.dataset import TrainingBatches, latents_tensor, tensor_of
from agd_core.data.order import BatchOrder
from agd_core.data.records import INPUT, TARGET, CollectionPlan, TrajectoryReader
from agd_core.methods import Pairs, Trained
from agd_core.methods.compiled import compiled
from agd_core.methods.offloaded_adam import OffloadedAdam
from agd_core.methods.own_training import BatchSize, LearningRate, OwnTraining, TrainingSeed, TrainingSteps
from agd_core.methods.training_loop import Loop, LoopConfig
from agd_core.models.ask import Ask
from agd_core.models.condition import Condition
from agd_core.models.model import BaseModel

_HALF_PRECISION_SCALE = 2.0**12
"""The loss is multiplied by it on its way through a float16 network: it is a mean over all latent elements, so each has
a small gradient, and float16 loses digits below 6e-5, its smallest normal number."""
_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "device": partial(torch.optim.Adam, fused=True),
    "offloaded": OffloadedAdam,
}
"""Both step in one pass over each parameter, without temporaries."""


class TrainConfig(Config):
    """How a method is trained. The paper: Adam without weight decay, 10 % linear warm-up, cosine decay."""

    steps: TrainingSteps = 5000
    """Gradient steps (the paper: 5000 for DiT-XL/2)."""
    batch_size: BatchSize = 64
    """Stored (state, guided prediction) pairs per step (the paper: 64 for DiT-XL/2)."""
    learning_rate: LearningRate = 1e-4
    """Peak learning rate (the paper: 1e-4)."""
    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    """Part of the steps over which the learning rate rises linearly."""
    max_gradient_norm: float | None = Field(None, gt=0)
    """Clip gradients to this norm; None, as in the paper, does not clip."""
    seed: TrainingSeed = 0
    """Seeds the initial weights and the order of training pairs."""
    activation_checkpointing: bool = Field(False, json_schema_extra=NOT_IDENTITY)
    """Compute activations again in the backward pass instead of keeping them: far less memory, a third more time."""
    compile: bool = Field(False, json_schema_extra=NOT_IDENTITY)
    """Compile the network for the training step; worth its minute where there are many steps. Results differ by
    rounding, as they do between batches' splits."""
    optimizer_memory: Literal["device", "offloaded"] = Field("device", json_schema_extra=NOT_IDENTITY)
    """Where Adam keeps its moments: beside the network, or in the CPU's memory."""
    checkpoint_seconds: float = Field(30.0, ge=0, json_schema_extra=NOT_IDENTITY)
    """Seconds between checkpoints: what a kill can cost."""
    loader_workers: int = Field(0, ge=0, le=64, json_schema_extra=NOT_IDENTITY)
    """Processes that read ahead; 0 reads ahead in one thread. Results do not depend on it."""

    @model_validator(mode="after")
    def _one_graph(self) -> "TrainConfig":
        """A compiled step decides by itself what to compute again."""
        if self.compile and self.activation_checkpointing:
            raise ValueError("compile and activation_checkpointing do not go together: set one of them to false")
        return self

    @property
    def pairs_read(self) -> int:
        """How many stored pairs the whole training reads."""
        return self.steps * self.batch_size

    def changed(self, own: OwnTraining | None) -> "TrainConfig":
        """These settings with what a method says for itself."""
        return self.model_copy(update=own.said()) if own else self


@dataclass(frozen=True)
class Training:
    """One method's training on stored guided predictions; no teacher is needed, its answers are in the store."""

    model: BaseModel
    trained: Trained
    """It is trained in place, on the model's device."""
    reader: TrajectoryReader
    config: TrainConfig

    def run(
        self, checkpoint: Checkpoint, on_progress: Progress = silent, should_stop: ShouldStop = never
    ) -> list[float]:
        """Train, from the last checkpoint if there is one; return the loss of every step.

        Raises:
            Stopped: after a checkpoint, when `should_stop` answered True.
        """
        config, trained = self.config, self.trained.to(self.model.device)
        optimizer = _OPTIMIZERS[config.optimizer_memory](trained.parameters(), lr=config.learning_rate)
        torch.manual_seed(derive_seed(config.seed, "training"))
        order = BatchOrder(self.reader.plan.pairs, config.batch_size, config.seed)
        batches = TrainingBatches(self.reader, order, config.steps, config.loader_workers)
        speed = compiled(trained.runs_in(self.model).backbone) if config.compile else nullcontext()
        with trained.installed(self.model, config.activation_checkpointing) as student, speed, batches:
            pairs = Ahead(_PairsOnDevice(batches, self.reader.plan, self.model.device).at)
            loop = Loop(
                self._loop_config(),
                {"adapter": trained},
                optimizer,
                lambda step: trained.loss(student, pairs.at(step)),
                checkpoint,
                position_at=order.state,
                meanwhile=pairs.fetch,
            )
            return loop.run(on_progress, should_stop)

    def _loop_config(self) -> LoopConfig:
        config = self.config
        return LoopConfig(
            config.steps,
            config.learning_rate,
            config.warmup_fraction,
            config.max_gradient_norm,
            config.checkpoint_seconds,
            loss_scale=_HALF_PRECISION_SCALE if self.model.dtype is torch.float16 else 1.0,
        )


class _PairsOnDevice:
    """The stored pairs of every step, on the device."""

    def __init__(self, batches: TrainingBatches, plan: CollectionPlan, device: torch.device) -> None:
        self._batches, self._plan, self._device = batches, plan, device
        self._conditions = Condition.from_arrays(plan.conditions, torch.device("cpu"))  # encoded prompts may be many

    def at(self, step: int) -> Pairs:
        """This step's."""
        batch, device = self._batches.at(step), self._device
        latents = latents_tensor(batch.latents, self._plan.dtype, device)
        ask = Ask.of_columns(self._conditions, batch.rows, batch.scalars, device)
        timestep, guided = tensor_of(batch.timesteps, device), latents[:, TARGET:].flatten(1, 2)
        return Pairs(latents[:, INPUT], timestep, ask, guided)
