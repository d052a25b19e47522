"""A night on a real lab: one run per adapter, and for the one that was made worse an alarm and what answers it."""

import pytest
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

from flows.registry import register
from flows.stages.nightly import evaluate_registered
from flows.stages.verdicts import open_history
from flows.workplace import Workplace
from tests.flows.nights import QUICK, change_weights, train_small, with_noise
from tests.lab.lab_process import wait_for

NIGHTLY = "nightly-evaluation/nightly-evaluation"
ADAPTERS = ("kept", "spoilt")


@pytest.fixture(scope="module")
def output(teacher, tmp_path_factory):
    """Two registered adapters, one night measured; then one of them is spoilt."""
    folder = tmp_path_factory.mktemp("nights")
    for name in ADAPTERS:
        adapter = train_small(teacher, folder / name)
        entry = register(adapter, name, "fashion-dit", QUICK, Workplace(folder / "outputs"))
        evaluate_registered(entry, "2026-11-20", Workplace(folder / "outputs"))
    (spoilt,) = (folder / "spoilt").rglob("adapter.safetensors")
    change_weights(spoilt.parent, teacher, with_noise)
    return folder / "outputs"


def night_of(lab, output, night):
    """Run a night to its end; the runs of its adapters, by name."""
    parent = lab.trigger(NIGHTLY, output=str(output), night=night)
    lab.wait_for_state(parent.id, "Completed")
    runs = {name: wait_for(lambda name=name: named(lab, f"evaluate {name} {night}"))[0] for name in ADAPTERS}
    return {name: lab.wait_for_state(run.id, "Completed", "Regressed", "Failed") for name, run in runs.items()}


def named(lab, name):
    with lab.client() as client:
        return client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])))


def test_a_spoilt_adapter_raises_the_alarm_and_is_measured_again(lab, output):
    runs = night_of(lab, output, "2026-11-21")
    assert {name: run.state_name for name, run in runs.items()} == {"kept": "Completed", "spoilt": "Regressed"}
    assert "paired_mse" in runs["spoilt"].state.message
    answer = wait_for(lambda: named(lab, "evaluate spoilt 2026-11-21-again"))[0]
    confirmed = lab.wait_for_state(answer.id, "Completed", "Regressed", "Failed")
    assert confirmed.state_name == "Regressed"
    assert named(lab, "evaluate kept 2026-11-21-again") == []


@pytest.mark.soak
def test_an_adapter_that_was_away_is_measured_when_the_night_is_asked_for_again(lab, output):
    folder = output.parent / "kept"
    folder.rename(output.parent / "away")
    assert night_of(lab, output, "2026-11-22")["kept"].state_name == "Failed"
    (output.parent / "away").rename(folder)
    parent = lab.trigger(NIGHTLY, output=str(output), night="2026-11-22")
    lab.wait_for_state(parent.id, "Completed")
    lab.wait_for_state(named(lab, "evaluate kept 2026-11-22")[0].id, "Completed")


def test_a_night_that_is_retried_queues_and_appends_nothing_twice(lab, output):
    before = open_history(output).read("kept").records
    with lab.client() as client:
        count = len(client.read_flow_runs(limit=200))
    night_of(lab, output, "2026-11-21")
    with lab.client() as client:
        assert len(client.read_flow_runs(limit=200)) == count + 1
    assert open_history(output).read("kept").records == before
