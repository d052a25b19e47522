"""The one training loop: resumable to the exact step, used by adapters and by the built-in teacher.

A step's batch is a pure function of the step number (`loss_at(step)`), so the loader has no state of its own. A
checkpoint holds modules, optimiser, step and torch's random state (dropout draws from it), and the place in the data.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agd_core.basics.checkpoint import Checkpoint
from agd_core.basics.errors import NumericError
from agd_core.basics.progress import Progress, ShouldStop, Stopped, never, silent


def warmup_cosine(step: int, steps: int, warmup_fraction: float, floor: float = 0.0) -> float:
    """Learning-rate factor: linear warm-up over the first fraction of steps, then cosine to `floor`.

    The AGD paper's schedule with `warmup_fraction=0.1` (arXiv 2503.07274, experiments).
    """
    warmup_steps = max(1, round(steps * warmup_fraction))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast one training run goes.

    Raises:
        ValueError: the loss scale is no power of two.
    """

    steps: int
    learning_rate: float
    warmup_fraction: float = 0.1
    max_gradient_norm: float | None = None
    checkpoint_seconds: float = 30.0
    loss_scale: float = 1.0
    """The loss is multiplied by this before the backward pass and gradients are divided by it after, so that small
    gradients survive a network in float16; a power of two changes no bit of those that survive anyway."""

    def __post_init__(self) -> None:
        if not 0 < self.loss_scale < math.inf or math.frexp(self.loss_scale)[0] != 0.5:
            raise ValueError(f"loss_scale must be a power of two, got {self.loss_scale:g}")


@dataclass(frozen=True)
class Loop:
    """One training run.

    Args:
        config: length and learning rate.
        modules: everything a checkpoint must hold, by name (trained modules, EMA copies).
        optimizer: over the trained parameters; its learning rate is set here at every step.
        loss_at: step number -> scalar loss, deterministic in the step.
        checkpoint: where the state is saved.
        after_step: called after each optimiser step, e.g. to update an EMA.
        position_at: where in the data the run is after so many steps, recorded in checkpoints and checked on resume.
        meanwhile: told the next step's number while the device works on this one, to make ready what it needs.
    """

    config: LoopConfig
    modules: Mapping[str, nn.Module]
    optimizer: torch.optim.Optimizer
    loss_at: Callable[[int], Tensor]
    checkpoint: Checkpoint
    after_step: Callable[[int], None] = lambda step: None
    position_at: Callable[[int], Mapping[str, Any] | None] = lambda step: None
    meanwhile: Callable[[int], None] = lambda step: None

    def run(self, on_progress: Progress = silent, should_stop: ShouldStop = never) -> list[float]:
        """Train to the end, from the last checkpoint if there is one; return the loss of every step.

        Raises:
            Stopped: after a checkpoint, when `should_stop` answered True.
            NumericError: the loss became NaN or infinite.
        """
        step, losses = self.checkpoint.load(self.modules, self.optimizer, self.position_at)
        saved_at = time.monotonic()
        while step < self.config.steps:
            losses.append(self._one_step(step))
            step += 1
            on_progress(step, self.config.steps, f"loss {_recent(losses):.4f}")
            stopping = should_stop()
            if stopping or time.monotonic() - saved_at > self.config.checkpoint_seconds:
                self.checkpoint.save(step, losses, self.modules, self.optimizer, self.position_at(step))
                saved_at = time.monotonic()
            if stopping:
                raise Stopped(f"stopped after step {step} of {self.config.steps}; run the same command again to resume")
        return losses

    def _one_step(self, step: int) -> float:
        factor = warmup_cosine(step, self.config.steps, self.config.warmup_fraction)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * factor
        self.optimizer.zero_grad(set_to_none=True)  # before the forward pass, which needs the memory
        loss = self.loss_at(step)
        self._backward(loss)
        if step + 1 < self.config.steps:
            self.meanwhile(step + 1)
        value = float(loss.detach())  # waits for the device, which has the backward pass to do by now
        if not math.isfinite(value):
            raise NumericError(f"loss is {value} at step {step}: lower the learning rate or check the data")
        self._unscale(step)
        if self.config.max_gradient_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters(), self.config.max_gradient_norm)
        self.optimizer.step()
        self.after_step(step)
        return value

    def _backward(self, loss: Tensor) -> None:
        scaled = loss if self.config.loss_scale == 1.0 else loss * self.config.loss_scale
        scaled.backward()  # type: ignore[no-untyped-call]

    def _unscale(self, step: int) -> None:
        """Divide gradients by the scale.

        Raises:
            NumericError: it made one overflow.
        """
        scale = self.config.loss_scale
        if scale == 1.0:
            return
        gradients = [p.grad.div_(scale) for p in self._parameters() if p.grad is not None]
        if gradients and not math.isfinite(float(torch.nn.utils.get_total_norm(gradients))):
            raise NumericError(f"a gradient overflowed at step {step}: lower the loss scale, {scale:g}")

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


def _recent(losses: list[float], window: int = 50) -> float:
    tail = losses[-window:]
    return sum(tail) / len(tail)
