"""One real lab for all tests that only use it; tests that stop or kill one start their own (`lab_process.py`)."""

from collections.abc import Iterator

import pytest
from prefect.client.orchestration import SyncPrefectClient

from flows.lab.pool import POOL, QUEUE_PRIORITIES
from tests.lab.lab_process import RunningLab, running_lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory) -> RunningLab:
    """A started `agd up` in a temporary home on a free port, shared by the whole session: leave it as you found it."""
    folder = tmp_path_factory.mktemp("lab")
    tests = str(tmp_path_factory.getbasetemp())
    with running_lab(folder / "home", folder / "work", None, "--folder", tests) as running:
        yield running


@pytest.fixture
def paused(lab) -> Iterator[SyncPrefectClient]:
    """A client of the lab, in which no run starts meanwhile."""
    with lab.client() as client:
        queues = [client.read_work_queue_by_name(name, POOL) for name in QUEUE_PRIORITIES]
        for queue in queues:
            client.update_work_queue(queue.id, is_paused=True)
        yield client
        for queue in queues:
            client.update_work_queue(queue.id, is_paused=False)
