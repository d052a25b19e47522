"""How every flow of the lab runs: one line for bad input, a checkpoint on cancel, an end when its worker ends."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from threading import Event
from typing import Any, TypeVar

from httpx import TransportError
from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Crashed, Failed

from agd_core.basics.errors import InputError
from agd_core.basics.progress import Stopped
from agd_core.data.dataset import reader_death
from flows.config import PipelineConfig
from flows.lab.artifacts import show_artefact
from flows.lab.confines import check_cluster, check_places, own_folder
from flows.lab.gpu_slot import GpuSlot
from flows.lab.parameters import FanOut, Settings
from flows.lab.progress import ArtifactProgress
from flows.lab.workplace import LabWorkplace
from flows.machine.out_of_memory import memory_line
from flows.workplace import output_folder, pick_device

_NAME_LENGTH = 120
_POLL_SECONDS = 0.5

R = TypeVar("R")


def run_in_lab(output: str, work: Callable[[LabWorkplace], R], settings: Settings | None = None) -> R | State:
    """Do a flow's work in a workplace of the lab; bad input ends the run as Failed, with one line.

    Memory that ran out, a killed reader of batches, or a server that is away for longer than its client tries again,
    ends it as Crashed, with one line: the next try may fare better.

    Raises:
        TerminationSignal: told to end, and stopped at a safe point; Prefect knows whether that is a cancel or a crash.
    """
    stop = Event()
    with GpuSlot() as slot:
        try:
            place = _workplace(output, stop, slot, settings)
            return _beside_signals(partial(work, place), stop)
        except InputError as error:
            return Failed(message=str(error))
        except Exception as error:
            if line := memory_line(error) or _reader_line(error) or _server_line(error):
                return Crashed(message=line)
            raise


def _reader_line(error: Exception) -> str:
    """One line where a process that reads batches was killed; empty for every other error."""
    death = error if isinstance(error, ChildProcessError) else reader_death(error)
    return str(death) if death else ""


def _server_line(error: Exception) -> str:
    """One line where the Prefect server could not be reached; empty for every other error."""
    return f"the Prefect server could not be reached: {error}" if isinstance(error, TransportError) else ""


def _beside_signals(work: Callable[[], R], stop: Event) -> R:
    """Do work in a thread, so that signals reach Prefect's own handler in the main thread, which knows a cancel from
    the end of a worker. On a signal the work is asked to stop, and Prefect goes on once it has come to a safe point.
    """
    with ThreadPoolExecutor(1, "stages") as pool:
        working = pool.submit(copy_context().run, work)
        try:
            while not working.done():
                wait([working], timeout=_POLL_SECONDS)
        except BaseException:
            stop.set()
            _wait_out(working)
            raise
        return working.result()


def _wait_out(working: Future[Any]) -> None:
    """Wait for the safe point, however often the signal is repeated; who will not wait can send SIGKILL."""
    while not working.done():
        with suppress(TerminationSignal):
            wait([working])
    if isinstance(stopped := working.exception(), Stopped):
        get_run_logger().warning(str(stopped))


def run_name() -> str:
    """What a run does, for its name: the flow, the preset and what was changed."""
    given = flow_run.parameters.get("settings") or {}
    filled: dict[str, Any] = given.model_dump(mode="json") if isinstance(given, Settings) else given
    source = filled.get("config_file") or filled.get("preset") or Settings().source
    boxes = {name: filled.get(name) or {} for name in PipelineConfig.model_fields if name != "methods"}
    changes = [f"{name}.{key}={value}" for name, box in boxes.items() for key, value in box.items()]
    words = [str(flow_run.flow_name), str(source), *changes, *filled.get("overrides", [])]
    return " ".join(words)[:_NAME_LENGTH]


def _workplace(output: str, stop: Event, slot: GpuSlot, settings: Settings | None) -> LabWorkplace:
    folder, config = own_folder(output, "output"), settings.config() if settings else PipelineConfig()
    check_places(config)
    check_cluster(settings.fan_out.address if settings else "")
    return LabWorkplace(
        output_folder(folder),
        pick_device("auto"),
        get_run_logger().info,
        ArtifactProgress,
        stop.is_set,
        slot,
        settings.fan_out if settings else FanOut(),
        config,
        show_artefact,
    )
