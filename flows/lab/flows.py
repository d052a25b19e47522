"""The stages as Prefect flows and tasks: thin wrappers, the truth about caching and resuming is in the stages.

Tasks are not cached by Prefect: a stage that is done returns its artefact at once, after checking it.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from agd_core.adapters import AdapterConfig
from agd_core.base_models import BaseModel
from agd_core.progress import never
from agd_core.report.rows import HEADINGS, cells
from flows.config import PipelineConfig
from flows.lab.progress import ArtifactProgress
from flows.presets import load_config, repeat_command
from flows.stages import distill as stages
from flows.stages.comparison import Compared, compare, sample_all
from flows.stages.pretrain import pretrain
from flows.stages.report import read_metrics, report
from flows.stages.train import train
from flows.stop_signals import StopSignals
from flows.workplace import Workplace, pick_device, writable_folder
from storage.artefacts import Artefact


@task(cache_policy=NO_CACHE)
def collect_trajectories(config: PipelineConfig, output: str) -> Artefact:
    """Stage 1."""
    with StopSignals() as signals:
        return stages.collect_stage(config, _base_model(config), _workplace(output, signals))


@task(cache_policy=NO_CACHE, task_run_name="train-{adapter.label}")
def train_adapter(config: PipelineConfig, adapter: AdapterConfig, trajectories: Artefact, output: str) -> Artefact:
    """Stage 2, one adapter. Called directly, so that it runs in the main thread and a cancel reaches it."""
    source = config.base_model.source
    with StopSignals() as signals:
        place = _workplace(output, signals)
        return train(config.train, adapter, config.collect, trajectories, _base_model(config), source, place)


@task(cache_policy=NO_CACHE)
def sample_images(config: PipelineConfig, adapters: stages.Trained, output: str) -> dict[str, str]:
    """Stage 3."""
    with StopSignals() as signals:
        return sample_all(config, _base_model(config), adapters, _workplace(output, signals))


@task(cache_policy=NO_CACHE)
def evaluate_samples(config: PipelineConfig, adapters: stages.Trained, output: str) -> list[Compared]:
    """Stage 4; sample sets that are not there yet are made first."""
    with StopSignals() as signals:
        return compare(config, _base_model(config), adapters, _workplace(output, signals))


@task(cache_policy=NO_CACHE)
def write_report(
    config: PipelineConfig,
    trajectories: Artefact,
    adapters: stages.Trained,
    compared: list[Compared],
    output: str,
    command: str,
) -> dict[str, Any]:
    """The report, and its table as an artifact of the run."""
    written = report(config, command, trajectories, adapters, compared, _workplace(output))
    metrics = read_metrics(written)
    create_markdown_artifact(_markdown(metrics, written), key="results", description="Results of the distillation")
    return metrics


@flow(name="collect-trajectories")
def collect_flow(preset: str = "fashion-dit", overrides: list[str] | None = None, output: str = "outputs") -> str:
    """Collect guided trajectories.

    Args:
        preset: a preset's name or a .yaml file.
        overrides: changes such as collect.trajectories=96.
        output: folder for the artefacts.
    """
    config = load_config(preset, overrides or ())
    return str(collect_trajectories(config, output).path)


@flow(name="train-adapter")
def train_flow(preset: str = "fashion-dit", overrides: list[str] | None = None, output: str = "outputs") -> list[str]:
    """Train a preset's adapters; trajectories are collected first where they are missing.

    Args:
        preset: a preset's name or a .yaml file.
        overrides: changes such as train.steps=500.
        output: folder for the artefacts.
    """
    config = load_config(preset, overrides or ())
    return [str(artefact.path) for _, artefact in _trained(config, collect_trajectories(config, output), output)]


@flow(name="sample")
def sample_flow(
    preset: str = "fashion-dit", overrides: list[str] | None = None, output: str = "outputs"
) -> dict[str, str]:
    """Sample images without guidance, with CFG and with every adapter of a preset.

    Args:
        preset: a preset's name or a .yaml file.
        overrides: changes such as sample.images=500.
        output: folder for the artefacts.
    """
    config = load_config(preset, overrides or ())
    return sample_images(config, _trained(config, collect_trajectories(config, output), output), output)


@flow(name="distill")
def distill_flow(
    preset: str = "fashion-dit", overrides: list[str] | None = None, output: str = "outputs"
) -> dict[str, Any]:
    """The whole pipeline: collect, train, sample, evaluate, report.

    Args:
        preset: a preset's name or a .yaml file.
        overrides: changes such as train.steps=500.
        output: folder for artefacts and report.
    """
    config = load_config(preset, overrides or ())
    stages.open_base_model(config, _workplace(output))
    trajectories = collect_trajectories(config, output)
    adapters = _trained(config, trajectories, output)
    sample_images(config, adapters, output)
    compared = evaluate_samples(config, adapters, output)
    command = repeat_command(preset, overrides or (), Path(output))
    return write_report(config, trajectories, adapters, compared, output, command)


@flow(name="evaluate")
def evaluate_flow(
    preset: str = "fashion-dit", overrides: list[str] | None = None, output: str = "outputs"
) -> list[dict[str, Any]]:
    """Evaluate every sample set of a preset; whatever is missing before is done first.

    Args:
        preset: a preset's name or a .yaml file.
        overrides: changes such as evaluate.bootstrap_resamples=500.
        output: folder for the artefacts.
    """
    config = load_config(preset, overrides or ())
    adapters = _trained(config, collect_trajectories(config, output), output)
    return [dict(item.row) for item in evaluate_samples(config, adapters, output)]


@flow(name="pretrain-teacher")
def pretrain_flow(data: str | None = None, output: str = "outputs/pretrain") -> dict[str, Any]:
    """Retrain the built-in teacher, its VAE and its classifier from the real images.

    Args:
        data: folder of the four Fashion-MNIST idx files; where Debian puts them by default.
        output: folder for checkpoints and the finished model.
    """
    with StopSignals() as signals:
        return pretrain(Path(data) if data else None, _workplace(output, signals))


def _trained(config: PipelineConfig, trajectories: Artefact, output: str) -> stages.Trained:
    return [(adapter, train_adapter(config, adapter, trajectories, output)) for adapter in config.adapters]


@lru_cache(maxsize=1)
def _base_model(config: PipelineConfig) -> BaseModel:
    return config.base_model.build(pick_device("auto"))


def _workplace(output: str, signals: StopSignals | None = None) -> Workplace:
    """Where a task works; SIGTERM, which Prefect sends on cancel, makes it stop at the next safe point."""
    logger, should_stop = get_run_logger(), (lambda: signals.stopping) if signals else never
    return Workplace(writable_folder(Path(output)), pick_device("auto"), logger.info, ArtifactProgress, should_stop)


def _markdown(metrics: dict[str, Any], written: Artefact) -> str:
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in metrics["rows"]]
    return "\n".join([*lines, "", f"Report: `{written.path / 'report.html'}`"])
