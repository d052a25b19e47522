"""Runs on a real lab: cancelled and retried in the browser, killed, crowded, and asked for nonsense."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch
from playwright.sync_api import expect
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import State, StateType

from flows.lab.flow_processes import flow_processes
from flows.machine.device_lease import acquisitions
from flows.stages.verify import verify
from tests.chromium import chromium_path
from tests.lab.browser import browse
from tests.lab.lab_process import wait_for
from tests.leases import overlaps
from tests.soak import short

TRAIN, COLLECT, DISTILL = "train-adapter/train-adapter", "collect-trajectories/collect-trajectories", "distill/distill"
MANY = ["collect.trajectories=6000", "collect.steps=40", "collect.shard_trajectories=2", "collect.batch_size=2"]
LONG = ["collect.trajectories=80", "collect.steps=40", "collect.shard_trajectories=4", "collect.batch_size=4"]
UNITS = 20


def units(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("index/u-*.parquet")}


def log_lines(lab, run):
    with lab.client() as client:
        return [log.message for log in client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])))]


@pytest.fixture
def chromium():
    """Skips where there is none, before anything runs that the browser ends."""
    return chromium_path()


def cancel_in_the_browser(lab, run):
    """Until the run is Cancelled; it was not killed: it came to a safe point and said so."""
    with browse(lab) as browser:
        browser.open_run(str(run.id))
        browser.run_menu("Cancel", "Cancel Flow Run")
        lab.wait_for_state(run.id, "Cancelled")
    wait_for(lambda: any(line.startswith("stopped ") for line in log_lines(lab, run)))


def test_a_cancelled_training_keeps_its_checkpoint_and_the_next_run_goes_on_from_it(lab, chromium, tmp_path):
    given = {"preset": "fashion-dit-quick", "output": str(tmp_path), "train": {"steps": 100_000}}
    run = lab.trigger(TRAIN, settings=given)
    wait_for(lambda: any("training agd" in line for line in log_lines(lab, run)))
    cancel_in_the_browser(lab, run)
    assert len(list(tmp_path.rglob("checkpoint.safetensors"))) == 1
    following = lab.trigger(TRAIN, settings=given)
    wait_for(lambda: any("going on from" in line for line in log_lines(lab, following)))
    with lab.client() as client:
        client.set_flow_run_state(following.id, State(type=StateType.CANCELLING, name="Cancelling"))
    lab.wait_for_state(following.id, "Cancelled")


def test_a_cancelled_collection_keeps_its_units_and_a_retry_in_the_browser_does_the_others(lab, chromium, tmp_path):
    given = {"preset": "fashion-dit-quick", "output": str(tmp_path), "overrides": LONG}
    run = lab.trigger(COLLECT, settings=given)
    wait_for(lambda: len(units(tmp_path)) >= 3)
    cancel_in_the_browser(lab, run)
    committed = units(tmp_path)
    assert 3 <= len(committed) < UNITS
    with browse(lab) as browser:
        browser.open_run(str(run.id))
        expect(browser.page.get_by_text("Cancelled", exact=True).first).to_be_visible()
        browser.run_menu("Retry", "Retry")
        lab.wait_for_state(run.id, "Completed")
    after = units(tmp_path)
    assert len(after) == UNITS
    assert committed.items() <= after.items()
    assert verify(tmp_path)["ok"]


@pytest.mark.soak
def test_a_collection_of_three_thousand_units_is_cancelled_within_its_grace(lab, chromium, tmp_path):
    given = {"preset": "fashion-dit-quick", "output": str(tmp_path), "overrides": MANY, "fan_out": {"workers": 2}}
    run = lab.trigger(COLLECT, settings=given)
    wait_for(lambda: len(units(tmp_path)) >= 3)
    cancel_in_the_browser(lab, run)


def collected_unbroken(folder, overrides):
    """The digest that a run in process, without any server, gives."""
    changes = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "flows.cli", "collect", "fashion-dit-quick", *changes, "--output", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return verify(folder)["digest"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The digest of the collection that is killed below."""
    return collected_unbroken(tmp_path_factory.mktemp("unbroken"), [*LONG, "collect.seed=7"])


