"""How far a method's predictions lie from the guided teacher's, at every step and on the teacher's own latents.

A method that is judged by its final images alone may err anywhere on the way. Here the guided teacher walks, and at
every step each method is asked for its prediction on the very latents that the teacher saw.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from agd_core.basics.progress import Progress, ShouldStop, Stopped, never, silent
from agd_core.basics.seeding import derive_seed
from agd_core.data.subjects import Subjects
from agd_core.evaluation.sampling import SampleConfig
from agd_core.models.denoiser import Answer, Denoiser, Prediction
from agd_core.models.denoising import Observer, Step, denoise
from agd_core.models.schedulers import build_scheduler

UNGUIDED = "no guidance"
"""The plain conditional prediction, which is always measured along."""
_GUIDED = "guided"

_StepSquares = Float[Tensor, "steps images"]


@dataclass(frozen=True)
class ErrorPoint:
    """Prediction error of one method at one step."""

    timestep: float
    """What the network received."""
    mse: float
    """Mean squared distance to the guided prediction, over images and latent elements."""
    standard_error: float | None
    """Of that mean over the images; None for a single image."""
    relative: float | None
    """`mse` over that of no guidance at this step; None where that is zero, as at guidance scale 1."""
    relative_standard_error: float | None
    """Of `relative` over the images, both errors belonging to the same images (delta method for a ratio of means)."""


@dataclass(frozen=True)
class PredictionErrors:
    """Prediction error along the teacher's sampling."""

    guidance_scale: float
    scheduler: str
    steps: int
    images: int
    guided_mean_square: tuple[float, ...]
    """Mean square of the guided prediction itself, by step."""
    points: Mapping[str, tuple[ErrorPoint, ...]]
    """One point per step, by method; no guidance first."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        points = {name: [dict(vars(point)) for point in curve] for name, curve in self.points.items()}
        return {**vars(self), "guided_mean_square": list(self.guided_mean_square), "points": points}


def measure_prediction_errors(
    teacher: Denoiser,
    methods: Mapping[str, Denoiser],
    subjects: Subjects,
    config: SampleConfig,
    on_progress: Progress = silent,
    should_stop: ShouldStop = never,
) -> PredictionErrors:
    """Walk with the guided teacher; image i has subject `i % len(subjects)` and noise that no sample set has.

    Args:
        teacher: the guided one; the sampler goes on with its prediction.
        methods: who is compared with it, by name; each is asked step by step, as a sampler asks it.
        subjects: what is asked of the base model below all of them, which makes the prediction without guidance.
        config: images (one or more), batch size, seed, and the headline's guidance scale, steps and sampler.
        on_progress: told the steps of images that are done.
        should_stop: asked at every step.

    Raises:
        Stopped: when `should_stop` answered True.
    """
    compared = {UNGUIDED: subjects.base_model, **methods}
    walks = []
    for first in range(0, config.images, config.batch_size):
        rows = range(first, min(first + config.batch_size, config.images))
        walk = _Walk(compared, subjects, config, rows, on_progress, should_stop)
        walk.run(teacher)
        walks.append(walk)
    squares = {name: torch.cat([walk.squares(name) for walk in walks], dim=1) for name in (_GUIDED, *compared)}
    guided = tuple(squares.pop(_GUIDED).mean(dim=1).tolist())
    points = {name: _curve(walks[0].timesteps, square, squares[UNGUIDED]) for name, square in squares.items()}
    return PredictionErrors(config.guidance_scale, config.scheduler, config.steps, config.images, guided, points)


class _Walk:
    """The teacher's sampling of one batch, observed."""

    def __init__(
        self,
        compared: Mapping[str, Denoiser],
        subjects: Subjects,
        config: SampleConfig,
        rows: range,
        on_progress: Progress,
        should_stop: ShouldStop,
    ) -> None:
        base_model = subjects.base_model
        self.timesteps: list[float] = []
        self._compared, self._base_model, self._config = compared, base_model, config
        self._rows = rows
        self._ask = subjects.ask([row % len(subjects) for row in rows], config.guidance_scale)
        self._on_progress, self._should_stop = on_progress, should_stop
        self._squares: dict[str, list[Tensor]] = {name: [] for name in (_GUIDED, *compared)}

    def run(self, teacher: Denoiser) -> None:
        """Sample with the teacher."""
        scheduler = build_scheduler(self._config.scheduler, self._base_model.scheduler_config, self._config.steps)
        timesteps = scheduler.timesteps.to(self._base_model.device, torch.float32)
        answers = {name: denoiser.steps(timesteps, self._ask) for name, denoiser in self._compared.items()}
        denoise(
            teacher,
            scheduler,
            self._ask,
            [derive_seed(self._config.seed, "curve", row) for row in self._rows],
            self._base_model.latent_shape,
            Observer(partial(self._observe, answers)),
        )

    def squares(self, name: str) -> _StepSquares:
        """Mean squares over an image's latent elements, float64 on the CPU."""
        return torch.stack(self._squares[name]).cpu()

    def _observe(self, answers: Mapping[str, Iterator[Answer]], step: Step) -> None:
        if self._should_stop():
            raise Stopped("stopped while measuring the prediction error; run the same command again")
        self.timesteps.append(step.timestep)
        self._squares[_GUIDED].append(_mean_squares(step.prediction, torch.zeros_like(step.prediction)))
        for name, steps_of in answers.items():
            self._squares[name].append(_mean_squares(next(steps_of)(step.latents), step.prediction))
        steps = self._config.steps
        done = self._rows.start * steps + len(self._rows) * min(step.index + 1, steps)
        self._on_progress(done, self._config.images * steps)


def _mean_squares(prediction: Prediction, guided: Prediction) -> Float[Tensor, " batch"]:
    return (prediction.double() - guided.double()).square().mean(dim=tuple(range(1, guided.ndim)))


def _curve(timesteps: list[float], squares: _StepSquares, unguided: _StepSquares) -> tuple[ErrorPoint, ...]:
    return tuple(_point(*step) for step in zip(timesteps, squares, unguided, strict=True))


def _point(timestep: float, squares: Float[Tensor, " images"], unguided: Float[Tensor, " images"]) -> ErrorPoint:
    mean, plain = float(squares.mean()), float(unguided.mean())
    if not plain:
        return ErrorPoint(timestep, mean, _standard_error(squares), None, None)
    ratio = mean / plain
    return ErrorPoint(
        timestep, mean, _standard_error(squares), ratio, _standard_error((squares - ratio * unguided) / plain)
    )


def _standard_error(values: Float[Tensor, " images"]) -> float | None:
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else None
