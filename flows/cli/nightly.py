"""`agd register`, `agd adapters` and `agd nightly`: adapters that are evaluated every night."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agd_core.basics.errors import InputError, NumericError
from flows.cli.options import DEFAULT_OUTPUT, Device, Json, Overrides, in_workplace, show
from flows.printing import number

if TYPE_CHECKING:
    from flows.workplace import Workplace

Name = Annotated[str, typer.Option("--name", help="What its nights are listed under: letters, digits and dashes.")]
PresetOption = Annotated[str, typer.Option("--preset", help="Says how to sample and score: a preset or .yaml file.")]
NightlyOutput = Annotated[Path, typer.Option("--output", help="Folder for registry, nights, history and trend plots.")]
Remove = Annotated[str | None, typer.Option("--remove", metavar="NAME", help="Take it out; its history stays.")]


def register(
    folder: Annotated[Path, typer.Argument(metavar="ADAPTER_DIR", help="Has adapter.safetensors and adapter.json.")],
    name: Name,
    preset: PresetOption,
    overrides: Overrides = None,
    output: NightlyOutput = DEFAULT_OUTPUT,
    as_json: Json = False,
) -> None:
    """Have an adapter evaluated every night, always in the way that a preset says."""
    from flows.registry import register as run

    with in_workplace(output) as place:
        entry = run(folder, name, preset, overrides or (), place).model_dump(mode="json")
    sampled = entry["sample"]
    how = f"{sampled['images']} images, {sampled['scheduler']}, {sampled['steps']} steps"
    show(entry, [f"{name}: {entry['folder']}, {how}, guidance scale {sampled['guidance_scales'][0]:g}"], as_json)


def adapters(
    output: NightlyOutput = DEFAULT_OUTPUT,
    remove: Remove = None,
    as_json: Json = False,
) -> None:
    """List the registered adapters with the verdicts of their last night."""
    from flows.registry import remove as take_out
    from flows.stages.standing import standing

    with in_workplace(Path(tempfile.gettempdir())):
        if remove is not None:
            take_out(output, remove)
        found = standing(output)
    lines = []
    for adapter in found["adapters"]:
        lines += _lines(adapter["name"], adapter["last_night"], adapter["metrics"])
        lines.append(f"  {adapter['nights']} nights, {adapter['folder']}")
    show(found, [*lines, *found["problems"]], as_json)


def nightly(
    output: NightlyOutput = DEFAULT_OUTPUT,
    night: Annotated[str | None, typer.Option("--night", help="A date such as 2026-11-21; today's by default.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Only this adapter.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Evaluate the registered adapters afresh. Run the same night again to resume.

    Exit code 1 if one of them regressed or could not be evaluated.
    """
    with in_workplace(output, device) as place:
        found = _one_night(night, name, place)
    lines = []
    for adapter in found["adapters"]:
        lines += _lines(adapter["name"], adapter["night"], adapter["metrics"])
        lines += [f"  {adapter['grid']}", f"  {adapter['trend']}"]
    show(found, [*lines, *(f"not evaluated: {failure}" for failure in found["failed"])], as_json)
    raise typer.Exit(0 if found["ok"] else 1)


def _one_night(night: str | None, name: str | None, place: Workplace) -> dict[str, Any]:
    """Every registered adapter or one of them; one that cannot be evaluated does not keep the others waiting."""
    from flows.registry import find, registered
    from flows.stages.nightly import check_night, evaluate_registered, tonight

    night = check_night(night or tonight())
    entries, failed = ([find(place.output, name)], []) if name else registered(place.output)
    if not entries and not failed:
        raise InputError(f"no adapter is registered in {place.output}; agd register adds one")
    nights = []
    for entry in entries:
        try:
            nights.append(evaluate_registered(entry, night, place))
        except (InputError, NumericError, OSError) as error:
            failed.append(f"{entry.name}: {error}")
    ok = not failed and not any(done.regressed for done in nights)
    return {"night": night, "ok": ok, "adapters": [done.as_dict() for done in nights], "failed": failed}


def _lines(name: str, night: str | None, metrics: dict[str, dict[str, Any]]) -> list[str]:
    """A night of an adapter, and a line per metric."""
    if night is None:
        return [f"{name}: not evaluated yet"]
    regressed = [metric for metric, verdict in metrics.items() if verdict["outcome"] == "regressed"]
    scores = [
        f"  {metric:<17} {number(verdict['value'])} ± {number(verdict['standard_error'])}  {_where(verdict)}"
        for metric, verdict in metrics.items()
    ]
    return [f"{name}, {night}: " + (f"REGRESSED in {', '.join(regressed)}" if regressed else "ok"), *scores]


def _where(verdict: dict[str, Any]) -> str:
    if verdict["baseline"] is None:
        return str(verdict["outcome"])
    band = f"band {number(verdict['low'])} to {number(verdict['high'])}"
    return f"{band}, z {number(verdict['z'])}: {verdict['outcome']}"
