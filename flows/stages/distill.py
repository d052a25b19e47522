"""All stages in order, in process."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agd_core.adapters import AdapterConfig
from agd_core.base_models import BaseModel
from agd_core.errors import InputError
from agd_core.schedulers import allowed_samplers, build_scheduler
from agd_core.subjects import Subjects
from agd_core.trajectory import CollectConfig
from flows.config import PipelineConfig
from flows.published import refuse_foreign_files
from flows.stages.collect import collect
from flows.stages.comparison import Point, compare, headline_points, sweep_points
from flows.stages.evaluate import check_evaluation
from flows.stages.extras import measure_extras
from flows.stages.publish import publish_evaluated
from flows.stages.report import REPORT, SWEEP, Made, ReportFiles, read_metrics, report
from flows.stages.train import train
from flows.subjects import collect_subjects, sample_subjects, say_what_is_cut
from flows.workplace import Workplace
from storage.artefacts import Artefact

Trained = list[tuple[AdapterConfig, Artefact]]


@dataclass(frozen=True)
class Distilled:
    """What a whole run leaves."""

    report: Artefact
    metrics: dict[str, Any]


def open_base_model(config: PipelineConfig, place: Workplace) -> BaseModel:
    """Load the base model and refuse what cannot work with it, before any long work.

    Raises:
        InputError: the model cannot be loaded, or the extractor does not know its classes.
    """
    base_model = config.base_model.build(place.device)
    check_evaluation(config.evaluate, base_model)
    say_what_is_cut("collect.prompts", collect_subjects(config.collect, base_model), place.announce)
    say_what_is_cut("sample.prompts", sample_subjects(config.sample, base_model), place.announce)
    channels, guided = base_model.latent_shape[0], config.guidance.guided_channels
    if guided is not None and guided > channels:
        raise InputError(f"guidance.guided_channels {guided} exceeds the {channels} channels of this base model")
    _check_samplers(config, base_model)
    limit = base_model.scheduler_config.get("num_train_timesteps", 1000)
    if (steps := max(config.collect.steps, config.sample.steps, *config.sample.curve_steps)) > limit:
        raise InputError(f"{steps} sampler steps exceed the {limit} timesteps that this base model was trained with")
    return base_model


def _check_samplers(config: PipelineConfig, base_model: BaseModel) -> None:
    """Every sampler can walk what the base model predicts."""
    sampled = config.sample
    asked = {"collect.scheduler": config.collect.scheduler, "sample.scheduler": sampled.scheduler}
    asked |= {f"sample.sweep_schedulers.{place}": name for place, name in enumerate(sampled.sweep_schedulers)}
    allowed = allowed_samplers(base_model.scheduler_config)
    for setting, name in asked.items():
        if name not in allowed:
            kind = base_model.prediction_type
            raise InputError(
                f"{setting} {name!r} cannot walk a model that predicts {kind}; allowed: {', '.join(allowed)}"
            )
        build_scheduler(name, base_model.scheduler_config, 2)


def collect_stage(config: PipelineConfig, base_model: BaseModel, place: Workplace) -> Artefact:
    """Stage 1 of a configuration."""
    subjects = collect_subjects(config.collect, base_model)
    return collect(sized_collect(config, subjects), config.guidance, subjects, place, config.store.url)


def sized_collect(config: PipelineConfig, subjects: Subjects) -> CollectConfig:
    """The collection's settings, its number of trajectories decided from what training will read."""
    return config.collect.sized(config.train.pairs_read, len(subjects))


def train_stage(config: PipelineConfig, trajectories: Artefact, base_model: BaseModel, place: Workplace) -> Trained:
    """Stage 2: every adapter of a configuration."""
    return [(adapter, train(config, adapter, trajectories, base_model, place)) for adapter in config.adapters]


def distill(config: PipelineConfig, command: str, place: Workplace) -> Distilled:
    """The whole pipeline; whatever is finished is reused, whatever was interrupted is resumed.

    Args:
        config: everything.
        command: what a person types to repeat this run, for the report.
        place: where to work.
    """
    return _run(config, command, headline_points(config), REPORT, place)


def sweep(config: PipelineConfig, command: str, place: Workplace) -> Distilled:
    """The same at every guidance scale with every step count and every sampler, with a report of its own."""
    return _run(config, command, sweep_points(config), SWEEP, place)


def _run(
    config: PipelineConfig, command: str, points: Sequence[Point], files: ReportFiles, place: Workplace
) -> Distilled:
    labels = [adapter.label for adapter in config.adapters]
    refuse_foreign_files(place.output, (files.page, files.metrics), labels)
    base_model = open_base_model(config, place)
    trajectories = collect_stage(config, base_model, place)
    adapters = train_stage(config, trajectories, base_model, place)
    compared = compare(config, base_model, adapters, points, place)
    extras = measure_extras(config, base_model, adapters, place)
    made = Made(config, command, base_model, trajectories, adapters, compared, extras)
    written = report(made, files, place)
    publish_evaluated(config, adapters, compared, command, base_model, place.output)
    return Distilled(written, read_metrics(written, files))
