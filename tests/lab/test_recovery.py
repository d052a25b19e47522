"""What the lab does when it is stopped, and when parts of it are killed. One home, three starts, in this order."""

import json
import os
import re
import signal
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.schemas.filters import FlowRunFilter
from prefect.states import Cancelling

from agd_core.basics.checkpoint import load_tensors
from flows.lab.flow_processes import flow_processes
from flows.lab.pool import POOL
from flows.stages.verify import verify
from tests.conftest import SMALL
from tests.lab.lab_process import RunningLab, free_port, running_lab, wait_for

TRAINING = [*SMALL, "train.steps=100000", "methods=[{kind: agd-modulated-mlp}]"]
UNITS = 30
COLLECTION = [*SMALL, f"collect.trajectories={4 * UNITS}", "collect.steps=20"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recovery")


@pytest.fixture(scope="module")
def port():
    return free_port()


def steps_of(checkpoint: Path) -> int:
    return int(json.loads(load_tensors(checkpoint)[1])["step"])


def collected(lab: RunningLab) -> dict[str, int]:
    """When each unit of the collection was committed."""
    return {path.name: path.stat().st_mtime_ns for path in lab.work_folder.glob("collected/**/index/u-*.parquet")}


def children(lab: RunningLab) -> dict[str, int]:
    """The process ids of server and worker."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (folder / "status").exists():
            status = (folder / "status").read_text()
            if f"PPid:\t{lab.process.pid}\n" in status:
                command = (folder / "cmdline").read_bytes().split(b"\0")
                found[command[2].decode().removeprefix("flows.lab.").removesuffix("_process")] = int(folder.name)
    return found


def is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def states(lab: RunningLab, run: UUID) -> list[tuple[str, str]]:
    """Name and message of every state that a run has had."""
    with lab.client() as client:
        found = sorted(client.read_flow_run_states(run), key=lambda state: state.timestamp)
    return [(state.name or "", state.message or "") for state in found]


def steps_shown(lab: RunningLab, run: UUID) -> int | None:
    """How far its newest progress artifact says that a training is."""
    with lab.client() as client:
        found = client.read_artifacts(flow_run_filter=FlowRunFilter(id={"any_": [run]}), sort="UPDATED_DESC")
    shown = [re.search(r"(\d+) of 100000", artifact.description or "") for artifact in found]
    return next((int(match[1]) for match in shown if match), None)


@pytest.fixture(scope="module")
def drained(folder, port):
    """Start 1: a training is running when Ctrl-C is pressed. What was there then."""
    with running_lab(folder / "home", folder / "work", port) as lab:
        run = lab.trigger("train-adapter/train-adapter", settings={"overrides": TRAINING})
        steps = wait_for(lambda: steps_shown(lab, run.id))
        family = children(lab)
        code = lab.stop()
    seen = {"steps": steps, "printed": lab.printed(), "worker log": lab.worker_log.read_text()}
    return {"run": run.id, "code": code, "family": family, "work": lab.work_folder} | seen


@pytest.fixture(scope="module")
def lab(drained, folder, port):
    """Start 2, in the same home; it is killed in the end."""
    with running_lab(folder / "home", folder / "work", port) as running:
        yield running


def test_ctrl_c_waits_for_the_checkpoint(drained):
    assert drained["code"] == 0
    assert "to checkpoint" in drained["printed"]
    (checkpoint,) = drained["work"].rglob("checkpoint.safetensors")
    assert steps_of(checkpoint) >= drained["steps"]


def test_ctrl_c_stops_worker_and_server(drained):
    assert set(drained["family"]) == {"server", "worker"}
    assert not any(map(is_running, drained["family"].values()))
    assert "stopped!" in drained["worker log"].splitlines()[-1], "SIGTERM must reach it, also where SIGINT was ignored"


def test_the_next_start_frees_the_pool_and_goes_on(drained, lab):
    (checkpoint,) = drained["work"].rglob("checkpoint.safetensors")
    before = steps_of(checkpoint)
    lab.wait_for_state(drained["run"], "Running")
    names = [name for name, _ in states(lab, drained["run"])]
    assert names[names.index("Running") + 1] == "Crashed"
    with lab.client() as client:
        assert not client.read_work_pool(POOL).is_paused
    assert "1 interrupted run goes on" in lab.printed()
    seen = steps_shown(lab, drained["run"])
    assert wait_for(lambda: now if (now := steps_shown(lab, drained["run"])) != seen else None) >= before


def test_a_killed_worker_is_replaced_and_its_run_resumes_by_itself(drained, lab):
    (flow,) = flow_processes(lab.lab)
    os.killpg(children(lab)["worker"], signal.SIGKILL)
    wait_for(lambda: not is_running(flow.pid))
    wait_for(lambda: lab.run(drained["run"]).run_count == 3)
    assert "the worker has died (SIGKILL); starting it again" in lab.printed()
    assert ("AwaitingRetry", "agd: resumed after a crash") in states(lab, drained["run"])


def test_a_cancelled_run_frees_the_pool(drained, lab):
    with lab.client() as client:
        client.set_flow_run_state(drained["run"], Cancelling())
    lab.wait_for_state(drained["run"], "Cancelled")
    wait_for(lambda: not flow_processes(lab.lab))


def test_a_killed_server_is_replaced_and_no_unit_is_lost(lab):
    output = "collected"
    run = lab.trigger("collect-trajectories/collect-trajectories", settings={"overrides": COLLECTION, "output": output})
    wait_for(lambda: len(collected(lab)) >= 5)
    os.killpg(children(lab)["server"], signal.SIGKILL)
    before = collected(lab)
    wait_for(lambda: "the server is up again" in lab.printed())
    lab.wait_for_state(run.id, "Completed")
    after = collected(lab)
    assert len(after) == UNITS > len(before)
    assert before.items() <= after.items()
    assert verify(lab.work_folder / output, repair=False)["ok"]


def test_killing_agd_up_ends_worker_and_server(drained, lab):
    run = lab.trigger("train-adapter/train-adapter", settings={"overrides": TRAINING})
    wait_for(lambda: steps_shown(lab, run.id))
    family = children(lab)
    assert set(family) == {"server", "worker"}
    lab.process.kill()
    lab.process.wait()
    wait_for(lambda: not any(map(is_running, family.values())))
    drained["left running"] = run.id


def test_the_start_after_that_finds_the_run_and_goes_on(drained, lab, folder, port):
    run = drained["left running"]
    with running_lab(folder / "home", folder / "work", port) as again:
        assert [name for name, _ in states(again, run)].count("Crashed") == 1
        wait_for(lambda: again.run(run).run_count == 2)
        (flow,) = flow_processes(again.lab)
        again.process.send_signal(signal.SIGINT)
        wait_for(lambda: "to checkpoint" in again.printed())
        again.process.send_signal(signal.SIGINT)
        assert again.process.wait(60) == 0
        assert "stopping the server" in again.printed()
        assert not is_running(flow.pid)
