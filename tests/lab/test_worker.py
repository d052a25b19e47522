"""What somebody with the password could set over the API, and what the worker makes of it: nothing."""

import sys
from types import SimpleNamespace
from uuid import uuid4

import anyio
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.workers.base import BaseWorker

from flows.lab import engine
from flows.lab.deploying import entrypoints
from flows.lab.worker import LabJob, LabWorker

HOSTILE = {
    "command": "sh -c id",
    "env": {"LD_PRELOAD": "/evil.so", "PYTHONSTARTUP": "/evil.py", "PREFECT__FLOW_ENTRYPOINT": "evil.py:evil"},
    "env.PYTHONPATH": "/evil",
    "working_dir": "/",
    "stream_output": True,
    "name": "{{ ctx.flow.name }}",
}
POOL = {
    "job_configuration": {"command": "sh -c id", "env": {"LD_PRELOAD": "/evil.so"}, "working_dir": "/"},
    "variables": {"type": "object", "properties": {"command": {"default": "sh -c id"}}},
}


def run_of(**settings) -> FlowRun:
    return FlowRun(id=uuid4(), flow_id=uuid4(), name="run", **settings)


def job_of(run: FlowRun, deployment: DeploymentResponse | None) -> LabJob:
    async def read_flow(flow_id):
        return None

    async def resolve() -> LabJob:
        pool = SimpleNamespace(base_job_template=POOL, name="gpu", type="process", id=uuid4())
        client = SimpleNamespace(read_flow=read_flow)
        return await LabJob.resolve_for_flow_run(
            run, client=client, work_pool=pool, worker_name="gpu-0", deployment=deployment
        )

    return anyio.run(resolve)


def test_prefects_command_line_takes_our_worker_for_processes():
    assert BaseWorker.get_worker_class_from_type("process") is LabWorker


def test_neither_pool_nor_deployment_nor_run_choose_command_environment_or_folder():
    deployment = DeploymentResponse(
        id=uuid4(), name="collect-trajectories", flow_id=uuid4(), job_variables=dict(HOSTILE), entrypoint="evil.py:evil"
    )
    plain, asked = job_of(run_of(), None), job_of(run_of(job_variables=dict(HOSTILE)), deployment)
    assert asked.command == plain.command == f"{sys.executable} -m flows.lab.engine"
    assert (asked.working_dir, asked.stream_output) == (None, False)
    differing = {name for name in asked.env if asked.env[name] != plain.env.get(name)}
    assert {name for name in differing if not name.startswith("PREFECT__")} == set()
    assert "PREFECT__FLOW_ENTRYPOINT" not in asked.env
    assert "evil" not in str(asked.env)


class Server:
    """What the engine asks of a server, with one run."""

    def __init__(self, flow_name: str, **run) -> None:
        given = {"deployment_id": None, "flow_id": "flow", "job_variables": {}, "parameters": {}} | run
        self._run, self._flow = SimpleNamespace(**given), SimpleNamespace(name=flow_name)

    def read_flow_run(self, run_id):
        return self._run

    def read_flow(self, flow_id):
        return self._flow

    def read_flow_run_states(self, run_id):
        return []


@pytest.mark.parametrize("name", [*HOSTILE])
def test_the_engine_refuses_a_run_that_got_job_variables_all_the_same(name):
    refusal = engine._refusal(Server("distill", job_variables={name: HOSTILE[name]}), uuid4())
    assert refusal == f"{name}: a run of this lab takes the parameters of its form only"


def test_the_engine_runs_our_flows_and_no_others():
    assert all(engine._refusal(Server(name), uuid4()) is None for name in entrypoints())
    assert engine._refusal(Server("evil"), uuid4()).startswith(
        "evil: no flow of this lab; it has collect-trajectories,"
    )
