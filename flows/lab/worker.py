"""The worker's process: Prefect's worker, which starts our engine and nothing else.

    python -m flows.lab.worker worker start --pool gpu --type process

Pools, deployments and runs of Prefect can name a command, an environment, a working folder and code of their own, and
whoever may ask the server can set them. This worker takes none of that from the server: every run is the same process,
which gets the run's number (see `flows.lab.engine`). Nor does it look for a flow's hooks, for which Prefect's own loads
the code that a deployment names: our flows have none, and PyTorch stays out of this process.
"""

import runpy
import shlex
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from anyio.abc import TaskStatus
from prefect.client.schemas.objects import FlowRun, State
from prefect.runner._flow_run_executor import FlowRunExecutorContext
from prefect.runner._process_manager import ProcessHandle
from prefect.runner._starter_engine import EngineCommandStarter
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

_ENGINE = shlex.join([sys.executable, "-m", "flows.lab.engine"])
_RUN_ENVIRONMENT = {
    "PREFECT_LOGGING_EXTRA_LOGGERS": "agd_core,storage,flows",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}


class LabJob(ProcessJobConfiguration):
    """How a run is started, whatever its pool, its deployment and itself ask for."""

    @classmethod
    async def from_template_and_values(
        cls, base_job_template: dict[str, Any], values: dict[str, Any], client: Any = None
    ) -> Self:
        """The same for every run; its output goes nowhere but to Prefect, so that it outlives the worker."""
        return cls(command=_ENGINE, env=dict(_RUN_ENVIRONMENT), stream_output=False)


class NoHooks:
    """What Prefect asks for hooks when a run was cancelled or has crashed."""

    async def run_cancellation_hooks(self, flow_run: FlowRun, state: State) -> None:
        """There are none."""

    async def run_crashed_hooks(self, flow_run: FlowRun, state: State) -> None:
        """There are none."""


@dataclass(frozen=True)
class _StartedAs:
    """Hands on the number of the process that has started."""

    told: TaskStatus[int] | None

    def started(self, value: ProcessHandle | None = None) -> None:
        if self.told and value and value.pid:
            self.told.started(value.pid)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that it takes the place of Prefect's worker for processes is what is wanted

    class LabWorker(ProcessWorker):
        """Starts runs of the lab."""

        job_configuration = LabJob

        async def run(
            self, flow_run: FlowRun, configuration: ProcessJobConfiguration, task_status: TaskStatus[int] | None = None
        ) -> ProcessWorkerResult:
            """Start a run's process in an empty folder and wait for its end.

            Raises:
                RuntimeError: it did not start.
            """
            with TemporaryDirectory(prefix="agd-run-") as folder:
                async with FlowRunExecutorContext() as context:
                    starter = EngineCommandStarter(
                        command=configuration.command,
                        cwd=Path(folder),
                        env=configuration.env,
                        stream_output=configuration.stream_output,
                        control_channel=context.control_channel,
                    )
                    executor = context.create_executor(
                        flow_run, starter, propose_submitting=False, hook_runner=NoHooks()
                    )
                    ended = await executor.submit(task_status=_StartedAs(task_status))
            if ended is None or ended.status_code is None:
                raise RuntimeError("the process of the run did not start")
            return ProcessWorkerResult(status_code=ended.status_code, identifier=str(ended.handle.pid))


if __name__ == "__main__":
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)
