"""`agd export` and `agd import`: trajectories in other forms, and back."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.workplace import Workplace

Guarded = Callable[[Callable[[Workplace], dict[str, Any]], Path, str], dict[str, Any]]
"""Runs work with progress on the terminal, given a folder to work in and a device."""

Store = Annotated[str, typer.Argument(metavar="SOURCE", help="An output folder, a trajectories artefact, or a store.")]
Export = Annotated[str, typer.Argument(metavar="SOURCE", help="Folder or URL of the export.")]
Target = Annotated[
    str, typer.Argument(metavar="DEST", help="A new or empty folder, or a URL such as s3://bucket/name.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]
TarBytes = Annotated[int, typer.Option("--tar-bytes", min=1, help="Size that a tar does not exceed.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**64 - 1, help="Of the one shuffle of all samples.")]

_TAR_BYTES = 256_000_000
_MEGABYTE = 1e6

export_app = typer.Typer(no_args_is_help=True, help="Write collected trajectories in another form, losslessly.")
import_app = typer.Typer(no_args_is_help=True, help="Rebuild a trajectory store from an export, bit for bit.")


def add_commands(app: typer.Typer, guarded: Guarded) -> None:
    """Add `export` and `import` to the command line; their commands find `guarded` in their context."""
    for name, group in (("export", export_app), ("import", import_app)):
        app.add_typer(group, name=name, context_settings={"obj": guarded})


@export_app.command("webdataset")
def export_webdataset(
    context: typer.Context,
    source: Store,
    dest: Target,
    tar_bytes: TarBytes = _TAR_BYTES,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Shuffled tars that plain webdataset reads. Run it again to continue."""
    from flows.stages.export import export_webdataset as run

    _run(context, dest, lambda place: run(source, dest, tar_bytes, seed, place), as_json)


@export_app.command("archive")
def export_archive(context: typer.Context, source: Store, dest: Target, as_json: Json = False) -> None:
    """A compressed Zarr array that plain zarr-python reads. Run it again to continue."""
    from flows.stages.export import export_archive as run

    _run(context, dest, lambda place: run(source, dest, place), as_json)


@import_app.command("webdataset")
def import_webdataset(context: typer.Context, source: Export, dest: Target, as_json: Json = False) -> None:
    """Rebuild a store from WebDataset tars. Run it again to continue."""
    from flows.stages.export import import_webdataset as run

    _run(context, dest, lambda place: run(source, dest, place), as_json)


@import_app.command("archive")
def import_archive(context: typer.Context, source: Export, dest: Target, as_json: Json = False) -> None:
    """Rebuild a store from an archive. Run it again to continue."""
    from flows.stages.export import import_archive as run

    _run(context, dest, lambda place: run(source, dest, place), as_json)


def _run(context: typer.Context, dest: str, work: Callable[[Workplace], dict[str, Any]], as_json: bool) -> None:
    result = context.obj(work, _existing_folder(dest), "cpu")
    if as_json:
        print(json.dumps(result, indent=2))
        return
    size, store_size = result["bytes"] / _MEGABYTE, result["store_bytes"] / _MEGABYTE
    print(f"{result['target']}: {result['samples']:,} samples")
    print(f"export {size:,.1f} MB, store {store_size:,.1f} MB, ratio {result['ratio']:.3f}")


def _existing_folder(dest: str) -> Path:
    """What is there already of a target's path, so that bad input leaves no new folder behind."""
    path = Path(tempfile.gettempdir()) if "://" in dest else Path(dest).resolve()
    return next(folder for folder in (path, *path.parents) if folder.exists())
