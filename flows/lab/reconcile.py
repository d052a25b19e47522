"""Runs whose process is gone must not hold the pool: with one place in it, one of them would block all others."""

from collections.abc import Callable
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType, WorkerStatus
from prefect.states import AwaitingRetry, Crashed

from flows.lab.flow_processes import all_ended, end_all, flow_processes
from flows.lab.lab import Lab
from flows.lab.pool import POOL

AUTO_RESUME_TAG = "autoresume"
_ACTIVE = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
_WORKER_LABEL = "prefect.worker.name"
_TOLD_SECONDS = 20.0
"""A flow is told by the kernel when its worker dies, and checkpoints; a second signal would cut that short."""
_ORPHAN_SECONDS = 40.0


def active_runs(client: SyncPrefectClient, lab: Lab) -> list[FlowRun]:
    """The runs in the pool that this machine's worker has, or had; all of them, unless other workers are online."""
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_ACTIVE))),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])),
    )
    workers = client.read_workers_for_work_pool(POOL)
    alone = not any(worker.status == WorkerStatus.ONLINE and worker.name != lab.worker_name for worker in workers)
    return [run for run in runs if alone or run.labels.get(_WORKER_LABEL) == lab.worker_name]


def free_pool(client: SyncPrefectClient, lab: Lab, announce: Callable[[str], None]) -> None:
    """Set runs Crashed that have lost their worker. To be called while this lab's worker is not running."""
    if orphans := flow_processes(lab):
        announce(f"waiting for {len(orphans)} flow process(es) without a worker to checkpoint and end")
        if not all_ended(lab, _TOLD_SECONDS):
            end_all(lab, _ORPHAN_SECONDS)
    for run in active_runs(client, lab):
        announce(f"run {run.name!r} was left {run.state_name} by a worker that is gone: Crashed")
        crash(client, run, "agd up: the worker that had this run is gone")


def crash(client: SyncPrefectClient, run: FlowRun, reason: str) -> None:
    """Set a run Crashed whatever it is now; it can be retried."""
    client.set_flow_run_state(run.id, Crashed(message=reason), force=True)


def go_on(client: SyncPrefectClient, run_ids: list[UUID]) -> int:
    """Queue runs again that a stop of the lab interrupted, where they resume by themselves; returns how many."""
    stopped = client.read_flow_runs(flow_run_filter=FlowRunFilter(id={"any_": run_ids})) if run_ids else []
    resumed = [run for run in stopped if AUTO_RESUME_TAG in run.tags and _is_interrupted(run)]
    for run in resumed:
        client.set_flow_run_state(run.id, AwaitingRetry(message="agd up: started again"), force=True)
    return len(resumed)


def _is_interrupted(run: FlowRun) -> bool:
    return run.state_type == StateType.CRASHED or run.state_name == "AwaitingRetry"
