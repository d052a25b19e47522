"""What a configuration can be put through. Every job is a command, a Prefect flow with a form, and a deployment.

A further job is one more row here, and its name in prefect.yaml.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.run import Run
    from storage.artefacts import Artefact


@dataclass(frozen=True)
class Done:
    """What a job leaves."""

    data: dict[str, Any]
    """Plain data: folders by name in `artefacts`, or the numbers of a report."""
    report: Artefact | None = None


@dataclass(frozen=True)
class Job:
    """One row of the table."""

    name: str
    """The command."""
    flow: str
    """Its flow and its deployment."""
    sections: tuple[str, ...]
    """What its form shows of the configuration."""
    run: Callable[[Run, str], Done]
    """Does it; told what a person types to repeat it."""
    help: str
    plan: Callable[[Run], tuple[dict[str, Any], list[str]]] | None = None
    """What it would cost, as data and in words, where that can be said."""


def _collect(run: Run, command: str) -> Done:
    from flows.stages.collect import collect

    artefact = collect(run.check())
    return Done({"artefacts": {"trajectories": str(artefact.path)}, "digest": artefact.digest})


def _collection_costs(run: Run) -> tuple[dict[str, Any], list[str]]:
    from flows.stages.plan import plan_costs, plan_lines

    costs = plan_costs(run.check())
    return costs, plan_lines(costs)


def _train(run: Run, command: str) -> Done:
    from flows.published import refuse_foreign_files
    from flows.stages.collect import collect
    from flows.stages.distill import train_all
    from flows.stages.publish import publish_trained

    refuse_foreign_files(run.place.output, (), [method.label for method in run.config.methods])
    folders = publish_trained(run, train_all(run, collect(run.check())), command)
    return Done({"artefacts": {label: str(folder) for label, folder in folders.items()}})


def _sample(run: Run, command: str) -> Done:
    from flows.stages.collect import collect
    from flows.stages.comparison import sample_all
    from flows.stages.distill import train_all

    return Done({"artefacts": sample_all(run, train_all(run, collect(run.check())))})


def _distill(run: Run, command: str) -> Done:
    from flows.stages.distill import distill

    done = distill(run, command)
    return Done(done.metrics, done.report)


def _sweep(run: Run, command: str) -> Done:
    from flows.stages.distill import sweep

    done = sweep(run, command)
    return Done(done.metrics, done.report)


def _shootout(run: Run, command: str) -> Done:
    from flows.stages.shootout import shootout

    done = shootout(run, command)
    return Done(done.metrics, done.report)


def _training_costs(run: Run) -> tuple[dict[str, Any], list[str]]:
    from flows.stages.shootout import training_lines, training_plan

    plan = training_plan(run.check())
    return plan, training_lines(plan)


_COLLECT = ("base_model", "collect", "store")
_TRAIN = (*_COLLECT, "methods", "train")
_SAMPLE = (*_TRAIN, "sample")
_ALL = (*_SAMPLE, "evaluate")

JOBS = (
    Job("distill", "distill", _ALL, _distill, "The whole pipeline: collect, train, sample, evaluate, report."),
    Job("sweep", "sweep", _ALL, _sweep, "Compare all methods at every guidance scale, step count and sampler."),
    Job(
        "shootout",
        "shootout",
        (*_ALL, "shootout"),
        _shootout,
        "Train every method with several seeds on one collection and compare all.",
        _training_costs,
    ),
    Job("evaluate", "evaluate", _ALL, _distill, "Evaluate every sample set and report, after doing what is missing."),
    Job("collect", "collect-trajectories", _COLLECT, _collect, "Record guided trajectories.", _collection_costs),
    Job("train", "train-adapter", _TRAIN, _train, "Train the preset's methods, collecting first what is missing."),
    Job("sample", "sample", _SAMPLE, _sample, "Sample images with every method, training first what is missing."),
)
"""In the order in which the command line lists them; each resumes what was interrupted and reuses what is finished."""
