"""The command of a job: its configuration is read once, and handed on as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import DEFAULT_OUTPUT, Device, Json, Overrides, PresetOrFile, in_workplace, one_line, show
from flows.preset_files import repeat_command
from flows.printing import print_table

if TYPE_CHECKING:
    from flows.jobs import Done, Job

Output = Annotated[Path, typer.Option("--output", help="Folder for artefacts, report.html and metrics.json.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what it would cost.")]


def add_job(app: typer.Typer, job: Job) -> None:
    """Add the command of a job; one that can say what it would cost has `--dry-run`."""

    def command(
        preset: PresetOrFile,
        overrides: Overrides = None,
        output: Output = DEFAULT_OUTPUT,
        device: Device = "auto",
        as_json: Json = False,
    ) -> None:
        _do(job, preset, overrides or [], output, device, as_json)

    def with_costs(
        preset: PresetOrFile,
        overrides: Overrides = None,
        output: Output = DEFAULT_OUTPUT,
        device: Device = "auto",
        dry_run: DryRun = False,
        as_json: Json = False,
    ) -> None:
        (_say_costs if dry_run else _do)(job, preset, overrides or [], output, device, as_json)

    text = f"{job.help} Run it again to resume or to reuse."
    app.command(job.name, help=text)(with_costs if job.plan else command)


def _do(job: Job, preset: str, overrides: list[str], output: Path, device: str, as_json: bool) -> None:
    from flows.presets import load_config
    from flows.run import Run

    with one_line():
        config = load_config(preset, overrides)
    with in_workplace(output, device) as place:
        done = job.run(Run(config, place), repeat_command(preset, overrides, output, job.name))
    show(done.data, _lines(done, output), as_json)


def _say_costs(job: Job, preset: str, overrides: list[str], output: Path, device: str, as_json: bool) -> None:
    from flows.presets import load_config
    from flows.run import Run

    with one_line():
        config = load_config(preset, overrides)
    with in_workplace(output, device) as place:
        costs, lines = job.plan(Run(config, place)) if job.plan else ({}, [])
    show(costs, lines, as_json)


def _lines(done: Done, output: Path) -> Iterator[str]:
    """The table of a report with what must be known of it, or the folders of what was made."""
    if done.report is None:
        yield from (f"{name}: {path}" for name, path in done.data["artefacts"].items())
        return
    from agd_core.evaluation.rows import WARNED, Headline, Row, warnings

    rows = [Row.model_validate(row) for row in done.data["rows"]]
    table = Headline.of(rows)
    print_table(table.headings, table.lines)
    yield from (f"note: {note}" for note in done.data["notes"])
    yield from (f"{WARNED.strip()} {warning}" for warning in warnings(rows))
    yield f"report: {(output / next(done.report.path.glob('*.html')).name).resolve()}"
