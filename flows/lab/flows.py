"""The stages as Prefect flows. Thin: what is true about caching and resuming is in `flows.stages`.

Each flow is the function that the command line calls, in a workplace whose artefacts are cached tasks.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.config import PipelineConfig
from flows.lab.artifacts import show_results
from flows.lab.parameters import CollectSettings, DistillSettings, SampleSettings, TrainSettings
from flows.lab.running import run_in_lab, run_name, run_stages
from flows.lab.workplace import LabWorkplace
from flows.preset_files import repeat_command
from flows.run import Run
from flows.stages.collect import collect
from flows.stages.comparison import Point, compare, headline_points, sample_all, sweep_points
from flows.stages.distill import Distilled, Trained, distill, sweep, train_all
from flows.stages.pretrain import pretrain
from flows.stages.publish import publish_trained


@flow(name="collect-trajectories", flow_run_name=run_name)
def collect_flow(settings: CollectSettings = CollectSettings()) -> dict[str, str] | State:
    """Record guided trajectories; an interrupted collection goes on with its missing units.

    Args:
        settings: what to collect.
    """

    def work(run: Run, place: LabWorkplace) -> dict[str, str]:
        return {"trajectories": str(collect(run.check()).path)}

    return run_stages(settings, work)


@flow(name="train-adapter", flow_run_name=run_name)
def train_flow(settings: TrainSettings = TrainSettings()) -> dict[str, str] | State:
    """Train a preset's adapters; trajectories are collected first where they are missing.

    Args:
        settings: what to collect and train.
    """

    def work(run: Run, place: LabWorkplace) -> dict[str, str]:
        trained = train_all(run, collect(run.check()))
        command = repeat_command(settings.source, settings.changes(), Path(settings.output), "train")
        folders = publish_trained(run, trained, command)
        return {label: str(folder) for label, folder in folders.items()}

    return run_stages(settings, work)


@flow(name="sample", flow_run_name=run_name)
def sample_flow(settings: SampleSettings = SampleSettings()) -> dict[str, str] | State:
    """Sample images without guidance, with CFG and with every adapter; what is missing before is done first.

    Args:
        settings: what to collect, train and sample.
    """

    def work(run: Run, place: LabWorkplace) -> dict[str, str]:
        return sample_all(run, _sampled_ahead(run, headline_points(run.config), place))

    return run_stages(settings, work)


@flow(name="evaluate", flow_run_name=run_name)
def evaluate_flow(settings: DistillSettings = DistillSettings()) -> list[dict[str, Any]] | State:
    """Evaluate every sample set; whatever is missing before is done first.

    Args:
        settings: what to collect, train, sample and measure.
    """

    def work(run: Run, place: LabWorkplace) -> list[dict[str, Any]]:
        points = headline_points(run.config)
        return [dict(item.row) for item in compare(run, _sampled_ahead(run, points, place), points)]

    return run_stages(settings, work)


@flow(name="distill", flow_run_name=run_name)
def distill_flow(settings: DistillSettings = DistillSettings()) -> dict[str, Any] | State:
    """The whole pipeline: collect, train, sample, evaluate, report.

    Args:
        settings: everything; a blank is as in the preset.
    """
    return run_stages(settings, lambda run, place: _reported(distill, headline_points, settings, run, place))


@flow(name="sweep", flow_run_name=run_name)
def sweep_flow(settings: DistillSettings = DistillSettings()) -> dict[str, Any] | State:
    """Compare all methods at every guidance scale with every step count and every sampler.

    Args:
        settings: everything; a blank is as in the preset.
    """
    return run_stages(settings, lambda run, place: _reported(sweep, sweep_points, settings, run, place))


@flow(name="pretrain-teacher")
def pretrain_flow(data: str = "", output: str = "outputs/pretrain") -> dict[str, Any] | State:
    """Retrain the built-in teacher, its VAE and its classifier from the real images.

    Args:
        data: folder of the four Fashion-MNIST idx files; blank: where Debian puts them.
        output: folder for checkpoints and the finished model.
    """
    return run_in_lab(output, lambda place: pretrain(Path(data) if data else None, place))


def _reported(
    job: Callable[[Run, str], Distilled],
    points: Callable[[PipelineConfig], Sequence[Point]],
    settings: DistillSettings,
    run: Run,
    place: LabWorkplace,
) -> dict[str, Any]:
    if place.fan_out.elsewhere:
        _sampled_ahead(run, points(run.config), place)
    done = job(run, repeat_command(settings.source, settings.changes(), Path(settings.output), job.__name__))
    show_results(done.metrics, done.report, place.output)
    return done.metrics


def _sampled_ahead(run: Run, points: Sequence[Point], place: LabWorkplace) -> Trained:
    """The adapters, and their sample sets already made where other processes do the sampling."""
    trained = train_all(run, collect(run.check()))
    place.sample_ahead(trained, points)
    return trained
