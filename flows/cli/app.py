"""The commands of `agd`, those of the table of jobs among them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.compare import compare
from flows.cli.doctor import doctor
from flows.cli.export import export_app, import_app
from flows.cli.job_commands import add_job
from flows.cli.nightly import adapters, nightly, register
from flows.cli.options import Device, Json, in_workplace, one_line, show
from flows.cli.reference import reference
from flows.jobs import JOBS
from flows.lab.cli import up
from flows.preset_files import preset_names
from flows.printing import print_line

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Adapter Guidance Distillation: guided diffusion images at half the network evaluations.",
)


def pretrain(  # noqa: PLR0913 one parameter per option
    world: Annotated[
        str, typer.Argument(help="fashion-dit, emoji-sd, emoji-judge or a relative, emoji-sd-NAME.")
    ] = "fashion-dit",
    data: Annotated[
        Path | None,
        typer.Option(help="fashion-dit: folder with the idx files. emoji-*: folder with the npm packages, unpacked."),
    ] = None,
    size: Annotated[str | None, typer.Option("--size", help="emoji-sd*: cpu or gpu, the machine it is for.")] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base", metavar="MODEL", help="emoji-sd-NAME: the model it is trained from, a folder or builtin:NAME."
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", help="Folder for checkpoints and the finished model.")] = Path(
        "outputs/pretrain"
    ),
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Retrain a built-in model from the real images (hours on 2 cores). Run it again to resume or to reuse."""
    from flows.worlds import world_of

    with one_line():
        chosen = world_of(world)
        asked = chosen.asked(data, size, base)
    with in_workplace(output, device) as place:
        result = chosen.train(asked, place)
    show(result, [f"{name}: {path}" for name, path in result["artefacts"].items()], as_json)


def verify(
    folder: Annotated[Path, typer.Argument(help="An output folder, one artefact, a store or an export.")],
    repair: Annotated[bool, typer.Option("--repair", help="Delete what is torn; the next run makes it anew.")] = False,
    follow: Annotated[
        str | None,
        typer.Option("--follow", metavar="URL", help="Where the trajectories lie, if not in the folder (store.url)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check every checksum below a folder and name what is torn. Exit code 1 if anything is.

    Nothing outside of the folder is read, asked or deleted, but what --follow names.
    """
    from flows.stages.verify import verify as run

    with one_line():
        result = run(folder, repair, follow)
    show(result, _verified(result), as_json)
    raise typer.Exit(0 if result["ok"] else 1)


def _verified(result: dict[str, Any]) -> list[str]:
    deleted = [f"deleted {name}" for name in result["deleted"]]
    verdict = f"{'ok' if result['ok'] else 'NOT ok'}: {result['artefacts']} artefacts, content {result['digest']}"
    return [*result["problems"], *deleted, *result["unchecked"], verdict]


def presets() -> None:
    """List the shipped presets."""
    for name in preset_names():
        print_line(name)


for job in JOBS:
    add_job(app, job)
for command in (pretrain, verify, presets, compare, doctor, reference, register, adapters, nightly, up):
    app.command()(command)
app.add_typer(export_app, name="export")
app.add_typer(import_app, name="import")
