"""Stages 3 and 4 for every method at every point of a configuration: the rows of the results tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from agd_core.evaluation.prediction_error import UNGUIDED
from agd_core.evaluation.rows import Row
from agd_core.methods import MethodConfig
from agd_core.methods.adapter_files import read_card
from agd_core.models.schedulers import SchedulerName
from flows.config import PipelineConfig
from flows.run import Run
from flows.stages.evaluate import LookedAt, evaluate, read_evaluation
from flows.stages.sample import Cell, read_nfe, read_sampling_cost, sample
from storage.artefacts import Artefact

TrainedAdapters = Sequence[tuple[MethodConfig, Artefact]]


@dataclass(frozen=True)
class Method:
    """One way to sample: bare, guided, or with an adapter."""

    name: str
    kind: str
    adapter: Artefact | None = None
    parameters: int = 0
    guided: bool = False
    """Whether it is the teacher."""


NO_GUIDANCE = Method(UNGUIDED, "none")


@dataclass(frozen=True)
class Point:
    """Where all methods are compared."""

    scale: float
    """Guidance scale that is asked for."""
    steps: int
    scheduler: SchedulerName


@dataclass(frozen=True)
class Compared:
    """One row with the artefacts behind it."""

    row: Row
    method: Method
    device: str
    """Where its images per second were measured."""
    samples: Artefact
    evaluation: Artefact


def teacher_of(config: PipelineConfig) -> Method:
    """The base model under the configured rule."""
    return Method(config.guidance.label, config.guidance.kind, guided=True)


def methods(config: PipelineConfig, adapters: TrainedAdapters) -> list[Method]:
    """No guidance, the teacher, then every adapter."""
    trained = [Method(config.label, config.kind, artefact, _parameters(artefact)) for config, artefact in adapters]
    return [NO_GUIDANCE, teacher_of(config), *trained]


def headline_points(config: PipelineConfig) -> list[Point]:
    """Every scale at the headline steps, then the curve's steps at the headline scale."""
    sampled = config.sample
    scales = [Point(scale, sampled.steps, sampled.scheduler) for scale in sampled.guidance_scales]
    return [*scales, *(Point(scales[0].scale, steps, sampled.scheduler) for steps in sampled.curve_steps)]


def sweep_points(config: PipelineConfig) -> list[Point]:
    """Every scale with every step count and every sampler; the headline first."""
    sampled = config.sample
    schedulers = (sampled.scheduler, *sampled.sweep_schedulers)
    grid = product(schedulers, (sampled.steps, *sampled.curve_steps), sampled.guidance_scales)
    return [Point(scale, steps, scheduler) for scheduler, steps, scale in grid]


def compare(run: Run, adapters: TrainedAdapters, points: Sequence[Point]) -> list[Compared]:
    """Sample and evaluate every method at every point; cells that are there already are reused."""
    run.place.sample_ahead(adapters, points)
    compared = []
    for point in points:
        guided = _look(run, teacher_of(run.config), point)
        for method in methods(run.config, adapters):
            compared.append(_compare_one(run, method, point, guided))
    return compared


def make_cell(config: PipelineConfig, method: Method, point: Point) -> Cell:
    """The sample set of one method at one point."""
    guidance = config.guidance if method.guided else None
    return Cell(point.scale, point.steps, point.scheduler, guidance, method.adapter)


def _compare_one(run: Run, method: Method, point: Point, guided: LookedAt) -> Compared:
    cell = make_cell(run.config, method, point)
    looked = guided if cell.guidance else _look(run, method, point)
    evaluation = evaluate(run, cell, looked, guided, method.name)
    samples = looked.samples
    cost = read_sampling_cost(samples)
    measured = read_evaluation(evaluation)
    row = Row(
        name=method.name,
        method=method.kind,
        guidance_scale=cell.used_scale,
        scheduler=point.scheduler,
        steps=point.steps,
        teacher_scale=point.scale,
        nfe=read_nfe(samples),
        images_per_second=cost["images"] / cost["denoising_seconds"],
        adapter_parameters=method.parameters,
        adapter_percent=100 * method.parameters / run.model.parameters,
        scores=measured["scores"],
        protocol=measured["protocol"],
    )
    return Compared(row, method, cost["device"], samples, evaluation)


def _look(run: Run, method: Method, point: Point) -> LookedAt:
    cell = make_cell(run.config, method, point)
    samples = sample(run, cell, method.name)
    return LookedAt.by(run.instruments, samples, run.sampled, run.place, f"{method.name}, {cell.point}")


def _parameters(adapter: Artefact) -> int:
    return read_card(adapter.path)[1].parameters


def every_cell(
    config: PipelineConfig, adapters: TrainedAdapters, points: Sequence[Point]
) -> Iterator[tuple[Method, Cell]]:
    """Every sample set of a configuration at these points."""
    for point, method in product(points, methods(config, adapters)):
        yield method, make_cell(config, method, point)


def sample_all(run: Run, adapters: TrainedAdapters) -> dict[str, str]:
    """Sample every cell without evaluating; folders by method and point."""
    run.place.sample_ahead(adapters, points := headline_points(run.config))
    return {
        f"{method.name}, {cell.point}": str(sample(run, cell, method.name).path)
        for method, cell in every_cell(run.config, adapters, points)
    }
