"""The command line, `agd`. Every command works in process; none needs a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_compare import add_commands as add_compare_commands
from flows.cli_doctor import add_commands as add_doctor_commands
from flows.cli_export import add_commands as add_export_commands
from flows.cli_nightly import add_commands as add_nightly_commands
from flows.cli_reference import add_commands as add_reference_commands
from flows.commands import DEFAULT_OUTPUT, Device, Json, Preset, in_configured_workplace, in_workplace, one_line
from flows.lab.cli import add_commands as add_lab_commands
from flows.preset_files import preset_names, repeat_command
from flows.printing import print_json, print_line, print_table, standard_streams

if TYPE_CHECKING:
    from agd_core.report.rows import Row
    from flows.config import PipelineConfig
    from flows.workplace import Workplace

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Adapter Guidance Distillation: guided diffusion images at half the network evaluations.",
)

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. --set train.steps=500.")
]
Output = Annotated[Path, typer.Option("--output", help="Folder for artefacts, report.html and metrics.json.")]


@app.command()
def distill(
    preset: Preset,
    overrides: Overrides = None,
    output: Output = DEFAULT_OUTPUT,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Run the whole pipeline: collect, train, sample, evaluate, report. Run it again to resume or to reuse."""
    from flows.run import Run
    from flows.stages.distill import distill as run

    def work(config: PipelineConfig, place: Workplace) -> dict[str, Any]:
        return run(Run(config, place), repeat_command(preset, overrides or (), output)).metrics

    metrics = in_configured_workplace(work, preset, overrides, output, device)
    _show_metrics(metrics, output / "report.html", as_json)


@app.command()
def sweep(
    preset: Preset,
    overrides: Overrides = None,
    output: Output = DEFAULT_OUTPUT,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare all methods at every guidance scale with every step count and every sampler (sample.sweep_schedulers)."""
    from flows.run import Run
    from flows.stages.distill import sweep as run

    def work(config: PipelineConfig, place: Workplace) -> dict[str, Any]:
        return run(Run(config, place), repeat_command(preset, overrides or (), output, "sweep")).metrics

    _show_metrics(in_configured_workplace(work, preset, overrides, output, device), output / "sweep.html", as_json)


@app.command()
def evaluate(
    preset: Preset,
    overrides: Overrides = None,
    output: Output = DEFAULT_OUTPUT,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """The same as distill: sample and evaluate every method and write the report, after doing what is missing."""
    distill(preset, overrides, output, device, as_json)


@app.command()
def collect(
    preset: Preset,
    overrides: Overrides = None,
    output: Output = DEFAULT_OUTPUT,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would cost.")] = False,
    as_json: Json = False,
) -> None:
    """Stage 1: record guided trajectories. Run it again to resume."""
    from flows.run import Run
    from flows.stages.collect import collect as run
    from flows.stages.plan import plan_costs, plan_lines

    def cost(config: PipelineConfig, place: Workplace) -> dict[str, Any]:
        return plan_costs(Run(config, place).check())

    if dry_run:
        costs = in_configured_workplace(cost, preset, overrides, output, device)
        _show_plan(costs, plan_lines(costs), as_json)
        return

    def work(config: PipelineConfig, place: Workplace) -> dict[str, Any]:
        artefact = run(Run(config, place).check())
        return {"artefacts": {"trajectories": str(artefact.path)}, "digest": artefact.digest}

    _show(in_configured_workplace(work, preset, overrides, output, device), as_json)


@app.command()
def train(
    preset: Preset,
    overrides: Overrides = None,
    output: Output = DEFAULT_OUTPUT,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Stages 1 and 2: train the preset's adapters, collecting first what is missing. Run it again to resume."""
    from flows.published import refuse_foreign_files
    from flows.run import Run
    from flows.stages.collect import collect as collect_stage
    from flows.stages.distill import train_all
    from flows.stages.publish import publish_trained

    def work(config: PipelineConfig, place: Workplace) -> dict[str, Any]:
        refuse_foreign_files(place.output, (), [adapter.label for adapter in config.adapters])
        run = Run(config, place).check()
        trained = train_all(run, collect_stage(run))
        folders = publish_trained(run, trained, repeat_command(preset, overrides or (), output, "train"))
        return {"artefacts": {label: str(folder) for label, folder in folders.items()}}

    _show(in_configured_workplace(work, preset, overrides, output, device), as_json)


@app.command()
def sample(
    preset: Preset,
    overrides: Overrides = None,
    output: Output = DEFAULT_OUTPUT,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Stages 1 to 3: sample every method at every point, training first what is missing."""
    from flows.run import Run
    from flows.stages.collect import collect as collect_stage
    from flows.stages.comparison import sample_all
    from flows.stages.distill import train_all

    def work(config: PipelineConfig, place: Workplace) -> dict[str, Any]:
        run = Run(config, place).check()
        return {"artefacts": sample_all(run, train_all(run, collect_stage(run)))}

    _show(in_configured_workplace(work, preset, overrides, output, device), as_json)


@app.command()
def pretrain(
    data: Annotated[Path | None, typer.Option(help="Folder with the four Fashion-MNIST idx files.")] = None,
    output: Output = Path("outputs/pretrain"),
    as_json: Json = False,
) -> None:
    """Retrain the built-in teacher, its VAE and its classifier from the real images (about two hours on 2 cores)."""
    from flows.stages.pretrain import pretrain as run

    def work(place: Workplace) -> dict[str, Any]:
        return run(data, place)

    _show(in_workplace(work, output), as_json)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="An output folder, one artefact, a store or an export.")],
    repair: Annotated[bool, typer.Option("--repair", help="Delete what is torn; the next run makes it anew.")] = False,
    follow: Annotated[
        str | None,
        typer.Option("--follow", metavar="URL", help="Where the trajectories lie, if not in the folder (store.url)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check every checksum below a folder and name what is torn. Exit code 1 if anything is.

    Nothing outside of the folder is read, asked or deleted, but what --follow names.
    """
    from flows.stages.verify import verify as run

    with one_line():
        result = run(folder, repair, follow)
    if as_json:
        print_json(result)
    else:
        deleted = [f"deleted {name}" for name in result["deleted"]]
        for line in (*result["problems"], *deleted, *result["unchecked"]):
            print_line(line)
        print_line(f"{'ok' if result['ok'] else 'NOT ok'}: {result['artefacts']} artefacts, content {result['digest']}")
    raise typer.Exit(0 if result["ok"] else 1)


@app.command()
def presets() -> None:
    """List the shipped presets."""
    for name in preset_names():
        print_line(name)


def _show_plan(costs: dict[str, Any], lines: list[str], as_json: bool) -> None:
    if as_json:
        print_json(costs)
        return
    for line in lines:
        print_line(line)


def _show(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    for name, path in result["artefacts"].items():
        print_line(f"{name}: {path}")


def _show_metrics(metrics: dict[str, Any], page: Path, as_json: bool) -> None:
    from agd_core.report.rows import HEADINGS, WARNED, cells, warnings

    if as_json:
        print_json(metrics)
        return
    rows: list[Row] = metrics["rows"]
    print_table(HEADINGS, [cells(row) for row in rows])
    for warning in warnings(rows):
        print_line(f"{WARNED.strip()} {warning}")
    print_line(f"report: {page.resolve()}")


for add_commands in (
    add_export_commands,
    add_compare_commands,
    add_doctor_commands,
    add_reference_commands,
    add_nightly_commands,
    add_lab_commands,
):
    add_commands(app)


def main() -> None:
    """Entry point of the console script."""
    with standard_streams():
        app()


if __name__ == "__main__":
    main()
