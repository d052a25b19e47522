"""How long a whole run will take on this device, from a measured round of everything that it repeats: `agd doctor`."""

import time
from collections.abc import Collection
from typing import Any

import torch

from agd_core.evaluation.bench import Clock
from flows.run import Run
from flows.stages import cost
from flows.stages.repeatable import Repeatable
from flows.stages.repetitions import Repetition, repetitions
from flows.stages.stopwatch import Stopwatch
from flows.workplace import describe_device

SECONDS = 10.0
"""About how long is measured."""
_HOUR = 3600.0
_NOTES = (
    "of a run that finds nothing done; what lies finished in its output folder takes no time again",
    "left out: starting and loading, compiling and warming up, the bytes of the store, checkpoints, checksums, plots",
    "metrics as if their time grew with the images; those that compare all with all grow faster",
)


def predict_time(run: Run, seconds: float = SECONDS, clock: Clock = time.perf_counter) -> dict[str, Any]:
    """Every stage of a whole run: what is repeated, how often, and how long it will take; as plain data.

    Args:
        run: where nothing is done yet, with a device to measure on.
        seconds: about how long to measure; loading and a first round of everything come on top, and one more at least.
        clock: in seconds.

    Raises:
        InputError: the base model cannot be loaded, or the settings do not fit it.
        Stopped: asked to.
    """
    parts = repetitions(run.check())
    with run.place.on_device("measure what a run repeats"):
        measured = _measured(run, dict.fromkeys(part.work for part in parts), seconds, clock)
    stages = [_predicted(part, measured[part.work]) for part in parts]
    if run.config.evaluate.measure_cost:
        stages.append(_as_told())
    whole = sum(stage["seconds"] for stage in stages)
    return {
        "device": describe_device(run.place.device),
        "dtype": run.config.base_model.dtype,
        "torch": torch.__version__,
        "stages": stages,
        "seconds": whole,
        "hours": whole / _HOUR,
        "notes": list(_NOTES),
    }


def _measured(run: Run, works: Collection[Repeatable], seconds: float, clock: Clock) -> dict[Repeatable, float]:
    """Seconds per unit; every kind of work gets an equal share of the time that is left."""
    watch = Stopwatch(run.place.device, run.place.should_stop, clock)
    end = clock() + seconds
    found: dict[Repeatable, float] = {}
    for work in works:
        run.place.announce(f"doctor: measuring {work.text}")
        share = max(0.0, end - clock()) / (len(works) - len(found))
        found[work] = work.seconds_per_unit(run, watch, share)
    return found


def _predicted(part: Repetition, seconds_per_unit: float) -> dict[str, Any]:
    return {
        "stage": part.stage,
        "repeated": part.work.text,
        "units": part.units,
        "times": part.times,
        "seconds_each": part.work.together * seconds_per_unit,
        "seconds": part.units * seconds_per_unit,
    }


def _as_told() -> dict[str, Any]:
    """The stage that measures costs takes the time that it is given."""
    return {
        "stage": "cost",
        "repeated": "as long as it is told",
        "units": 1,
        "times": 1.0,
        "seconds_each": cost.SECONDS,
        "seconds": cost.SECONDS,
    }
