"""The flows through Prefect's engine and a real (temporary) server, in this process."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prefect.artifacts import Artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterFlowRunId
from prefect.settings import PREFECT_API_URL, PREFECT_LOCAL_STORAGE_PATH, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from agd_core.basics.checkpoint import load_tensors
from agd_core.data import trajectory
from flows.jobs import JOBS
from flows.lab.flows import collect_flow, distill_flow, evaluate_flow, sample_flow, shootout_flow, sweep_flow
from flows.lab.parameters import FanOut, form_of
from flows.stages.verify import verify
from tests.calls import watch
from tests.conftest import SMALL
from tests.lab.lab_process import wait_for
from tests.soak import short

FORMS = {job.name: form_of(job) for job in JOBS}
MOST_CALLS = 18
ONE_ADAPTER = "methods=[{kind: agd-modulated-mlp}]"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    results = {PREFECT_LOCAL_STORAGE_PATH: str(tmp_path_factory.mktemp("results"))}
    with prefect_test_harness(server_startup_timeout=180), temporary_settings(results):
        yield


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def ran(server, output):
    return distill_flow(settings(output), return_state=True)


def settings(output, *changes, job="distill", **sections):
    return FORMS[job](overrides=[*SMALL, ONE_ADAPTER, *changes], output=str(output), **sections)


def run_and_count(flow, given):
    """The state of a run, and the names of its task runs by how they ended."""
    state = flow(given, return_state=True)
    assert state.is_completed(), state.message
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))

        def recorded():
            """All task runs, once the server has recorded the end of each: it learns of them by events."""
            runs = client.read_task_runs(flow_run_filter=wanted)
            return (runs,) if all(run.state and run.state.is_final() for run in runs) else None

        (runs,) = wait_for(recorded)
    ended = {}
    for run in runs:
        ended.setdefault(run.state_name, set()).add(re.split("[ -]", run.name)[0])
    return {name: sorted(stages) for name, stages in ended.items()}


def test_the_chain_runs_and_leaves_its_report(ran, output):
    assert ran.is_completed(), ran.message
    assert [row["nfe"] for row in ran.result()["rows"]] == [4, 8, 4]
    assert (output / "report.html").is_file()


def test_the_table_the_grids_and_the_way_to_the_report_are_an_artifact(ran, output):
    shown = Artifact.get("results").data
    assert "| CFG |" in shown
    assert shown.count("data:image/png;base64,") >= 3
    assert str(output / "report.html") in shown
    assert len(shown) < 1_000_000


def test_samples_and_losses_are_artifacts(ran):
    with get_client(sync_client=True) as client:
        keys = {artifact.key or "" for artifact in client.read_artifacts()}
    assert any(key.startswith("sample-cfg-scale-2") for key in keys)
    assert any(key == "train-agd-modulated-mlp" for key in keys)


def test_a_second_run_recomputes_nothing(ran, output):
    assert run_and_count(distill_flow, settings(output)) == {
        "Cached": ["collect", "evaluate", "features", "prediction", "sample", "train", "write"]
    }


def test_another_evaluation_runs_the_evaluation_and_what_follows_it(ran, output):
    ended = run_and_count(distill_flow, settings(output, "evaluate.distance_subsets=7"))
    assert ended == {
        "Cached": ["collect", "features", "prediction", "sample", "train"],
        "Completed": ["evaluate", "write"],
    }


def test_another_folder_is_not_served_from_the_first(ran, tmp_path):
    """The key holds no path, so the record is found; that the artefact is not here is found too."""
    collect_flow(settings(tmp_path, job="collect"), return_state=True)
    assert verify(tmp_path)["ok"]


def shards(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("latents/c.*")}


def damage_by_truncation(path):
    path.write_bytes(path.read_bytes()[:-10])


def damage_by_one_byte(path):
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", short([damage_by_one_byte, Path.unlink, damage_by_truncation]))
def test_a_deleted_or_torn_shard_is_made_anew_and_no_other(server, tmp_path, damage):
    given = settings(tmp_path, job="collect")
    run_and_count(collect_flow, given)
    whole = verify(tmp_path)["digest"]
    before = shards(tmp_path)
    torn = sorted(before)[1]
    damage(torn)
    ended = run_and_count(collect_flow, given)
    assert ended["Completed"] == ["collect", "unit"]
    after = shards(tmp_path)
    assert {path for path in after if after[path] != before[path]} == {torn}
    assert verify(tmp_path)["digest"] == whole


CHANGES = [
    ("collect.seed=1", "collect"),
    ("collect.trajectories=16", "collect"),
    ("collect.kept_steps=2", "collect"),
    ("collect.guidance_scale_max=4", "collect"),
    ("guidance.guided_channels=2", "collect"),
    ("train.steps=7", "train"),
    ("train.learning_rate=0.001", "train"),
    ("methods.0.hidden_width=16", "train"),
    ("sample.seed=2", "sample"),
    ("sample.steps=3", "sample"),
    ("sample.guidance_scales=[1.5]", "sample"),
    ("evaluate.distance_subsets=6", "evaluate"),
]
CHAIN = ["collect", "train", "sample", "features", "evaluate", "write"]


FIRST_OF_EACH_STAGE = (0, 5, 8, 11)


@pytest.mark.parametrize(("change", "first"), short(CHANGES, FIRST_OF_EACH_STAGE, several=True))
def test_no_stage_is_served_from_before_a_change(ran, output, change, first):
    """Of the stage that a change touches, and of all after it, no run may come from the cache, but for those
    sample sets that the change leaves alone (without guidance, with CFG)."""
    ended = run_and_count(distill_flow, settings(output, change))
    before, after = CHAIN[: CHAIN.index(first)], CHAIN[CHAIN.index(first) :]
    assert set(before) <= set(ended.get("Cached", []))
    assert set(after) <= set(ended["Completed"])
    assert first not in ended.get("Cached", []) or first == "sample"


def test_a_sweep_takes_over_the_headlines_cells(ran, output):
    ended = run_and_count(sweep_flow, settings(output, "sample.sweep_schedulers=[euler]", job="sweep"))
    assert set(ended["Cached"]) >= {"collect", "train", "sample", "features", "evaluate"}
    assert set(ended["Completed"]) == {"sample", "features", "evaluate", "write"}
    assert (output / "sweep.html").is_file()
    assert str(output / "sweep.html") in Artifact.get("results").data


def test_a_shootout_takes_over_the_collection_and_trains_every_seed(ran, output):
    ended = run_and_count(shootout_flow, settings(output, "shootout.seeds=[1,2]", job="shootout"))
    assert "collect" in ended["Cached"]
    assert set(ended["Completed"]) >= {"train", "sample", "features", "evaluate", "write"}
    found = json.loads((output / "shootout.json").read_text())
    assert [run["name"] for run in found["runs"]] == ["agd-modulated-mlp-seed-1", "agd-modulated-mlp-seed-2"]
    assert str(output / "shootout.html") in Artifact.get("results").data


def test_names_say_what_a_run_does(ran):
    with get_client(sync_client=True) as client:
        names = {run.name for run in client.read_flow_runs()}
    assert any(name.startswith("distill fashion-dit collect.trajectories=12") for name in names)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["collect.guidance_scale_min=9"], "collect: guidance_scale_min 9 must be below guidance_scale_max 5"),
        (["train.no_such=1"], "train.no_such"),
        (["sample.guidance_scales=[2, 2]"], "sample"),
        (["evaluate.extractor=inception"], "evaluate.extractor"),
        (["guidance.guided_channels=99"], "guidance.guided_channels 99"),
        (["nonsense"], "override 'nonsense'"),
    ],
)
def test_what_the_form_cannot_check_fails_with_one_line(server, tmp_path, changes, named):
    state = distill_flow(settings(tmp_path, *changes), return_state=True)
    assert state.is_failed()
    assert named in state.message
    assert "\n" not in state.message


def test_the_log_of_a_run_says_what_was_reused(ran, output):
    state = collect_flow(settings(output, job="collect"), return_state=True)
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        wait_for(lambda: any(log.message.startswith("trajectories: cached") for log in client.read_logs(wanted)))


def stop_a_process_once(there_is, flow, given):
    """Run a flow in a process of its own, as a worker does, and send it SIGTERM; Prefect ends with the same signal."""
    code = f"from flows.lab.flows import {flow} as run; run({given.model_dump(mode='json')!r})"
    environment = os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value(), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL) as process:
        while not there_is() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM


def test_a_stop_within_a_mapped_unit_keeps_the_committed_ones(server, tmp_path):
    """The signal reaches the main thread; the units, in threads, see it through the shared wish to stop."""
    given = settings(tmp_path, "collect.trajectories=80", "collect.steps=50", job="collect")
    stop_a_process_once(lambda: list(tmp_path.rglob("index/*.parquet")), "collect_flow", given)
    assert 1 <= len(list(tmp_path.rglob("index/*.parquet"))) < 20
    assert run_and_count(collect_flow, given)["Completed"] == ["collect", "unit"]
    assert verify(tmp_path)["ok"]


def test_sigterm_checkpoints_the_training(server, tmp_path):
    given = settings(tmp_path, "train.steps=100000", job="train")
    stop_a_process_once(lambda: list(tmp_path.rglob("adapter-*")), "train_flow", given)
    (checkpoint,) = tmp_path.rglob("checkpoint.safetensors")
    assert json.loads(load_tensors(checkpoint)[1])["step"] > 0


def test_the_stages_before_sampling_are_enough_for_its_flow(ran, output):
    ended = run_and_count(sample_flow, settings(output, job="sample"))
    assert ended == {"Cached": ["collect", "sample", "train"]}
    ended = run_and_count(
        evaluate_flow, settings(output, job="evaluate")
    )  # another command repeats it, so its report is another
    cached = ["collect", "evaluate", "features", "prediction", "sample", "train"]
    assert ended == {"Cached": cached, "Completed": ["write"]}


def test_a_setting_of_a_stage_is_few_calls_from_the_form(server, tmp_path, monkeypatch):
    seen = watch(monkeypatch, trajectory, "build_scheduler")
    run_and_count(collect_flow, settings(tmp_path, job="collect", collect={"steps": 5, "kept_steps": 2}))
    assert max(map(len, seen)) <= MOST_CALLS, max(seen, key=len)


@pytest.mark.parametrize("runner", short(["dask", "ray"]))
def test_other_processes_collect_and_sample_the_same(server, tmp_path, runner):
    folders = {"threads": tmp_path / "threads", runner: tmp_path / runner}
    for name, folder in folders.items():
        given = settings(folder, job="sample", fan_out=FanOut(runner=name))
        state = sample_flow(given, return_state=True)
        assert state.is_completed(), state.message
    here, there = (verify(folder)["digest"] for folder in folders.values())
    assert here == there
