"""Which crashed runs go on by themselves, and how often: decided by what is so, never by an event.

A death is reported twice, by the worker's runner and by the worker, and the second report may come when the run was
queued again already. A rule that waits for an event loses such a run; here a run that is Crashed, for whatever reason
and after whatever else, is found at the next look.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateName,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import TaskRunSort
from prefect.states import AwaitingRetry, Failed

from flows.lab.pool import POOL

AUTO_RESUME_TAG = "autoresume"
AUTO_RESUMED = "agd: resumed after a crash"
"""How the message of a state begins that queues a crashed run again; the limit counts these."""
FOR_A_PERSON = "press Retry to go on"
"""How the message of a state ends that waits for a person."""
MAX_AUTO_RESUMES = 3
_RETRIED = "AwaitingRetry"
_REMEMBERED = timedelta(days=1)
"""Older crashes are history: nobody wants last month's runs back when the lab starts."""


def crashed_runs(client: SyncPrefectClient) -> list[FlowRun]:
    """The runs in the pool that are Crashed and resume by themselves, without those that wait for a person."""
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CRASHED])),
            tags=FlowRunFilterTags(all_=[AUTO_RESUME_TAG]),
            end_time=FlowRunFilterEndTime(after_=datetime.now(UTC) - _REMEMBERED),
        ),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])),
    )
    return [run for run in runs if not message_of(run).endswith(FOR_A_PERSON)]


def resume(client: SyncPrefectClient, run: FlowRun, why: str, announce: Callable[[str], None]) -> None:
    """Queue a crashed run again, or, where it got nowhere a few times in a row, set it Failed and say why.

    Args:
        client: of the lab's server.
        run: as it was read just now.
        why: what is known of the crash beside the run's own message; may be blank.
        announce: gets a line for a person.
    """
    since = _last_finished_task(client, run.id)
    if auto_resumes(client.read_flow_run_states(run.id), since) < MAX_AUTO_RESUMES:
        state: State = AwaitingRetry(message=": ".join(filter(None, (AUTO_RESUMED, why))))
    else:
        last = why or message_of(run)
        state = Failed(
            message=f"crashed and resumed {MAX_AUTO_RESUMES} times, at last: {last}; read the logs, then {FOR_A_PERSON}"
        )
    client.set_flow_run_state(run.id, state, force=True)
    announce(f"run {run.name!r} has crashed and {'goes on' if state.is_scheduled() else f'is {state.name} now'}")


def auto_resumes(states: Iterable[State], since: datetime | None = None) -> int:
    """How often a run was resumed by itself and began again, since a person last retried it, from all its states.

    A resume that a late report of the same death has undone, before anybody took the run, is the same as the next one.

    Args:
        states: all of a run's states, in any order.
        since: do not count what was before; when the run last finished a task, for one.
    """
    count, waiting = 0, False
    for state in sorted(states, key=lambda state: state.timestamp):
        if state.name != _RETRIED:
            waiting = waiting and state.type != StateType.PENDING
        elif not (state.message or "").startswith(AUTO_RESUMED):
            count, waiting = 0, True
        elif since is None or state.timestamp > since:
            count, waiting = count + (not waiting), True
    return count


def _last_finished_task(client: SyncPrefectClient, run_id: UUID) -> datetime | None:
    """When the run last finished a task that it did itself, rather than found in the cache."""
    tasks = client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])),
        task_run_filter=TaskRunFilter(
            state=TaskRunFilterState(name=TaskRunFilterStateName(any_=["Completed"])),
        ),
        sort=TaskRunSort.END_TIME_DESC,
        limit=1,
    )
    return tasks[0].end_time if tasks else None


def message_of(run: FlowRun) -> str:
    """The message of a run's state; empty where it has none."""
    return (run.state.message if run.state else None) or ""
