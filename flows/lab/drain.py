"""Stopping without losing work: no new runs, the running ones checkpoint, and the next start goes on with them."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, StateType

from agd_core.basics.atomic import write_bytes
from flows.lab.flow_processes import flow_processes, kill_all
from flows.lab.lab import Lab
from flows.lab.pool import POOL, pause_pool
from flows.lab.reconcile import active_runs, end_runs, go_on, read_runs

DRAIN_SECONDS = 120.0
_POLL_SECONDS = 0.5


def drain(client: SyncPrefectClient, lab: Lab, announce: Callable[[str], None]) -> None:
    """Pause the pool and end its runs at their next checkpoint; a second Ctrl-C or two minutes end them at once."""
    ours = not client.read_work_pool(POOL).is_paused
    runs = [run.id for run in active_runs(client, lab)]
    write_bytes(json.dumps({"paused_by_us": ours, "runs": [str(run) for run in runs]}).encode(), _note(lab))
    pause_pool(client, True)
    try:
        _await_end(client, lab, announce)
    except KeyboardInterrupt:
        announce("not waiting any longer")
    kill_all(lab)
    end_runs(client, active_runs(client, lab), "stopped before it had reached a checkpoint", announce)
    for run in read_runs(client, runs):
        announce(f"run {run.name!r} is {run.state_name} now")


def undo_drain(client: SyncPrefectClient, lab: Lab, announce: Callable[[str], None]) -> None:
    """After a start: what the last drain paused and interrupted goes on; a person's own pause is kept."""
    note = _note(lab)
    if not note.exists():
        return
    try:
        drained = json.loads(note.read_text(encoding="utf-8"))
        paused_by_us, runs = bool(drained["paused_by_us"]), [UUID(run) for run in drained["runs"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        announce(f"{note} cannot be read ({error}): if the pool is paused, resume it in the UI")
        paused_by_us, runs = False, []
    if paused_by_us:
        pause_pool(client, False)
    if count := go_on(client, runs):
        announce(f"{count} interrupted run goes on" if count == 1 else f"{count} interrupted runs go on")
    note.unlink()


def _await_end(client: SyncPrefectClient, lab: Lab, announce: Callable[[str], None]) -> None:
    asked: set[UUID] = set()
    deadline = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < deadline and (runs := active_runs(client, lab)):
        told = asked | {run.id for run in runs if run.state_type == StateType.CANCELLING}
        for process in flow_processes(lab):
            if process.flow_run not in told:
                announce(f"waiting for {_name(runs, process.flow_run)} to checkpoint; press Ctrl-C again to end it now")
                process.ask_to_stop()
                asked.add(process.flow_run)
        time.sleep(_POLL_SECONDS)


def _name(runs: list[FlowRun], wanted: UUID) -> str:
    return next((f"run {run.name!r}" for run in runs if run.id == wanted), f"run {wanted}")


def _note(lab: Lab) -> Path:
    return lab.folder / "drained.json"
