"""What the server does by itself, with events that are sent to a real one."""

import json
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from uuid import uuid4

import anyio
import pytest
from prefect._internal.uuid7 import uuid7
from prefect.client.schemas.filters import DeploymentFilter
from prefect.events import Event
from prefect.events.schemas.automations import AutomationCore
from prefect.server.events.ordering import EventArrivedEarly
from prefect.server.events.schemas.events import ReceivedEvent, Resource
from prefect.states import Cancelled, Running

from flows.lab.automations import NOTIFY_BLOCK, install_automations
from flows.lab.event_ordering import CausalOrdering
from flows.lab.nightly_flows import REGRESSED
from tests.lab.lab_process import wait_for

UNTAGGED = "nightly-evaluation/nightly-evaluation"
CONFIRM = "evaluate-registered/evaluate-registered"
POSTED_AGAIN_AFTER_SECONDS = 30.0


@contextmanager
def receiver():
    """A web server that keeps what it is sent."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", received
        server.shutdown()
        thread.join()


def first_answer(paused, received, payload):
    """What the web server is sent; an event that comes before the server knows the automation is posted again."""
    due = 0.0

    def posted():
        nonlocal due
        if time.monotonic() > due:
            event = Event(event=REGRESSED, resource={"prefect.resource.id": "agd.adapter.mine"}, payload=payload)
            paused.request("POST", "/events", json=[event.model_dump(mode="json")]).raise_for_status()
            due = time.monotonic() + POSTED_AGAIN_AFTER_SECONDS
        return received

    return wait_for(posted)[0]


def test_a_regression_is_confirmed_and_told(lab, paused):
    payload = {"adapter": "mine", "night": "2026-11-21", "output": "elsewhere", "regressed": ["fd"]}
    with receiver() as (url, received):
        install_automations(paused, lab.lab, url, pytest.fail)
        message = first_answer(paused, received, payload)
    assert message == {"text": "adapter mine got worse in night 2026-11-21\n['fd'] in elsewhere"}
    deployment = paused.read_deployment_by_name(CONFIRM)
    runs = wait_for(lambda: paused.read_flow_runs(deployment_filter=DeploymentFilter(id={"any_": [deployment.id]})))
    assert runs[0].parameters == {"adapter": "mine", "night": "2026-11-21", "output": "elsewhere", "confirm": True}
    for run in runs:
        paused.set_flow_run_state(run.id, Cancelled(), force=True)
    block = paused.read_block_document_by_name(NOTIFY_BLOCK, "custom-webhook")
    paused.delete_block_document(block.id)
    install_automations(paused, lab.lab, None, pytest.fail)


def test_a_run_that_falls_silent_is_crashed(lab, paused):
    """Its last heartbeat is from 30 of the 90 seconds ago.

    Prefect's server looks every 90 seconds at the latest, and forgets 60 seconds after they are over.
    """
    run = paused.create_flow_run_from_deployment(paused.read_deployment_by_name(UNTAGGED).id)
    paused.set_flow_run_state(run.id, Running(), force=True)
    beat = Event(
        event="prefect.flow-run.heartbeat",
        resource={"prefect.resource.id": f"prefect.flow-run.{run.id}"},
        occurred=datetime.now(UTC) - timedelta(seconds=30),
    )
    paused.request("POST", "/events", json=[beat.model_dump(mode="json")]).raise_for_status()
    assert lab.wait_for_state(run.id, "Crashed").state.message == "agd: no heartbeat for 90 seconds"
    paused.delete_flow_run(run.id)


def test_what_an_earlier_version_installed_is_removed_and_a_persons_own_is_kept(lab, paused):
    (ours,) = paused.read_automations_by_name("agd: an adapter got worse")
    for name in ("agd: resume what crashed", "mine"):
        paused.create_automation(AutomationCore.model_validate(ours.model_dump() | {"name": name}))
    install_automations(paused, lab.lab, None, pytest.fail)
    assert paused.read_automations_by_name("agd: resume what crashed") == []
    (mine,) = paused.read_automations_by_name("mine")
    paused.delete_automation(mine.id)


def test_an_automation_that_a_person_switched_off_stays_off(lab, paused):
    (automation,) = paused.read_automations_by_name("agd: an adapter got worse")
    paused.pause_automation(automation.id)
    install_automations(paused, lab.lab, None, pytest.fail)
    (again,) = paused.read_automations_by_name("agd: an adapter got worse")
    assert (again.id, again.enabled) == (automation.id, False)
    paused.resume_automation(automation.id)


class TestOrder:
    """`uuid7` ids begin with the time that they were made at."""

    BEFORE_THE_START = uuid7(0)

    @staticmethod
    def event(follows):
        resource = Resource({"prefect.resource.id": "prefect.flow-run.1"})
        name, now = "prefect.flow-run.Crashed", datetime.now(UTC)
        return ReceivedEvent(event=name, resource=resource, id=uuid4(), follows=follows, occurred=now)

    async def waits(self, follows) -> bool:
        try:
            await CausalOrdering(scope=str(uuid4())).wait_for_leader(self.event(follows))
        except EventArrivedEarly:
            return True
        return False

    @pytest.mark.parametrize(("follows", "waits"), [(BEFORE_THE_START, False), (uuid7(), True), (None, False)])
    def test_an_event_waits_for_none_from_before_the_start(self, follows, waits):
        assert anyio.run(self.waits, follows) == waits
