"""The nightly re-evaluation as Prefect flows: one short run that queues a short run per adapter.

An interactive run waits for one adapter at most, never for the whole night: its queue comes first.
"""

from pathlib import Path
from typing import Any, cast

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.states import AwaitingRetry, Completed, Failed

from agd_core.basics.errors import InputError
from flows.lab.artifacts import picture
from flows.lab.confines import own_folder
from flows.lab.running import run_in_lab
from flows.lab.workplace import LabWorkplace
from flows.registry import find, registered
from flows.stages.nightly import Night, again, check_night, evaluate_registered, tonight

REGRESSED = "agd.evaluation.regressed"
"""The event that says that an adapter got worse."""
_ONE_ADAPTER = "evaluate-registered/evaluate-registered"


def night_name() -> str:
    """What a run does, for its name: the flow or the adapter, and the night."""
    given = flow_run.parameters
    night = given.get("night") or tonight()
    who = f"evaluate {given['adapter']}" if "adapter" in given else flow_run.flow_name
    return f"{who} {again(night) if given.get('confirm') else night}"


@flow(name="nightly-evaluation", flow_run_name=night_name)
def nightly_flow(output: str = "outputs", night: str = "") -> dict[str, str] | State:
    """Queue the evaluation of every registered adapter (see `agd register`), each as a run of its own.

    Args:
        output: folder that holds registry and history.
        night: a date such as 2026-11-21; blank: today's. Each night is measured once per adapter.
    """
    try:
        night = check_night(night or tonight())
        folder = own_folder(output, "output")
    except InputError as error:
        return Failed(message=str(error))
    entries, problems = registered(folder)
    for problem in problems:
        get_run_logger().error(problem)
    queued = {entry.name: _queue(entry.name, night, output) for entry in entries}
    if problems:
        return Failed(message=problems[0])
    return queued if queued else Completed(message=f"no adapter is registered in {output}; agd register adds one")


@flow(name="evaluate-registered", flow_run_name=night_name)
def evaluate_registered_flow(adapter: str, night: str = "", output: str = "outputs", confirm: bool = False) -> State:
    """Sample and score one registered adapter afresh, and judge it by its earlier nights.

    Args:
        adapter: the name that it is registered under.
        night: a date such as 2026-11-21; blank: today's.
        output: folder that holds registry and history.
        confirm: measure that night a second time, with other noise, to tell chance from change.
    """

    def work(place: LabWorkplace) -> State:
        date = check_night(night or tonight())
        done = evaluate_registered(find(place.output, adapter), again(date) if confirm else date, place)
        _show(done)
        if not done.regressed:
            return Completed(message=f"{done.name} {done.night}: every metric is in its band")
        if not confirm:
            _raise_alarm(done, output)
        worse = f"{done.name} {done.night} regressed: {', '.join(done.regressed)}"
        return Completed(name="Regressed", message=worse)

    return run_in_lab(output, work)


def _queue(name: str, night: str, output: str) -> str:
    """Queue one adapter. For the same night it is the same run, which is retried where it did not end well."""
    run = run_deployment(
        _ONE_ADAPTER,
        parameters={"adapter": name, "night": night, "output": output},
        flow_run_name=f"evaluate {name} {night}",
        idempotency_key=f"{Path(output).resolve()} {name} {night}",
        timeout=0,
        as_subflow=False,
    )
    queued = cast(FlowRun, run)
    if queued.state and queued.state.is_final() and not queued.state.is_completed():
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(queued.id, AwaitingRetry(message="the night was asked for again"), force=True)
    return str(queued.id)


def _raise_alarm(done: Night, output: str) -> None:
    emit_event(
        REGRESSED,
        resource={"prefect.resource.id": f"agd.adapter.{done.name}", "prefect.resource.name": done.name},
        payload={"adapter": done.name, "night": done.night, "output": output, **_worse(done)},
    )


def _worse(done: Night) -> dict[str, Any]:
    return {"regressed": done.regressed, "metrics": done.as_dict()["metrics"]}


def _show(done: Night) -> None:
    """The verdicts, the trend and the first images, as one artifact of the run."""
    lines = ["| metric | tonight | band | verdict |", "| --- | --- | --- | --- |"]
    for metric, verdict in done.as_dict()["metrics"].items():
        band = "-" if verdict["low"] is None else f"{verdict['low']:.4g} to {verdict['high']:.4g}"
        value = "-" if verdict["value"] is None else f"{verdict['value']:.4g} ± {verdict['standard_error']:.2g}"
        lines.append(f"| {metric} | {value} | {band} | {verdict['outcome']} |")
    parts = ["\n".join(lines), *(picture(path.read_bytes()) for path in (done.trend, done.grid) if path.is_file())]
    create_markdown_artifact("\n\n".join(parts), key=f"night-{done.name.lower()}", description="Nightly evaluation")
