"""`agd doctor`: what a preset needs, before any download."""

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows.presets import load_config
from flows.stages.doctor import device_memory_gib, examine
from flows.workplace import Workplace

Guarded = Callable[[Callable[[Workplace], dict[str, Any]], Path, str], dict[str, Any]]
"""Runs work with progress on the terminal, given a folder to work in and a device."""

Preset = Annotated[str, typer.Argument(help="A preset's name (see `agd presets`) or a .yaml file of the same form.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. --set train.batch_size=2."),
]
Memory = Annotated[
    float | None,
    typer.Option("--device-memory-gib", metavar="GIB", help="Of the device; else of the CUDA device here, else 24."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]

_PIPE_COLUMNS = 140


def add_commands(app: typer.Typer, guarded: Guarded) -> None:
    """Add `doctor`; it finds `guarded` in its context."""
    app.command("doctor", context_settings={"obj": guarded})(doctor)


def doctor(
    context: typer.Context,
    preset: Preset,
    overrides: Overrides = None,
    device_memory: Memory = None,
    as_json: Json = False,
) -> None:
    """Predict memory per stage and the largest batches; propose settings that fit. Exit code 1 if none do."""

    def work(place: Workplace) -> dict[str, Any]:
        gib, origin = device_memory_gib(device_memory)
        found = examine(load_config(preset, overrides or ()), gib, place.announce)
        return {"preset": preset, "device_memory": origin, **found}

    found = context.obj(work, Path(tempfile.gettempdir()), "cpu")
    if as_json:
        print(json.dumps(found, indent=2, allow_nan=False))
    else:
        _show(found)
    raise typer.Exit(0 if found["fits"] or found["proposal"] else 1)


def _show(found: Mapping[str, Any]) -> None:
    console = Console(markup=False)
    console = console if console.is_terminal else Console(markup=False, width=_PIPE_COLUMNS)
    base = found["base"]
    print(
        f"{found['source']}: {base['class']}, {base['parameters']:,} parameters, {base['dtype']}, "
        f"{base['pixels']} x {base['pixels']} pixels"
    )
    console.print(_adapters(found))
    console.print(_jobs(found))
    for line in _lines(found):
        print(line)


def _adapters(found: Mapping[str, Any]) -> Table:
    table = Table("adapter", "sites", "parameters", "of the base")
    for adapter in found["adapters"]:
        parameters, share = f"{adapter['parameters']:,}", f"{adapter['percent']:.2f} %"
        table.add_row(adapter["label"], str(adapter["sites"]), parameters, share)
    return table


def _jobs(found: Mapping[str, Any]) -> Table:
    title = f"device memory {found['device_memory_gib']:g} GiB ({found['device_memory']})"
    table = Table("work", "batch", "peak, GiB", "of which", "fits", "largest batch", title=title)
    for job in found["jobs"]:
        parts = ", ".join(f"{name} {size / (1 << 30):.2f}" for name, size in job["parts_bytes"].items())
        fits, most = "yes" if job["fits"] else "NO", _number(job["largest_batch"])
        table.add_row(job["name"], _number(job["batch"]), f"{job['peak_gib']:.2f}", parts, fits, most)
    return table


def _lines(found: Mapping[str, Any]) -> list[str]:
    """What stands below the tables."""
    notes = [f"note: {note}" for note in found["notes"]]
    if found["fits"]:
        return [*notes, "everything fits as configured"]
    if found["proposal"]:
        return [*notes, "does NOT fit as configured; it fits with", *(f"  --set {line}" for line in found["proposal"])]
    return [*notes, f"does NOT fit in {found['device_memory_gib']:g} GiB, whatever is set: take a larger device"]


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)
