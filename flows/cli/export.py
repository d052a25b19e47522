"""`agd export` and `agd import`: trajectories in other forms, and back; a fine-tuned UNet as a stock pipeline."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from flows.cli.options import Json, in_workplace, one_line, show
from flows.printing import print_error

if TYPE_CHECKING:
    from flows.workplace import Workplace

Store = Annotated[str, typer.Argument(metavar="SOURCE", help="An output folder, a trajectories artefact, or a store.")]
Export = Annotated[str, typer.Argument(metavar="SOURCE", help="Folder or URL of the export.")]
Target = Annotated[
    str, typer.Argument(metavar="DEST", help="A new or empty folder, or a URL such as s3://bucket/name.")
]
TarBytes = Annotated[int, typer.Option("--tar-bytes", min=1, help="Size that a tar does not exceed.")]
TrainedFolder = Annotated[str, typer.Argument(metavar="SOURCE", help="Folder of what the method finetune trained.")]
Base = Annotated[
    str, typer.Option("--base", metavar="MODEL", help="What was fine-tuned: a folder, hub id or builtin:NAME.")
]
NewFolder = Annotated[Path, typer.Argument(metavar="DEST", help="A new or empty folder.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**64 - 1, help="Of the one shuffle of all samples.")]

_TAR_BYTES = 256_000_000
_MEGABYTE = 1e6


class _Formats(TyperGroup):
    """Names the formats to who leaves theirs out."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The format's command; one line with all of them where there is none of that name."""
        if args[0] not in self.commands:
            example = f"{ctx.command_path} {next(iter(self.commands))} SOURCE DEST"
            print_error(f"{args[0]!r} is no format; allowed: {', '.join(self.commands)}, e.g. {example}")
            raise typer.Exit(2)
        return super().resolve_command(ctx, args)


export_app = typer.Typer(
    cls=_Formats,
    no_args_is_help=True,
    help="Write trajectories as webdataset or archive, losslessly; a fine-tuned UNet as a stock pipeline.",
)
import_app = typer.Typer(
    cls=_Formats, no_args_is_help=True, help="Rebuild a store from a webdataset or an archive, bit for bit."
)


@export_app.command("webdataset")
def export_webdataset(
    source: Store,
    dest: Target,
    tar_bytes: TarBytes = _TAR_BYTES,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Shuffled tars that plain webdataset reads. Run it again to continue."""
    from flows.stages.export import export_webdataset as run

    _run(dest, lambda place: run(source, dest, tar_bytes, seed, place), as_json)


@export_app.command("archive")
def export_archive(source: Store, dest: Target, as_json: Json = False) -> None:
    """A compressed Zarr array that plain zarr-python reads. Run it again to continue."""
    from flows.stages.export import export_archive as run

    _run(dest, lambda place: run(source, dest, place), as_json)


@export_app.command("pipeline")
def export_pipeline(source: TrainedFolder, dest: NewFolder, base: Base, as_json: Json = False) -> None:
    """A folder that diffusers' from_pretrained opens; its pipeline guides in one pass per step by itself."""
    from agd_core.pipelines.one_pass_folder import write_pipeline

    with one_line(dest):
        written = str(write_pipeline(source, base, dest))
    show({"target": written, "base": base}, [f"{written}: diffusers opens it"], as_json)


@import_app.command("webdataset")
def import_webdataset(source: Export, dest: Target, as_json: Json = False) -> None:
    """Rebuild a store from WebDataset tars. Run it again to continue."""
    from flows.stages.export import import_webdataset as run

    _run(dest, lambda place: run(source, dest, place), as_json)


@import_app.command("archive")
def import_archive(source: Export, dest: Target, as_json: Json = False) -> None:
    """Rebuild a store from an archive. Run it again to continue."""
    from flows.stages.export import import_archive as run

    _run(dest, lambda place: run(source, dest, place), as_json)


def _run(dest: str, work: Callable[[Workplace], dict[str, Any]], as_json: bool) -> None:
    with in_workplace(_existing_folder(dest)) as place:
        result = work(place)
    size, store_size = result["bytes"] / _MEGABYTE, result["store_bytes"] / _MEGABYTE
    ratio = f"export {size:,.1f} MB, store {store_size:,.1f} MB, ratio {result['ratio']:.3f}"
    show(result, [f"{result['target']}: {result['samples']:,} samples", ratio], as_json)


def _existing_folder(dest: str) -> Path:
    """What is there already of a target's path, so that bad input leaves no new folder behind."""
    path = Path(tempfile.gettempdir()) if "://" in dest else Path(dest).resolve()
    return next(folder for folder in (path, *path.parents) if folder.exists())
