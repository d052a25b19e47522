"""The process of a flow run: refuses what cannot work before anything is loaded, then becomes Prefect's engine.

The pool's job template runs it in the engine's place. Prefect itself lets an unknown parameter crash with a traceback,
and such a crash would be resumed, for nothing.

Nor does the server say what code runs: a run names one of our flows and gives it parameters. Whatever entrypoint,
steps, storage or job variables somebody gave a deployment or a run over the API, none of it is used here.
"""

import os
import runpy
import signal
from contextlib import suppress
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.states import Failed

from agd_core.basics.parent_death import die_with_parent
from flows.lab.deploying import entrypoints

_ENTRYPOINT = "PREFECT__FLOW_ENTRYPOINT"
"""Tells Prefect's engine which flow to run, so that it does not ask the deployment."""


def main() -> None:
    """Run the flow run that the environment names, or set it Failed with one line that says why not.

    It leads a session of its own, as Prefect's engine does, so that what is sent to the worker's does not reach it.
    """
    with suppress(PermissionError):  # it leads one already
        os.setsid()
    die_with_parent(signal.SIGTERM)
    run_id = UUID(os.environ["PREFECT__FLOW_RUN_ID"])
    with get_client(sync_client=True) as client:
        if refusal := _refusal(client, run_id):
            client.set_flow_run_state(run_id, Failed(message=refusal), force=True)
            return
        os.environ[_ENTRYPOINT] = entrypoints()[client.read_flow(client.read_flow_run(run_id).flow_id).name]
    os.chdir(os.environ.get("AGD_HOME", "."))
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


def _refusal(client: SyncPrefectClient, run_id: UUID) -> str | None:
    run = client.read_flow_run(run_id)
    if run.job_variables:
        return f"{next(iter(run.job_variables))}: a run of this lab takes the parameters of its form only"
    if (name := client.read_flow(run.flow_id).name) not in entrypoints():
        return f"{name}: no flow of this lab; it has {', '.join(entrypoints())}"
    if run.deployment_id:
        allowed = client.read_deployment(run.deployment_id).parameter_openapi_schema or {}
        known = list(allowed.get("properties", {}))
        if unknown := [name for name in run.parameters if name not in known]:
            return f"{unknown[0]}: no such parameter; allowed: {', '.join(known)}"
    return None


if __name__ == "__main__":
    main()
