"""Which runs are ended because their worker is gone, and what a stop leaves for the next start."""

import json

import pytest
from prefect.client.schemas.objects import StateType
from prefect.states import Pending, Running

from flows.lab.drain import drain, undo_drain
from flows.lab.pool import POOL, pause_pool
from flows.lab.reconcile import end_runs, free_pool

UNTAGGED = "nightly-evaluation/nightly-evaluation"


@pytest.fixture
def client(paused):
    """Of a lab in which no run starts."""
    return paused


def left(client, state, worker=None):
    """A run that has no process."""
    run = client.create_flow_run_from_deployment(client.read_deployment_by_name(UNTAGGED).id)
    client.set_flow_run_state(run.id, state, force=True)
    if worker:
        client.update_flow_run_labels(run.id, {"prefect.worker.name": worker})
    return run.id


def freed(client, lab, run) -> str:
    free_pool(client, lab.lab, lambda line: None)
    return client.read_flow_run(run).state_name


@pytest.mark.parametrize("state", [Running(), Pending()], ids=lambda state: state.name)
def test_runs_without_a_process_are_crashed(lab, client, state):
    assert freed(client, lab, left(client, state)) == "Crashed"


def test_what_a_person_was_cancelling_is_not_resumed(client):
    run = client.read_flow_run(left(client, Running()))
    cancelling = run.model_copy(update={"state_type": StateType.CANCELLING})
    end_runs(client, [cancelling], "tested", lambda line: None)
    assert client.read_flow_run(run.id).state_name == "Cancelled"


def test_runs_of_another_machine_are_left_alone_while_it_is_online(lab, client):
    ours, theirs = left(client, Running(), lab.lab.worker_name), left(client, Running(), "gpu-elsewhere")
    client.send_worker_heartbeat(POOL, "gpu-elsewhere", heartbeat_interval_seconds=1.0)
    assert freed(client, lab, ours) == "Crashed"
    assert client.read_flow_run(theirs).state_name == "Running"
    client.request("DELETE", f"/work_pools/{POOL}/workers/gpu-elsewhere").raise_for_status()
    assert freed(client, lab, theirs) == "Crashed"


@pytest.mark.parametrize("by_a_person", [True, False])
def test_only_our_own_pause_is_undone(lab, client, by_a_person):
    pause_pool(client, by_a_person)
    drain(client, lab.lab, pytest.fail)
    assert client.read_work_pool(POOL).is_paused
    undo_drain(client, lab.lab, pytest.fail)
    assert client.read_work_pool(POOL).is_paused == by_a_person
    pause_pool(client, False)


def test_what_a_drain_notes_survives_a_kill_in_the_middle_of_it(lab, client, monkeypatch):
    monkeypatch.setattr("flows.lab.drain.pause_pool", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        drain(client, lab.lab, pytest.fail)
    note = lab.lab.folder / "drained.json"
    assert json.loads(note.read_text()) == {"paused_by_us": True, "runs": []}
    monkeypatch.undo()
    undo_drain(client, lab.lab, pytest.fail)
    assert not note.exists()
