"""The processes of flow runs on this machine, found without asking any server."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from flows.lab.lab import Lab

_PROCESSES = Path("/proc")
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class FlowProcess:
    """The process that a worker started for a flow run; it leads a session of its own."""

    pid: int
    flow_run: UUID

    def ask_to_stop(self) -> None:
        """SIGTERM to it alone: it checkpoints and ends what it has started."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to all of its session's first group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def flow_processes(lab: Lab) -> list[FlowProcess]:
    """What this machine's worker of the lab has started and still runs, also if that worker is dead."""
    return [FlowProcess(pid, run) for pid, run in _processes(lab) if _leads_a_session(pid)]


def all_ended(lab: Lab, seconds: float) -> bool:
    """Wait until no flow process is left; whether that was so within this time."""
    deadline = time.monotonic() + seconds
    while flow_processes(lab):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def end_all(lab: Lab, seconds: float) -> None:
    """Ask every flow process to checkpoint and end; kill what is left after this time."""
    for process in flow_processes(lab):
        process.ask_to_stop()
    if not all_ended(lab, seconds):
        kill_all(lab)


def kill_all(lab: Lab) -> None:
    """End every flow process now."""
    for process in flow_processes(lab):
        process.kill()


def runs_with_a_process(lab: Lab) -> set[UUID]:
    """The runs that any process on this machine was started for, whatever that process is."""
    return {run for _, run in _processes(lab)}


def kill_processes_of(lab: Lab, flow_run: UUID) -> None:
    """End every process that was started for a run, now."""
    for pid, run in _processes(lab):
        if run == flow_run:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _processes(lab: Lab) -> Iterator[tuple[int, UUID]]:
    """Process ids and flow runs of what this machine's worker has started, and of what that has started in turn."""
    ours = {"PREFECT__WORKER_NAME": lab.worker_name, "PREFECT_API_URL": lab.api_url}
    for folder in _PROCESSES.iterdir():
        if not folder.name.isdigit():
            continue
        environment = _environment(folder)
        if ours.items() <= environment.items():
            yield int(folder.name), UUID(environment["PREFECT__FLOW_RUN_ID"])


def _environment(folder: Path) -> dict[str, str]:
    """A process's environment; empty for one that is gone, a zombie, or somebody else's."""
    try:
        raw = (folder / "environ").read_bytes()
    except OSError:
        return {}
    entries = (entry.partition(b"=") for entry in raw.split(b"\0") if entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in entries}


def _leads_a_session(pid: int) -> bool:
    with suppress(ProcessLookupError):
        return os.getsid(pid) == pid
    return False
