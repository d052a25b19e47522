"""Every method of a configuration on one collection, trained with several seeds: `agd shootout`."""

from functools import partial
from typing import Any

from agd_core.basics.errors import InputError
from flows.config import PipelineConfig
from flows.published import refuse_foreign_files
from flows.run import Run
from flows.stages.collect import collect
from flows.stages.comparison import compare, scale_points
from flows.stages.contest import Trial, contest_of, measure_costs_of_methods
from flows.stages.distill import Distilled, train_all
from flows.stages.report import Made, ReportFiles, read_metrics, report
from flows.stages.shootout_report import write_shootout
from flows.stages.training_cost import SECONDS, TURNS, measure_steps
from flows.workplace import describe_device

SHOOTOUT = ReportFiles("shootout.html", "shootout.json")
_HOUR = 3600.0


def trials(config: PipelineConfig) -> list[Trial]:
    """Every method with every seed.

    Raises:
        InputError: a method has a seed of its own.
    """
    for number, method in enumerate(config.methods):
        if method.train and method.train.seed is not None:
            raise InputError(f"methods.{number}.train.seed: a shoot-out trains with shootout.seeds; leave it out")
    return [Trial(method, seed) for method in config.methods for seed in config.shootout.seeds]


def shootout(run: Run, command: str) -> Distilled:
    """Collect once, train every method with every seed, compare all at every guidance scale, measure costs, report.

    Whatever is finished is reused, whatever was interrupted is resumed; the adapters stay among the artefacts.

    Args:
        run: everything.
        command: what a person types to repeat this run, for the report.

    Raises:
        InputError: see `trials` and `Run.check`.
        Stopped: when asked to; run again to go on.
    """
    refuse_foreign_files(run.place.output, (SHOOTOUT.page, SHOOTOUT.metrics))
    wanted = trials(run.config)
    config = run.config.model_copy(update={"methods": tuple(trial.config for trial in wanted)})
    whole = Run(config, run.place, run.check().model)
    trajectories = collect(whole)
    adapters = train_all(whole, trajectories)
    compared = compare(whole, adapters, scale_points(config))
    extras = measure_costs_of_methods(run, list(zip(wanted, (artefact for _, artefact in adapters), strict=True)))
    contest = contest_of(run, wanted, compared, extras)
    made = Made(whole, command, trajectories, adapters, compared, extras)
    written = report(made, SHOOTOUT, partial(write_shootout, contest))
    return Distilled(written, read_metrics(written, SHOOTOUT))


def training_plan(run: Run) -> dict[str, Any]:
    """What a training step of every method costs here, and how many of them take as long as the first method's steps.

    A preset fixes such numbers in `methods.N.train.steps`, so that it repeats what it did whatever a step takes then.
    """
    config, seeds = run.config, len(trials(run.config)) // len(run.config.methods)
    with run.place.on_device("measure training steps"):
        costs = measure_steps(run, config.methods, run.place.progress("measure training steps"), SECONDS, TURNS)
    rows: list[dict[str, Any]] = []
    for method, cost in zip(config.methods, costs, strict=True):
        steps, each = config.training_of(method).steps, cost["seconds_per_step"]
        first = rows[0]["seconds"] if rows else steps * each
        rows.append({**cost, "steps": steps, "seconds": steps * each, "equal_time_steps": max(1, round(first / each))})
    hours = seeds * sum(row["seconds"] for row in rows) / _HOUR
    return {"device": describe_device(run.place.device), "methods": rows, "seeds": seeds, "training_hours": hours}


def training_lines(plan: dict[str, Any]) -> list[str]:
    """The same for people."""
    first = plan["methods"][0]
    return [
        *(
            f"{row['name']}: {1e3 * row['seconds_per_step']:.4g} ms a training step of {row['batch_size']}, "
            f"{row['steps']:,} steps take {row['seconds']:.4g} s; {row['equal_time_steps']:,} steps take as long as "
            f"{first['name']}'s {first['steps']:,}; {row['peak_memory_megabytes']:.4g} MB"
            for row in plan["methods"]
        ),
        f"training with {plan['seeds']} seeds: about {plan['training_hours']:.2g} hours on {plan['device']}, measured "
        "now",
    ]
