"""The whole chain through Prefect's engine and a real (temporary) server."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import yaml
from prefect.artifacts import Artifact
from prefect.client.orchestration import get_client
from prefect.flows import load_flow_from_entrypoint
from prefect.testing.utilities import prefect_test_harness

from agd_core.checkpoint import load_tensors
from flows.lab.flows import collect_flow, distill_flow, train_flow
from tests.conftest import SMALL

ROOT = Path(__file__).resolve().parents[2]
STAGE_TASKS = ("collect_trajectories", "sample_images", "evaluate_samples", "write_report")


@pytest.fixture(scope="module")
def server():
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture(scope="module")
def ran(server, tmp_path_factory):
    output = tmp_path_factory.mktemp("prefect")
    return output, distill_flow(overrides=list(SMALL), output=str(output), return_state=True)


def test_the_chain_runs_and_leaves_its_report(ran):
    output, state = ran
    assert state.is_completed(), state.message
    metrics = state.result()
    assert [row["nfe"] for row in metrics["rows"]] == [4, 8, 4, 4, 4]
    assert (output / "report.html").is_file()


def test_every_stage_was_a_task_run(ran):
    with get_client(sync_client=True) as client:
        names = [run.name for run in client.read_task_runs()]
    assert {"train-agd-modulated-mlp", "train-agd-offset-shared"} <= set(names)
    assert sum(name.startswith(STAGE_TASKS) for name in names) == len(STAGE_TASKS)


def test_the_results_table_is_an_artifact(ran):
    assert "| CFG |" in Artifact.get("results").data


def test_a_second_flow_reuses_everything(ran):
    output, _ = ran
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.safetensors")}
    assert collect_flow(overrides=list(SMALL), output=str(output)).startswith(str(output))
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.safetensors")} == before


def test_sigterm_checkpoints_the_training_and_the_next_run_goes_on_from_there(server, tmp_path):
    overrides = [*SMALL, "train.steps=100000", "adapters=[{kind: agd-modulated-mlp}]"]
    collect_flow(overrides=overrides, output=str(tmp_path))

    def cancel_once_it_trains():
        while not list(tmp_path.rglob("adapter-*")):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    cancel = threading.Thread(target=cancel_once_it_trains)
    cancel.start()
    state = train_flow(overrides=overrides, output=str(tmp_path), return_state=True)
    cancel.join()
    assert not state.is_completed()
    assert "run the same command again to resume" in state.message
    (checkpoint,) = tmp_path.rglob("checkpoint.safetensors")
    assert json.loads(load_tensors(checkpoint)[1])["step"] > 0


def test_a_wrong_setting_fails_with_one_line(server, tmp_path):
    state = collect_flow(overrides=["collect.steps=0"], output=str(tmp_path), return_state=True)
    assert state.is_failed()
    assert "collect.steps: Input should be greater than or equal to 1" in state.message


@pytest.mark.parametrize(
    "deployment", yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"], ids=lambda d: d["name"]
)
def test_deployments_name_real_flows_and_parameters(deployment, monkeypatch):
    monkeypatch.chdir(ROOT)
    flow = load_flow_from_entrypoint(deployment["entrypoint"])
    assert flow.description
    flow.validate_parameters(deployment.get("parameters", {}))
    assert set(deployment.get("parameters", {})) <= set(flow.parameters.properties)