@pytest.mark.parametrize("killed", short(["the flow and its worker", "the flow"]))
def test_what_is_killed_goes_on_by_itself_to_the_same_content(lab, tmp_path, unbroken, killed):
    given = {"preset": "fashion-dit-quick", "output": str(tmp_path), "overrides": [*LONG, "collect.seed=7"]}
    run = lab.trigger(COLLECT, settings=given)
    wait_for(lambda: len(units(tmp_path)) >= 3)
    (process,) = flow_processes(lab.lab)
    for pid in [process.pid] if killed == "the flow" else [lab_worker(lab), process.pid]:
        os.kill(pid, signal.SIGKILL)
    committed = units(tmp_path)
    assert len(committed) < UNITS
    lab.wait_for_state(run.id, "Completed")
    states = lab.state_names(run.id)
    assert states.index("Crashed") < states.index("AwaitingRetry") < states.index("Completed")
    after = units(tmp_path)
    assert committed.items() <= after.items()
    assert len(after) == UNITS
    assert verify(tmp_path)["digest"] == unbroken


def lab_worker(lab):
    """The worker's process id: the child of `agd up` that is not the server."""
    for folder in Path("/proc").glob("[0-9]*"):
        command = (folder / "cmdline").read_bytes().decode().split("\0")
        parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
        if "worker" in command and int(parent) == lab.process.pid:
            return int(folder.name)
    raise AssertionError("no worker")


def test_three_runs_and_a_local_training_share_one_device(lab, tmp_path):
    before = len(acquisitions(torch.device("cpu")))
    runs = [
        lab.trigger(COLLECT, settings={"preset": "fashion-dit-quick", "output": str(tmp_path), "collect": {"seed": n}})
        for n in range(3)
    ]
    local = [sys.executable, "-m", "flows.cli", "train", "fashion-dit-quick", "--output", str(tmp_path / "local")]
    subprocess.run(local, check=True, capture_output=True)
    for run in runs:
        lab.wait_for_state(run.id, "Completed")
    log = acquisitions(torch.device("cpu"))[before:]
    assert len({entry["pid"] for entry in log}) >= 4
    assert overlaps(log) == []


WRONG = [
    ({"preset": "no-such"}, "settings.preset"),
    ({"bogus": 1}, "bogus"),
    ({"collect": {"bogus": 1}}, "bogus"),
    ({"collect": {"trajectories": 0}}, "settings.collect.trajectories"),
    ({"collect": {"steps": 1001}}, "settings.collect.steps"),
    ({"collect": {"steps": "many"}}, "settings.collect.steps"),
    ({"collect": {"scheduler": "heun"}}, "settings.collect.scheduler"),
    ({"collect": {"dtype": "int8"}}, "settings.collect.dtype"),
    ({"train": {"learning_rate": 2.0}}, "settings.train.learning_rate"),
    ({"train": {"warmup_fraction": 1.0}}, "settings.train.warmup_fraction"),
    ({"sample": {"images": 1}}, "settings.sample.images"),
    ({"sample": {"guidance_scales": "2"}}, "settings.sample.guidance_scales"),
    ({"methods": ["nothing"]}, "settings.methods"),
    ({"fan_out": {"workers": 0}}, "settings.fan_out.workers"),
    ({"fan_out": {"runner": "slurm"}}, "settings.fan_out.runner"),
]


@pytest.mark.parametrize(("settings", "named"), WRONG)
def test_wrong_settings_are_refused_before_a_run_exists(lab, settings, named):
    with lab.client() as client:
        deployment = client.read_deployment_by_name(DISTILL)
    url = f"{lab.api_url}/deployments/{deployment.id}/create_flow_run"
    answer = httpx.post(url, json={"parameters": {"settings": settings}}, auth=tuple(lab.lab.auth.split(":")))
    assert answer.status_code == 409
    assert named in answer.json()["detail"]


@pytest.fixture
def no_start(paused):
    """Runs wait; those that a test has made are deleted."""
    before = {run.id for run in paused.read_flow_runs()}
    yield
    for run in paused.read_flow_runs():
        if run.id not in before:
            paused.delete_flow_run(run.id)


def test_runs_that_ten_threads_ask_for_are_all_made(lab, no_start):
    """A browser does not try again as Prefect's clients do; SQLite must not turn anybody away."""
    with lab.client() as client:
        url = f"{lab.api_url}/deployments/{client.read_deployment_by_name(COLLECT).id}/create_flow_run"

    def ask(_: int) -> int:
        return httpx.post(url, json={}, timeout=120, auth=tuple(lab.lab.auth.split(":"))).status_code

    with ThreadPoolExecutor(10) as threads:
        assert set(threads.map(ask, range(40))) == {201}


def test_an_unknown_parameter_fails_with_one_line_and_is_not_resumed(lab):
    """Prefect's server lets these pass, whatever the schema says."""
    run = lab.trigger(DISTILL, settngs={})
    failed = lab.wait_for_state(run.id, "Failed", "Crashed")
    assert failed.state.message == "settngs: no such parameter; allowed: settings"
    assert "AwaitingRetry" not in lab.state_names(run.id)
