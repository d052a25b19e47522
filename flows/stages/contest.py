"""From trainings with several seeds, and what was measured of each, to the entries of the shoot-out."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agd_core.evaluation.over_seeds import over_seeds
from agd_core.evaluation.relative_error import with_relative_error
from agd_core.evaluation.rows import Row
from agd_core.methods import MethodConfig
from agd_core.methods.own_training import OwnTraining
from agd_core.report.shootout import Contest, Contestant, Spent
from flows.run import Run
from flows.stages.comparison import Compared, methods
from flows.stages.cost import SECONDS, cost, read_cost
from flows.stages.extras import Extras
from flows.stages.training_cost import read_training_cost, training_cost
from storage.artefacts import Artefact

_SECONDS_EACH = 3.0
"""About how long the cost of one of many methods is measured."""


@dataclass(frozen=True)
class Trial:
    """One training: a method of the configuration with one of the seeds."""

    method: MethodConfig
    seed: int

    @property
    def config(self) -> MethodConfig:
        """The method under a name of its own, with this seed."""
        own = (self.method.train or OwnTraining()).model_copy(update={"seed": self.seed})
        return self.method.model_copy(update={"name": f"{self.method.label}-seed-{self.seed}", "train": own})


TrainedTrials = Sequence[tuple[Trial, Artefact]]
"""Every training with its adapter."""


def measure_costs_of_methods(run: Run, trained: TrainedTrials) -> Extras:
    """What a sampler's step and a training step cost, once per method however often it was trained.

    Args:
        run: with the methods as the configuration has them.
        trained: all trainings.

    Raises:
        Stopped: when asked to; run again to go on.
    """
    if not run.config.evaluate.measure_cost:
        return Extras()
    measured = set(_alike(run, _costs_alike).values())
    adapters = {trial.method.label: (trial.method, artefact) for trial, artefact in reversed(trained)}
    chosen = [adapters[method.label] for method in run.config.methods if method.label in measured]
    compared = methods(run.config, chosen)
    sampling = cost(run, compared, max(SECONDS, _SECONDS_EACH * len(compared)))
    return Extras(sampling, training_cost=training_cost(run, [method for method, _ in chosen]))


def contest_of(run: Run, trials: Sequence[Trial], compared: Sequence[Compared], extras: Extras) -> Contest:
    """Every way to sample as one entry, with the means over its seeds.

    Args:
        run: with the methods as the configuration has them.
        trials: all trainings.
        compared: every row, by scale.
        extras: the costs, if they were measured.
    """
    rows: dict[str, list[Row]] = {}
    for item in compared:
        rows.setdefault(item.row.name, []).append(item.row)
    entries, names = _Entries(run, rows, extras), {trial.config.label for trial in trials}
    untrained = [entries.untrained(name) for name in rows if name not in names]
    trained = [entries.trained([it for it in trials if it.method is method]) for method in run.config.methods]
    return Contest((*untrained[:2], *trained, *untrained[2:]))


class _Entries:
    """Makes entries of rows and costs, both by name."""

    def __init__(self, run: Run, rows: Mapping[str, Sequence[Row]], extras: Extras) -> None:
        self._run, self._rows = run, rows
        self._alike, self._methods = _alike(run, _costs_alike), _alike(run, _is_method)
        self._costs = _by_name(read_cost(extras.cost)["methods"] if extras.cost else ())
        training = read_training_cost(extras.training_cost)["methods"] if extras.training_cost else ()
        self._training = _by_name(training)

    def untrained(self, name: str) -> Contestant:
        """No guidance, the teacher, or a rule."""
        return Contestant(self._related(self._rows[name]), name, cost=self._costs.get(name))

    def trained(self, trials: Sequence[Trial]) -> Contestant:
        """A method with one budget, and all its seeds."""
        label, by_seed = trials[0].method.label, [self._rows[trial.config.label] for trial in trials]
        means = [over_seeds(rows, label) for rows in zip(*by_seed, strict=True)]
        return Contestant(
            self._related(means),
            pictured=trials[0].config.label,
            method=self._methods[label],
            spent=self._spent(trials, [rows[0].training_seconds for rows in by_seed]),
            cost=self._costs.get(self._alike[label]),
        )

    def _related(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """With their error as a share of no guidance's, which comes first."""
        bare = next(iter(self._rows.values()))
        return tuple(with_relative_error(row, unguided) for row, unguided in zip(rows, bare, strict=True))

    def _spent(self, trials: Sequence[Trial], seconds: Sequence[float | None]) -> Spent:
        method = trials[0].method
        training, measured = self._run.config.training_of(method), self._training.get(self._alike[method.label], {})
        return Spent(
            steps=training.steps,
            batch_size=training.batch_size,
            seeds=tuple(trial.seed for trial in trials),
            own_steps=method.train is not None and method.train.steps is not None,
            seconds=tuple(seconds),
            seconds_per_step=measured.get("seconds_per_step"),
            peak_memory_megabytes=measured.get("peak_memory_megabytes"),
        )


def _by_name(costs: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {each["name"]: each for each in costs}


def _is_method(run: Run, method: MethodConfig) -> Any:
    """What it is, however it was trained."""
    return method.identity()


def _costs_alike(run: Run, method: MethodConfig) -> Any:
    """What a step of it costs depends on this."""
    return [method.identity(), run.config.training_of(method).batch_size]


def _alike(run: Run, key: Callable[[Run, MethodConfig], Any]) -> dict[str, str]:
    """By every method's label that of the first one with an equal key."""
    firsts: dict[str, str] = {}
    keys = {method.label: json.dumps(key(run, method), sort_keys=True) for method in run.config.methods}
    return {label: firsts.setdefault(mine, label) for label, mine in keys.items()}
