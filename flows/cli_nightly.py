"""`agd register`, `agd adapters` and `agd nightly`: adapters that are evaluated every night."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agd_core.errors import InputError, NumericError
from flows.commands import DEFAULT_OUTPUT, Device, Json, in_workplace
from flows.printing import print_json, print_line

if TYPE_CHECKING:
    from flows.workplace import Workplace

Name = Annotated[str, typer.Option("--name", help="What its nights are listed under: letters, digits and dashes.")]
PresetOption = Annotated[str, typer.Option("--preset", help="Says how to sample and score: a preset or .yaml file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. --set sample.images=500.")
]
Output = Annotated[Path, typer.Option("--output", help="Folder for registry, nights, history and trend plots.")]
Remove = Annotated[str | None, typer.Option("--remove", metavar="NAME", help="Take it out; its history stays.")]


def add_commands(app: typer.Typer) -> None:
    """Add the three commands to the command line."""
    for command in (register, adapters, nightly):
        app.command()(command)


def register(
    folder: Annotated[Path, typer.Argument(metavar="ADAPTER_DIR", help="Has adapter.safetensors and adapter.json.")],
    name: Name,
    preset: PresetOption,
    overrides: Overrides = None,
    output: Output = DEFAULT_OUTPUT,
    as_json: Json = False,
) -> None:
    """Have an adapter evaluated every night, always in the way that a preset says."""
    from flows.registry import register as run

    def work(place: Workplace) -> dict[str, Any]:
        return run(folder, name, preset, overrides or (), place).model_dump(mode="json")

    entry = in_workplace(work, output)
    sampled = entry["sample"]
    how = f"{sampled['images']} images, {sampled['scheduler']}, {sampled['steps']} steps"
    line = f"{name}: {entry['folder']}, {how}, guidance scale {sampled['guidance_scales'][0]:g}"
    if as_json:
        print_json(entry)
    else:
        print_line(line)


def adapters(
    output: Output = DEFAULT_OUTPUT,
    remove: Remove = None,
    as_json: Json = False,
) -> None:
    """List the registered adapters with the verdicts of their last night."""
    from flows.registry import remove as take_out
    from flows.stages.standing import standing

    def work(place: Workplace) -> dict[str, Any]:
        if remove is not None:
            take_out(output, remove)
        return standing(output)

    found = in_workplace(work, Path(tempfile.gettempdir()))
    if as_json:
        print_json(found)
        return
    for adapter in found["adapters"]:
        _print_night(adapter["name"], adapter["last_night"], adapter["metrics"])
        print_line(f"  {adapter['nights']} nights, {adapter['folder']}")
    for problem in found["problems"]:
        print_line(problem)


def nightly(
    output: Output = DEFAULT_OUTPUT,
    night: Annotated[str | None, typer.Option("--night", help="A date such as 2026-11-21; today's by default.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Only this adapter.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Evaluate the registered adapters afresh. Run the same night again to resume.

    Exit code 1 if one of them regressed or could not be evaluated.
    """
    found = in_workplace(lambda place: _one_night(night, name, place), output, device)
    if as_json:
        print_json(found)
    else:
        for adapter in found["adapters"]:
            _print_night(adapter["name"], adapter["night"], adapter["metrics"])
            print_line(f"  {adapter['grid']}")
            print_line(f"  {adapter['trend']}")
        for failure in found["failed"]:
            print_line(f"not evaluated: {failure}")
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


def _print_night(name: str, night: str | None, metrics: dict[str, dict[str, Any]]) -> None:
    if night is None:
        print_line(f"{name}: not evaluated yet")
        return
    regressed = [metric for metric, verdict in metrics.items() if verdict["outcome"] == "regressed"]
    print_line(f"{name}, {night}: " + (f"REGRESSED in {', '.join(regressed)}" if regressed else "ok"))
    for metric, verdict in metrics.items():
        print_line(
            f"  {metric:<17} {_number(verdict['value'])} ± {_number(verdict['standard_error'])}  {_where(verdict)}"
        )


def _where(verdict: dict[str, Any]) -> str:
    if verdict["baseline"] is None:
        return str(verdict["outcome"])
    band = f"band {_number(verdict['low'])} to {_number(verdict['high'])}"
    return f"{band}, z {_number(verdict['z'])}: {verdict['outcome']}"


def _number(value: float | None) -> str:
    return "no number" if value is None else f"{value:.4g}"
