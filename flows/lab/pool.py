"""The work pool `gpu`: one worker, one run at a time, interactive ones before nightly ones."""

import shlex
import signal
import sys
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

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
        template = _job_template(ProcessWorker.get_default_base_job_template())
        client.create_work_pool(
            WorkPoolCreate(name=POOL, type="process", concurrency_limit=1, base_job_template=template)
        )
        return
    template = _job_template(pool.base_job_template)
    client.update_work_pool(
        POOL, WorkPoolUpdate(base_job_template=template, concurrency_limit=pool.concurrency_limit or 1)
    )


def _prepare_queue(client: SyncPrefectClient, name: str, priority: int) -> None:
    try:
        client.read_work_queue_by_name(name, work_pool_name=POOL)
    except ObjectNotFound:
        client.create_work_queue(name, priority=priority, work_pool_name=POOL)


def _job_template(template: dict[str, Any]) -> dict[str, Any]:
    """A pool's template with our engine; flows do not write to the worker's terminal, so they outlive the worker."""
    defaults = {"stream_output": False, "command": shlex.join([sys.executable, "-m", "flows.lab.engine"])}
    properties = template["variables"]["properties"]
    ours = {name: properties[name] | {"default": default} for name, default in defaults.items() if name in properties}
    return template | {"variables": template["variables"] | {"properties": properties | ours}}
