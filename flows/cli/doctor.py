"""`agd doctor`: what a preset needs, before any download; with `--time`, how long it will take."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.doctor_time import show_time
from flows.cli.options import Device, Json, Overrides, PresetOrFile, in_workplace
from flows.printing import print_json, print_line, print_table

Memory = Annotated[
    float | None,
    typer.Option("--device-memory-gib", metavar="GIB", help="Of the device; else of the CUDA device here, else 24."),
]
Time = Annotated[bool, typer.Option("--time", help="Predict the hours of every stage instead, from steps made here.")]


def doctor(
    preset: PresetOrFile,
    overrides: Overrides = None,
    device_memory: Memory = None,
    time: Time = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Predict memory per stage and the largest batches; propose settings that fit. Exit code 1 if none do.

    With --time: predict the hours of every stage and of the whole run, from a step of each that is made on the device.
    """
    if time:
        found = _predicted_time(preset, overrides or (), device)
        (print_json if as_json else show_time)(found)
        return
    found = _examined(preset, overrides or (), device_memory)
    (print_json if as_json else _show)(found)
    raise typer.Exit(0 if found["fits"] or found["proposal"] else 1)


def _predicted_time(preset: str, overrides: Sequence[str], device: str) -> dict[str, Any]:
    from flows.presets import load_config
    from flows.run import Run
    from flows.stages.hours import predict_time

    with in_workplace(Path(tempfile.gettempdir()), device) as place:
        return {"preset": preset, **predict_time(Run(load_config(preset, overrides), place))}


def _examined(preset: str, overrides: Sequence[str], device_memory: float | None) -> dict[str, Any]:
    from flows.presets import load_config
    from flows.stages.doctor import device_memory_gib, examine

    with in_workplace(Path(tempfile.gettempdir())) as place:
        gib, origin = device_memory_gib(device_memory)
        found = examine(load_config(preset, overrides), gib, place.announce)
    return {"preset": preset, "device_memory": origin, **found}


def _show(found: Mapping[str, Any]) -> None:
    base = found["base"]
    print_line(
        f"{found['source']}: {base['class']}, {base['parameters']:,} parameters, {base['dtype']}, "
        f"{base['pixels']} x {base['pixels']} pixels"
    )
    _print_methods(found)
    _print_jobs(found)
    for line in _lines(found):
        print_line(line)


def _print_methods(found: Mapping[str, Any]) -> None:
    rows = [
        (method["label"], str(method["sites"]), f"{method['parameters']:,}", f"{method['percent']:.2f} %")
        for method in found["methods"]
    ]
    print_table(("method", "sites", "parameters", "of the base"), rows)


def _print_jobs(found: Mapping[str, Any]) -> None:
    rows = []
    for job in found["jobs"]:
        parts = ", ".join(f"{name} {size / (1 << 30):.2f}" for name, size in job["parts_bytes"].items())
        fits, most = "yes" if job["fits"] else "NO", str(job["largest_batch"] or "-")
        rows.append((job["name"], str(job["batch"] or "-"), f"{job['peak_gib']:.2f}", parts, fits, most))
    title = f"device memory {found['device_memory_gib']:g} GiB ({found['device_memory']})"
    print_table(("work", "batch", "peak, GiB", "of which", "fits", "largest batch"), rows, title=title)


def _lines(found: Mapping[str, Any]) -> list[str]:
    """What stands below the tables."""
    notes = [f"note: {note}" for note in found["notes"]]
    if found["fits"]:
        return [*notes, "everything fits as configured"]
    if found["proposal"]:
        return [*notes, "does NOT fit as configured; it fits with", *(f"  --set {line}" for line in found["proposal"])]
    return [*notes, f"does NOT fit in {found['device_memory_gib']:g} GiB, whatever is set: take a larger device"]
