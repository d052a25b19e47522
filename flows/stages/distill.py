"""All stages in order, in process."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flows.published import refuse_foreign_files
from flows.run import Run
from flows.stages.collect import collect
from flows.stages.comparison import Point, TrainedAdapters, compare, headline_points, sweep_points
from flows.stages.extras import measure_extras
from flows.stages.publish import publish_evaluated
from flows.stages.report import REPORT, SWEEP, Made, ReportFiles, read_metrics, report
from flows.stages.train import train
from storage.artefacts import Artefact


@dataclass(frozen=True)
class Distilled:
    """What a whole run leaves."""

    report: Artefact
    metrics: dict[str, Any]


def train_all(run: Run, trajectories: Artefact) -> TrainedAdapters:
    """Stage 2: every method of a configuration."""
    return [(method, train(run, method, trajectories)) for method in run.config.methods]


def distill(run: Run, command: str) -> Distilled:
    """The whole pipeline; whatever is finished is reused, whatever was interrupted is resumed.

    Args:
        run: everything.
        command: what a person types to repeat this run, for the report.
    """
    return _distilled(run, command, headline_points(run.config), REPORT)


def sweep(run: Run, command: str) -> Distilled:
    """The same at every guidance scale with every step count and every sampler, with a report of its own."""
    return _distilled(run, command, sweep_points(run.config), SWEEP)


def _distilled(run: Run, command: str, points: Sequence[Point], files: ReportFiles) -> Distilled:
    labels = [method.label for method in run.config.methods]
    refuse_foreign_files(run.place.output, (files.page, files.metrics), labels)
    trajectories = collect(run.check())
    adapters = train_all(run, trajectories)
    compared = compare(run, adapters, points)
    made = Made(run, command, trajectories, adapters, compared, measure_extras(run, adapters))
    written = report(made, files)
    publish_evaluated(run, adapters, compared, command)
    return Distilled(written, read_metrics(written, files))
