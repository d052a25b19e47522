"""What a training step of every method costs on this device: time and memory, measured side by side."""

from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from statistics import median

from typing_extensions import TypedDict

from agd_core.basics.atomic import write_json
from agd_core.basics.progress import Progress
from agd_core.memory.peak_memory import peak_memory
from agd_core.methods import MethodConfig
from flows.run import Run
from flows.stages.repeatable import TrainingStep
from flows.stages.stopwatch import Stopwatch
from flows.workplace import describe_device
from storage.artefacts import Artefact

STAGE, VERSION = "training-cost", 1
COSTS = "training_costs.json"
TURNS, SECONDS = 5, 20.0
"""See `measure_steps`."""
_REMEMBERED_STEPS = 2
"""From the second step on the optimizer has its moments."""
_MEGABYTE = 1e6
_HOW = ("activation_checkpointing", "compile", "optimizer_memory")
"""Settings of training that shape its cost and not what comes out."""


class StepCost(TypedDict):
    """What one training step of one method costs."""

    name: str
    batch_size: int
    seconds_per_step: float
    """The median over the turns, each of which is a median over steps."""
    seconds_by_turn: list[float]
    peak_memory_megabytes: float
    """10^6 bytes above the base's weights: the method's own, gradients, moments, activations."""
    memory_note: str


class StoredTrainingCosts(TypedDict):
    """What the file of an artefact of this stage holds."""

    device: str
    methods: list[StepCost]


class _Remembered(Exception):
    """Ends a training whose memory was seen; the work knows no end."""


def training_cost(run: Run, methods: Sequence[MethodConfig]) -> Artefact:
    """Measure a step of every method in this process, holding the device; all times are those of one run.

    Args:
        run: whose methods these are.
        methods: at the batch that each is trained with.

    Raises:
        Stopped: when asked to; run again to measure all of it.
    """
    config, place = run.config, run.place
    identity = {
        "version": VERSION,
        "base_model": run.model.network_digest(),
        "methods": [[method.label, method.identity(), _batch(run, method)] for method in methods],
        "how": {name: getattr(config.train, name) for name in _HOW},
        "device": describe_device(place.device),
        "versions": {name: version(name) for name in ("torch", "diffusers")},
    }

    def work(artefact: Artefact) -> None:
        place.announce(f"{STAGE}: time and memory of a step of {len(methods)} methods, about {SECONDS:g} s")
        with place.on_device("measure training steps"):
            costs = measure_steps(run, methods, place.progress("measure training steps"), SECONDS, TURNS)
        write_json({"device": describe_device(place.device), "methods": costs}, artefact.path / COSTS)

    return place.produce(STAGE, identity, work, measured=[COSTS], title="measure training steps")


def read_training_cost(artefact: Artefact) -> StoredTrainingCosts:
    """What was measured, the methods in order."""
    return artefact.json(COSTS, StoredTrainingCosts)


def measure_steps(
    run: Run, methods: Sequence[MethodConfig], on_progress: Progress, seconds: float, turns: int
) -> list[StepCost]:
    """The cost of a training step on random pairs; the methods take turns, so that a busy minute disturbs all alike.

    Args:
        run: whose methods these are.
        methods: at the batch that each is trained with.
        on_progress: told the turns.
        seconds: about how long to time steps; one of each method in every turn is, however long it takes.
        turns: how often every method has its turn.

    Raises:
        Stopped: when `should_stop` answered True.
    """
    works = [TrainingStep(_batch(run, method), method.label) for method in methods]
    memory = [_memory(run, work) for work in works]
    watch = Stopwatch(run.place.device, run.place.should_stop)
    share = seconds / (turns * len(works))
    times: list[list[float]] = [[] for _ in works]
    for turn in range(turns):
        for work, mine in zip(works, times, strict=True):
            mine.append(work.together * work.seconds_per_unit(run, watch, share))
        on_progress(turn + 1, turns, "turns")
    return [_cost(*measured) for measured in zip(works, times, memory, strict=True)]


def _cost(work: TrainingStep, times: list[float], memory: tuple[int, str]) -> StepCost:
    return {
        "name": work.label,
        "batch_size": work.together,
        "seconds_per_step": median(times),
        "seconds_by_turn": times,
        "peak_memory_megabytes": memory[0] / _MEGABYTE,
        "memory_note": memory[1],
    }


def _memory(run: Run, work: TrainingStep) -> tuple[int, str]:
    """(bytes, how they were measured) of the first steps, with all that is made for them."""
    left = _REMEMBERED_STEPS

    def tick(pairs: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise _Remembered

    def first_steps() -> None:
        with suppress(_Remembered):
            work.repeat(run, tick)

    return peak_memory(first_steps, run.place.device)


def _batch(run: Run, method: MethodConfig) -> int:
    return run.config.training_of(method).batch_size
