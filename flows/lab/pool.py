"""The work pool `gpu`: one worker, one run at a time, interactive ones before nightly ones."""

import signal
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound

from flows.lab.child import Child
from flows.lab.gpu_slot import SLOT
from flows.lab.lab import Lab

POOL = "gpu"
QUEUE_PRIORITIES = {"interactive": 1, "nightly": 10}


def worker_of(lab: Lab) -> Child:
    """The worker's process, not started. Orphaned, it is killed: asked to end, it would end its runs without a word."""
    arguments = ("worker", "start", "--pool", POOL, "--type", "process", "--name", lab.worker_name)
    return Child(lab, "worker", "flows.lab.worker", arguments, if_orphaned=signal.SIGKILL)


def prepare_pool(client: SyncPrefectClient) -> None:
    """Make what is missing of the pool, its queues and the slot; what a person changed or paused stays so."""
    _prepare_pool(client)
    for name, priority in QUEUE_PRIORITIES.items():
        _prepare_queue(client, name, priority)
    client.upsert_global_concurrency_limit_by_name(SLOT, 1)


def pause_pool(client: SyncPrefectClient, paused: bool) -> None:
    """Pause the pool, or let it go on."""
    client.update_work_pool(POOL, WorkPoolUpdate(is_paused=paused))


def _prepare_pool(client: SyncPrefectClient) -> None:
    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        new = WorkPoolCreate(name=POOL, type="process", concurrency_limit=1, base_job_template=_job_template())
        client.create_work_pool(new)
        return
    limit = pool.concurrency_limit or 1
    client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=_job_template(), concurrency_limit=limit))


def _prepare_queue(client: SyncPrefectClient, name: str, priority: int) -> None:
    try:
        client.read_work_queue_by_name(name, work_pool_name=POOL)
    except ObjectNotFound:
        client.create_work_queue(name, priority=priority, work_pool_name=POOL)


def _job_template() -> dict[str, Any]:
    """What the UI says of a run: there is nothing to set. Our worker starts every run alike and does not read this."""
    description = "A run takes the parameters of its form only: no command, environment or working folder."
    return {
        "job_configuration": {"stream_output": False},
        "variables": {"type": "object", "description": description, "properties": {}},
    }
