"""The worker's process: Prefect's worker, which starts our engine and nothing else.

    python -m flows.lab.worker worker start --pool gpu --type process

Pools, deployments and runs of Prefect can name a command, an environment, a working folder and code of their own, and
whoever may ask the server can set them. This worker takes none of that from the server: every run is the same process,
which gets the run's number (see `flows.lab.engine`).

Before Prefect calls a run Cancelled its worker loads the flow, to look for hooks. PyTorch and diffusers are behind that
import: the first cancel would wait 6 to 10 seconds for them, so they are loaded ahead.
"""

import runpy
import shlex
import sys
import warnings
from typing import Any, Self

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.workers import process

import flows.lab.flows
import flows.lab.nightly_flows  # noqa: F401 loaded for the worker
from flows.lab.deploying import entrypoints

ENGINE = shlex.join([sys.executable, "-m", "flows.lab.engine"])
RUN_ENVIRONMENT = {"PREFECT_LOGGING_EXTRA_LOGGERS": "agd_core,storage,flows", "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}


class LabJob(process.ProcessJobConfiguration):
    """How a run is started, whatever its pool, its deployment and itself ask for."""

    @classmethod
    async def from_template_and_values(
        cls, base_job_template: dict[str, Any], values: dict[str, Any], client: Any = None
    ) -> Self:
        """The same for every run; its output goes nowhere but to Prefect, so that it outlives the worker."""
        return cls(command=ENGINE, env=dict(RUN_ENVIRONMENT), stream_output=False)


async def flow_of_run(flow_run: FlowRun) -> Flow[..., Any]:
    """The flow of ours that a run names, in the place of Prefect's way to load it, which runs a deployment's steps.

    Raises:
        LookupError: it is none of ours.
    """
    async with get_client() as client:
        name = (await client.read_flow(flow_run.flow_id)).name
    return load_flow_from_entrypoint(entrypoints()[name], use_placeholder_flow=False)


def make_worker() -> type[process.ProcessWorker]:
    """Put a worker of ours in the place of Prefect's for processes."""
    setattr(process, "load_flow_from_flow_run", flow_of_run)  # noqa: B010 a name that the module does not export
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it takes that place is what is wanted

        class LabWorker(process.ProcessWorker):
            job_configuration = LabJob

    return LabWorker


if __name__ == "__main__":
    make_worker()
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)
