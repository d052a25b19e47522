"""Runs whose process is gone must not hold the pool: with one place in it, one of them would block all others."""

from collections.abc import Callable
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, WorkerStatus
from prefect.states import AwaitingRetry, Cancelled, Crashed

from flows.lab.flow_processes import all_ended, end_all, flow_processes
from flows.lab.lab import Lab
from flows.lab.pool import POOL
from flows.lab.resume import AUTO_RESUME_TAG

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


def own_runs(client: SyncPrefectClient, lab: Lab) -> list[FlowRun]:
    """The runs in the pool that this machine's worker has taken, and nobody else."""
    return [run for run in active_runs(client, lab) if run.labels.get(_WORKER_LABEL) == lab.worker_name]


def read_runs(client: SyncPrefectClient, run_ids: list[UUID]) -> list[FlowRun]:
    """These runs as they are now, without those that were deleted."""
    return client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=run_ids))) if run_ids else []


def free_pool(client: SyncPrefectClient, lab: Lab, announce: Callable[[str], None]) -> None:
    """End runs that have lost their worker. To be called while this lab's worker is not running."""
    if orphans := flow_processes(lab):
        announce(f"waiting for {len(orphans)} flow process(es) without a worker to checkpoint and end")
        if not all_ended(lab, _TOLD_SECONDS):
            end_all(lab, _ORPHAN_SECONDS)
    end_runs(client, active_runs(client, lab), "the worker that had this run is gone", announce)


def end_runs(client: SyncPrefectClient, runs: list[FlowRun], reason: str, announce: Callable[[str], None]) -> None:
    """Set runs Crashed, so that they can be retried; what a person was cancelling is Cancelled."""
    for run in runs:
        cancelled = run.state_type == StateType.CANCELLING
        state: State = (Cancelled if cancelled else Crashed)(message=f"agd up: {reason}")
        client.set_flow_run_state(run.id, state, force=True)
        announce(f"run {run.name!r} is {state.name}, it was {run.state_name}: {reason}")


def go_on(client: SyncPrefectClient, run_ids: list[UUID]) -> int:
    """Queue runs again that a stop of the lab interrupted, where they resume by themselves; returns how many."""
    resumed = [run for run in read_runs(client, run_ids) if AUTO_RESUME_TAG in run.tags and _is_interrupted(run)]
    for run in resumed:
        client.set_flow_run_state(run.id, AwaitingRetry(message="agd up: started again"), force=True)
    return len(resumed)


def _is_interrupted(run: FlowRun) -> bool:
    return run.state_type == StateType.CRASHED or run.state_name == "AwaitingRetry"
