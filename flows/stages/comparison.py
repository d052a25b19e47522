"""Stages 3 and 4 for every method at every point of a configuration: the rows of the results tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from agd_core.evaluation.prediction_error import UNGUIDED
from agd_core.evaluation.rows import Row
from agd_core.guidance import Guidance
from agd_core.methods import MethodConfig
from agd_core.methods.adapter_files import WEIGHTS, read_card
from agd_core.models.schedulers import SchedulerName
from flows.config import PipelineConfig
from flows.run import Run
from flows.stages.evaluate import LookedAt, evaluate, read_evaluation
from flows.stages.sample import Cell, read_nfe, read_sampling_cost, sample
from flows.stages.training_time import read_training_time
from storage.artefacts import Artefact

TrainedAdapters = Sequence[tuple[MethodConfig, Artefact]]


@dataclass(frozen=True)
class Method:
    """One way to sample: bare, guided by some rule, or with an adapter."""

    name: str
    kind: str
    adapter: Artefact | None = None
    parameters: int = 0
    guidance: Guidance | None = None
    """The rule that guides the base model."""
    training_free: bool = False
    """Whether that rule stands in for the teacher's."""


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
    return Method(config.guidance.label, config.guidance.kind, guidance=config.guidance)


def training_free_of(config: PipelineConfig) -> list[Method]:
    """The base model under every rule that spares passes of the teacher's."""
    return [Method(rule.label, rule.kind, guidance=rule, training_free=True) for rule in config.training_free]


def methods(config: PipelineConfig, adapters: TrainedAdapters) -> list[Method]:
    """No guidance, the teacher, every adapter, then what needs no training."""
    trained = [Method(config.label, config.kind, artefact, _parameters(artefact)) for config, artefact in adapters]
    return [NO_GUIDANCE, teacher_of(config), *trained, *training_free_of(config)]


def headline_points(config: PipelineConfig) -> list[Point]:
    """Every scale at the headline steps, then the curve's steps at the headline scale."""
    sampled, scales = config.sample, scale_points(config)
    return [*scales, *(Point(scales[0].scale, steps, sampled.scheduler) for steps in sampled.curve_steps)]


def scale_points(config: PipelineConfig) -> list[Point]:
    """Every scale at the headline steps."""
    sampled = config.sample
    return [Point(scale, sampled.steps, sampled.scheduler) for scale in sampled.guidance_scales]


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


def make_cell(method: Method, point: Point) -> Cell:
    """The sample set of one method at one point."""
    return Cell(point.scale, point.steps, point.scheduler, method.guidance, method.adapter)


def _compare_one(run: Run, method: Method, point: Point, guided: LookedAt) -> Compared:
    cell = make_cell(method, point)
    looked = guided if method == teacher_of(run.config) else _look(run, method, point)
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
        adapter_bytes=(method.adapter.path / WEIGHTS).stat().st_size if method.adapter else None,
        training_seconds=_training_seconds(method.adapter) if method.adapter else None,
        training_free=method.guidance.identity() if method.guidance and method.training_free else None,
        scores=measured["scores"],
        protocol=measured["protocol"],
    )
    return Compared(row, method, cost["device"], samples, evaluation)


def _look(run: Run, method: Method, point: Point) -> LookedAt:
    cell = make_cell(method, point)
    samples = sample(run, cell, method.name)
    return LookedAt.by(run.instruments, samples, run.sampled, run.place, f"{method.name}, {cell.point}")


def _training_seconds(adapter: Artefact) -> float | None:
    measured = read_training_time(adapter)
    return measured and measured["seconds"]


def _parameters(adapter: Artefact) -> int:
    return read_card(adapter.path)[1].parameters


def every_cell(
    config: PipelineConfig, adapters: TrainedAdapters, points: Sequence[Point]
) -> Iterator[tuple[Method, Cell]]:
    """Every sample set of a configuration at these points."""
    for point, method in product(points, methods(config, adapters)):
        yield method, make_cell(method, point)


def sample_all(run: Run, adapters: TrainedAdapters) -> dict[str, str]:
    """Sample every cell without evaluating; folders by method and point."""
    run.place.sample_ahead(adapters, points := headline_points(run.config))
    return {
        f"{method.name}, {cell.point}": str(sample(run, cell, method.name).path)
        for method, cell in every_cell(run.config, adapters, points)
    }
