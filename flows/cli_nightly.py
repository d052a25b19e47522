"""`agd register`, `agd adapters` and `agd nightly`: adapters that are evaluated every night."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from agd_core.errors import InputError, NumericError
from flows.workplace import Workplace

Guarded = Callable[[Callable[[Workplace], dict[str, Any]], Path, str], dict[str, Any]]
"""Runs work with progress on the terminal, given a folder to work in and a device."""

Name = Annotated[str, typer.Option("--name", help="What its nights are listed under: letters, digits and dashes.")]
PresetOption = Annotated[str, typer.Option("--preset", help="Says how to sample and score: a preset or .yaml file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. --set sample.images=500.")
]
Output = Annotated[Path, typer.Option("--output", help="Folder for registry, nights, history and trend plots.")]
Remove = Annotated[str | None, typer.Option("--remove", metavar="NAME", help="Take it out; its history stays.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]

_OUTPUT = Path("outputs")


def add_commands(app: typer.Typer, guarded: Guarded) -> None:
    """Add the three commands; they find `guarded` in their context."""
    for command in (register, adapters, nightly):
        app.command(context_settings={"obj": guarded})(command)


def register(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="ADAPTER_DIR", help="Has adapter.safetensors and adapter.json.")],
    name: Name,
    preset: PresetOption,
    overrides: Overrides = None,
    output: Output = _OUTPUT,
    as_json: Json = False,
) -> None:
    """Have an adapter evaluated every night, always in the way that a preset says."""
    from flows.registry import register as run

    def work(place: Workplace) -> dict[str, Any]:
        return run(folder, name, preset, overrides or (), place).model_dump(mode="json")

    entry = context.obj(work, output, "cpu")
    sampled = entry["sample"]
    how = f"{sampled['images']} images, {sampled['scheduler']}, {sampled['steps']} steps"
    line = f"{name}: {entry['folder']}, {how}, guidance scale {sampled['guidance_scales'][0]:g}"
    print(json.dumps(entry, indent=2) if as_json else line)


def adapters(
    context: typer.Context,
    output: Output = _OUTPUT,
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

    found = context.obj(work, Path(tempfile.gettempdir()), "cpu")
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for adapter in found["adapters"]:
        _print_night(adapter["name"], adapter["last_night"], adapter["metrics"])
        print(f"  {adapter['nights']} nights, {adapter['folder']}")
    for problem in found["problems"]:
        print(problem)


def nightly(
    context: typer.Context,
    output: Output = _OUTPUT,
    night: Annotated[str | None, typer.Option("--night", help="A date such as 2026-11-21; today's by default.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Only this adapter.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Evaluate the registered adapters afresh. Run the same night again to resume.

    Exit code 1 if one of them regressed or could not be evaluated.
    """
    found = context.obj(lambda place: _one_night(night, name, place), output, device)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        for adapter in found["adapters"]:
            _print_night(adapter["name"], adapter["night"], adapter["metrics"])
            print(f"  {adapter['grid']}\n  {adapter['trend']}")
        for failure in found["failed"]:
            print(f"not evaluated: {failure}")
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
        print(f"{name}: not evaluated yet")
        return
    regressed = [metric for metric, verdict in metrics.items() if verdict["outcome"] == "regressed"]
    print(f"{name}, {night}: " + (f"REGRESSED in {', '.join(regressed)}" if regressed else "ok"))
    for metric, verdict in metrics.items():
        print(f"  {metric:<17} {_number(verdict['value'])} ± {_number(verdict['standard_error'])}  {_where(verdict)}")


def _where(verdict: dict[str, Any]) -> str:
    if verdict["baseline"] is None:
        return str(verdict["outcome"])
    band = f"band {_number(verdict['low'])} to {_number(verdict['high'])}"
    return f"{band}, z {_number(verdict['z'])}: {verdict['outcome']}"


def _number(value: float | None) -> str:
    return "no number" if value is None else f"{value:.4g}"
