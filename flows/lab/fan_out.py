"""Units of collection and cells of sampling as mapped tasks: in threads here, or in processes of Dask or Ray.

What goes to other processes is plain data: they load the model themselves, and the store and the artefacts say what is
done already, so it does not matter who did it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.futures import PrefectFuture
from prefect.states import Cancelled
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import Task

from agd_core.basics.errors import InputError, NumericError
from agd_core.basics.progress import ShouldStop, Stopped
from agd_core.data.trajectory import collect_unit
from agd_core.methods import MethodConfig
from flows.config import PipelineConfig
from flows.lab.parameters import FanOut
from flows.run import Run
from flows.stages.comparison import Point, TrainedAdapters, every_cell
from flows.stages.sample import sample
from flows.workplace import Workplace, pick_device
from storage.artefacts import Artefact
from storage.objects import open_objects
from storage.trajectories.zarr_store import ZarrTrajectoryStore

_RETRIES = 2
_POLL_SECONDS = 0.2
_AHEAD = 2
"""Tasks that are submitted per worker; what is submitted goes through Prefect even after a stop, so it is not much."""
_HOPELESS = (InputError, NumericError)
_Trained = tuple[MethodConfig, tuple[Path, str, str]]
"""What was trained, and its artefact as plain data."""


@dataclass(frozen=True)
class Elsewhere:
    """All that another process needs to work on a run; plain data."""

    config: PipelineConfig
    device: str
    output: str
    """Folder of the artefacts, which every process must see."""

    def run(self) -> Run:
        """The run, whose base model and encoded prompts are made once per process."""
        return _run(self)


def sample_elsewhere(
    fan_out: FanOut, trained: TrainedAdapters, points: Sequence[Point], elsewhere: Elsewhere, should_stop: ShouldStop
) -> None:
    """Make every sample set at these points in other processes; the stages find them done.

    Raises:
        Stopped: when asked to.
    """
    folders = [(config, (artefact.path, artefact.stage, artefact.key)) for config, artefact in trained]

    def there(cell: int) -> None:
        _sample_cell(cell, folders, points, elsewhere)

    cells = range(len(list(every_cell(elsewhere.config, trained, points))))
    for _ in each(fan_out, "cell", there, cells, should_stop):
        pass


def each(
    fan_out: FanOut, name: str, work: Callable[[int], None], numbers: Sequence[int], should_stop: ShouldStop
) -> Iterator[int]:
    """Map a task over numbers and yield each that is done; naps in between to see a stop in the main thread.

    Args:
        fan_out: task runner and number of workers.
        name: of a task.
        work: does one number; in this process it polls `should_stop` itself.
        numbers: what to do.
        should_stop: asked while waiting.

    Raises:
        Stopped: when asked to.
        Exception: what a task failed with, after its retries.
    """

    @task(
        name=name,
        task_run_name=f"{name}-{{number}}",
        cache_policy=NO_CACHE,
        retries=_RETRIES,
        retry_delay_seconds=1,
        retry_condition_fn=_worth_retrying,
    )
    def one(number: int) -> State | None:
        try:
            work(number)
        except Stopped as stop:  # expected, so its page shows a line and no traceback
            return Cancelled(message=str(stop))
        return None

    left, waiting = iter(numbers), dict[int, PrefectFuture[Any]]()
    with _RUNNERS[fan_out.runner](fan_out) as runner:
        submit = _outside_of_tasks(runner.submit)
        while True:
            for number in islice(left, _AHEAD * fan_out.workers - len(waiting)):
                waiting[number] = submit(one, {"number": number})
            if not waiting:
                return
            if should_stop():
                raise Stopped("stopped between two units of work; run the same command again to resume")
            next(iter(waiting.values())).wait(timeout=_POLL_SECONDS)
            for number in [number for number, future in waiting.items() if future.state.is_final()]:
                ended = waiting.pop(number)
                if ended.state.is_cancelled():
                    raise Stopped(ended.state.message)
                ended.result()
                yield number


def _outside_of_tasks(call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, made as if from the flow itself: what is sent to other processes holds the task that it is sent from,
    and the task of a stage holds its whole workplace.
    """
    context = copy_context()
    context.run(TaskRunContext.__var__.set, None)  # type: ignore[arg-type]
    return partial(context.run, call)


def _worth_retrying(task: Task[..., Any], task_run: TaskRun, state: State) -> bool:
    try:
        state.result()
    except _HOPELESS:
        return False
    except Exception:
        return True
    return False


def collect_there(unit: int, store_url: str, elsewhere: Elsewhere) -> None:
    """One unit, unless somebody has committed it already."""
    store = ZarrTrajectoryStore.open(open_objects(store_url))
    if store.misses(unit):
        run = elsewhere.run()
        run.states.prepare()
        with store.write_unit(unit) as writer:
            collect_unit(run.states, run.model, store.plan, writer, run.config.collect)


def _sample_cell(cell: int, adapters: Sequence[_Trained], points: Sequence[Point], elsewhere: Elsewhere) -> None:
    """One sample set, as the artefact that the stage would make."""
    trained = [(config, Artefact(*folder)) for config, folder in adapters]
    method, wanted = list(every_cell(elsewhere.config, trained, points))[cell]
    sample(elsewhere.run(), wanted, method.name)


@lru_cache(maxsize=1)
def _run(elsewhere: Elsewhere) -> Run:
    return Run(elsewhere.config, Workplace(Path(elsewhere.output), pick_device(elsewhere.device)))


def _threads(fan_out: FanOut) -> Any:
    return ThreadPoolTaskRunner(max_workers=fan_out.workers)


def _dask(fan_out: FanOut) -> Any:
    from prefect_dask.task_runners import DaskTaskRunner

    if fan_out.address:
        return DaskTaskRunner(address=fan_out.address)
    return DaskTaskRunner(cluster_kwargs={"n_workers": fan_out.workers, "threads_per_worker": 1})


def _ray(fan_out: FanOut) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from prefect_ray.task_runners import RayTaskRunner

    if fan_out.address:
        return RayTaskRunner(address=fan_out.address)
    return RayTaskRunner(init_kwargs={"num_cpus": fan_out.workers, "include_dashboard": False})


_RUNNERS: dict[str, Callable[[FanOut], Any]] = {"threads": _threads, "dask": _dask, "ray": _ray}
"""By their name in the form. All but threads take work to other processes, whose runs are their own: two workers in one
process would share its model."""
