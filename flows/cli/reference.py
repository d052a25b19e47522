"""`agd reference`: statistics of real images as one file that can be shared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable
from flows.cli.options import Device, Json, Overrides, in_workplace, show

if TYPE_CHECKING:
    from agd_core.evaluation.evaluator import EvaluateConfig
    from flows.workplace import Workplace

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE", help="Folders, WebDataset .tar, .zarr arrays, .parquet files or patterns of them, merged."
    ),
]
File = Annotated[
    Path, typer.Option("--output", help="File to write, *.safetensors; artefacts are kept in the folder that it is in.")
]
_SECTION = "evaluate."
_PRESET = "fashion-dit"
"""Any would do: only the section `evaluate` is used."""


def reference(
    sources: Sources,
    output: File,
    overrides: Overrides = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Statistics of real images in an extractor's features, for `--set evaluate.reference=[FILE]`."""
    with in_workplace(output.parent, device) as place:
        result = _write(_settings(sources, overrides or []), output, place)
    show(result, [f"{result['file']}: {result['description']}"], as_json)


def _settings(sources: list[str], overrides: list[str]) -> EvaluateConfig:
    from flows.presets import load_config

    if others := [override for override in overrides if not override.startswith(_SECTION)]:
        raise InputError(f"--set {others[0]}: a reference depends on the settings of section evaluate alone")
    return load_config(_PRESET, [*overrides, f"evaluate.reference={json.dumps(sources)}"]).evaluate


def _write(config: EvaluateConfig, file: Path, place: Workplace) -> dict[str, Any]:
    from agd_core.basics.atomic import write_bytes
    from agd_core.evaluation.extractors import open_extractor
    from flows.reference import FINISHED, REFERENCE, check_sources, read_reference, reference_artefact

    if file.suffix != FINISHED:
        raise InputError(f"--output {printable(file)} must end in {FINISHED}")
    extractor = open_extractor(config.extractor, config.extractor_weights, config.extractor_sha256, place.device)
    if extractor is None:
        raise InputError("evaluate.extractor=none sees nothing in images; name an extractor")
    check_sources(config, extractor)
    artefact = reference_artefact(config, extractor, place)
    write_bytes(artefact.read(REFERENCE), file)
    made = read_reference(file, extractor)
    return {
        "file": str(file),
        "description": made.description,
        "images": made.statistics.samples,
        "identity": made.identity(),
        "artefact": str(artefact.path),
    }
