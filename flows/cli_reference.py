"""`agd reference`: statistics of real images as one file that can be shared."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from agd_core.atomic import write_bytes
from agd_core.errors import InputError
from agd_core.metrics.settings import EvaluateConfig
from flows.presets import load_config
from flows.workplace import Workplace

Guarded = Callable[[Callable[[Workplace], dict[str, Any]], Path, str], dict[str, Any]]
"""Runs work with progress on the terminal, given a folder to work in and a device."""

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE", help="Folders, WebDataset .tar, .zarr arrays, .parquet files or patterns of them, merged."
    ),
]
File = Annotated[
    Path, typer.Option("--output", help="File to write, *.safetensors; artefacts are kept in the folder that it is in.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="An evaluate setting, e.g. --set evaluate.extractor=inception-v3."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]

_SECTION = "evaluate."
_PRESET = "fashion-dit"
"""Any would do: only the section `evaluate` is used."""


def add_commands(app: typer.Typer, guarded: Guarded) -> None:
    """Add `reference`; it finds `guarded` in its context."""
    app.command("reference", context_settings={"obj": guarded})(make_reference)


def make_reference(
    context: typer.Context,
    sources: Sources,
    output: File,
    overrides: Overrides = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Statistics of real images in an extractor's features, for `--set evaluate.reference=[FILE]`."""

    def work(place: Workplace) -> dict[str, Any]:
        return _write(_settings(sources, overrides or []), output, place)

    result = context.obj(work, output.parent, device)
    print(json.dumps(result, indent=2) if as_json else f"{result['file']}: {result['description']}")


def _settings(sources: list[str], overrides: list[str]) -> EvaluateConfig:
    if others := [override for override in overrides if not override.startswith(_SECTION)]:
        raise InputError(f"--set {others[0]}: a reference depends on the settings of section evaluate alone")
    return load_config(_PRESET, [*overrides, f"evaluate.reference={json.dumps(sources)}"]).evaluate


def _write(config: EvaluateConfig, file: Path, place: Workplace) -> dict[str, Any]:
    from agd_core.extractors import open_extractor
    from flows.stages.reference import FINISHED, REFERENCE, read_reference, reference_artefact

    if file.suffix != FINISHED:
        raise InputError(f"--output {file} must end in {FINISHED}")
    extractor = open_extractor(config.extractor, config.extractor_weights, config.extractor_sha256, place.device)
    if extractor is None:
        raise InputError("evaluate.extractor=none sees nothing in images; name an extractor")
    artefact = reference_artefact(config, extractor, place)
    write_bytes((artefact.path / REFERENCE).read_bytes(), file)
    made = read_reference(file, extractor)
    return {
        "file": str(file),
        "description": made.description,
        "images": made.statistics.samples,
        "identity": made.identity(),
        "artefact": str(artefact.path),
    }
