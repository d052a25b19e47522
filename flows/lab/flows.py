"""The jobs as Prefect flows: each calls what its command calls, in a workplace whose artefacts are cached tasks."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

from prefect import Flow, flow
from prefect.client.schemas.objects import State

from flows.jobs import JOBS, Job
from flows.lab.artifacts import show_results
from flows.lab.parameters import Settings, form_of
from flows.lab.running import run_in_lab, run_name
from flows.lab.workplace import LabWorkplace
from flows.preset_files import repeat_command
from flows.run import Run
from flows.worlds import world_of


def flow_of(job: Job) -> Flow[Any, Any]:
    """The flow of a job; its one parameter is the job's form."""
    form = form_of(job)

    def run_job(settings: Settings = form()) -> dict[str, Any] | State:
        return run_in_lab(settings.output, partial(_do, job, settings), settings)

    run_job.__annotations__["settings"] = form
    run_job.__name__ = run_job.__qualname__ = f"run_{job.name}"
    return flow(name=job.flow, flow_run_name=run_name, description=job.help)(run_job)


def _do(job: Job, settings: Settings, place: LabWorkplace) -> dict[str, Any]:
    command = repeat_command(settings.source, settings.changes(), Path(settings.output), job.name)
    done = job.run(Run(place.config, place), command)
    if done.report:
        show_results(done.data, done.report, place.output)
    return done.data


for _job in JOBS:  # prefect.yaml names `flows.lab.flows.collect_flow`; other processes find what it runs by name, too
    globals()[f"{_job.name}_flow"] = _flow = flow_of(_job)
    globals()[_flow.fn.__name__] = _flow.fn


@flow(name="pretrain-teacher")
def pretrain_flow(data: str = "", output: str = "outputs/pretrain") -> dict[str, Any] | State:
    """Retrain the built-in teacher, its VAE and its classifier from the real images.

    Args:
        data: folder of the four Fashion-MNIST idx files; blank: where Debian puts them.
        output: folder for checkpoints and the finished model.
    """
    return _pretrain("fashion-dit", data, output)


@flow(name="pretrain-emoji-sd")
def pretrain_emoji_flow(
    data: str = "", size: Literal["cpu", "gpu"] = "cpu", output: str = "outputs/pretrain"
) -> dict[str, Any] | State:
    """Retrain the built-in Stable Diffusion from emoji: VAE, text encoder and UNet.

    Args:
        data: folder of the npm packages, unpacked; blank: fetched with npm.
        size: cpu: latents 8 x 8, hours on two cores; gpu: latents 16 x 16, for a large card.
        output: folder for checkpoints and the finished model.
    """
    return _pretrain("emoji-sd", data, output, size)


@flow(name="pretrain-emoji-judge")
def pretrain_emoji_judge_flow(data: str = "", output: str = "outputs/pretrain") -> dict[str, Any] | State:
    """Retrain the judge of the emoji world.

    Args:
        data: folder of the npm packages, unpacked; blank: fetched with npm.
        output: folder for checkpoints and the finished model.
    """
    return _pretrain("emoji-judge", data, output)


@flow(name="pretrain-emoji-relative")
def pretrain_emoji_relative_flow(
    relative: Literal[
        "emoji-sd-style", "emoji-sd-food", "emoji-sd-lora", "emoji-sd-controlnet", "emoji-sd-ip-adapter"
    ] = "emoji-sd-style",
    base: str = "builtin:emoji-sd",
    data: str = "",
    size: Literal["cpu", "gpu"] = "cpu",
    output: str = "outputs/pretrain",
) -> dict[str, Any] | State:
    """Retrain a relative of the built-in Stable Diffusion: a fine-tuned sibling, LoRA, ControlNet or IP-Adapter.

    Args:
        relative: which one.
        base: what it is trained on: builtin:NAME or a stock folder.
        data: folder of the npm packages, unpacked; blank: fetched with npm.
        size: as the base's.
        output: folder for checkpoints and the finished relative.
    """
    return _pretrain(relative, data, output, size, base)


def _pretrain(
    world: str, data: str, output: str, size: str | None = None, base: str | None = None
) -> dict[str, Any] | State:
    chosen = world_of(world)
    folder = Path(data) if data else None
    return run_in_lab(output, lambda place: chosen.train(chosen.asked(folder, size, base), place))
