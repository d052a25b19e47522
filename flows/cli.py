"""The command line, `agd`. Every command works in process; none needs a server."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from agd_core.errors import InputError, NumericError
from agd_core.progress import Stopped
from agd_core.report.rows import HEADINGS, WARNED, Row, cells, warnings
from flows.cli_compare import add_commands as add_compare_commands
from flows.cli_doctor import add_commands as add_doctor_commands
from flows.cli_export import add_commands
from flows.cli_nightly import add_commands as add_nightly_commands
from flows.cli_reference import add_commands as add_reference_commands
from flows.config import PipelineConfig
from flows.lab.cli import add_commands as add_lab_commands
from flows.presets import load_config, preset_names, repeat_command
from flows.terminal import Terminal
from flows.workplace import Workplace, pick_device, writable_folder

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Adapter Guidance Distillation: guided diffusion images at half the network evaluations.",
)

Preset = Annotated[str, typer.Argument(help="A preset's name (see `agd presets`) or a .yaml file of the same form.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. --set train.steps=500.")
]
Output = Annotated[Path, typer.Option("--output", help="Folder for artefacts, report.html and metrics.json.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]

_OUTPUT = Path("outputs")
_PIPE_COLUMNS = 140


@app.command()
def distill(
    preset: Preset,
    overrides: Overrides = None,
    output: Output = _OUTPUT,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Run the whole pipeline: collect, train, sample, evaluate, report. Run it again to resume or to reuse."""
    from flows.stages.distill import distill as run

    def work(config: PipelineConfig, place: Workplace) -> dict[str, Any]:
        return run(config, repeat_command(preset, overrides or (), output), place).metrics

    metrics = _in_workplace(work, preset, overrides, output, device)
    _show_metrics(metrics, output / "report.html", as_json)


@app.command()
def sweep(
    preset: Preset,
    overrides: Overrides = None,
    output: Output = _OUTPUT,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare all methods at every guidance scale with every step count and every sampler (sample.sweep_schedulers)."""
    from flows.stages.distill import sweep as run

    def work(config: PipelineConfig, place: Workplace) -> dict[str, Any]:
        return run(config, repeat_command(preset, overrides or (), output, "sweep"), place).metrics

    _show_metrics(_in_workplace(work, preset, overrides, output, device), output / "sweep.html", as_json)


@app.command()
def evaluate(
    preset: Preset,
    overrides: Overrides = None,
    output: Output = _OUTPUT,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """The same as distill: sample and evaluate every method and write the report, after doing what is missing."""
    distill(preset, overrides, output, device, as_json)


@app.command()
def collect(
    preset: Preset,
    overrides: Overrides = None,
    output: Output = _OUTPUT,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would cost.")] = False,
    as_json: Json = False,
) -> None:
    """Stage 1: record guided trajectories. Run it again to resume."""
    from flows.stages.distill import collect_stage, open_base_model
    from flows.stages.plan import plan_costs, plan_lines

    def cost(config: PipelineConfig, place: Workplace) -> dict[str, Any]:
        return plan_costs(config, open_base_model(config, place), place)

    if dry_run:
        costs = _in_workplace(cost, preset, overrides, output, device)
        print(json.dumps(costs, indent=2) if as_json else "\n".join(plan_lines(costs)))
        return

    def work(config: PipelineConfig, place: Workplace) -> dict[str, Any]:
        artefact = collect_stage(config, open_base_model(config, place), place)
        return {"artefacts": {"trajectories": str(artefact.path)}, "digest": artefact.digest}

    _show(_in_workplace(work, preset, overrides, output, device), as_json)


@app.command()
def train(
    preset: Preset,
    overrides: Overrides = None,
    output: Output = _OUTPUT,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Stages 1 and 2: train the preset's adapters, collecting first what is missing. Run it again to resume."""
    from flows.stages.distill import collect_stage, open_base_model, train_stage
    from flows.stages.publish import publish_trained

    def work(config: PipelineConfig, place: Workplace) -> dict[str, Any]:
        base_model = open_base_model(config, place)
        trained = train_stage(config, collect_stage(config, base_model, place), base_model, place)
        command = repeat_command(preset, overrides or (), output, "train")
        folders = publish_trained(config, trained, command, base_model, place.output)
        return {"artefacts": {label: str(folder) for label, folder in folders.items()}}

    _show(_in_workplace(work, preset, overrides, output, device), as_json)


@app.command()
def sample(
    preset: Preset,
    overrides: Overrides = None,
    output: Output = _OUTPUT,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Stages 1 to 3: sample every method at every point, training first what is missing."""
    from flows.stages.comparison import sample_all
    from flows.stages.distill import collect_stage, open_base_model, train_stage

    def work(config: PipelineConfig, place: Workplace) -> dict[str, Any]:
        base_model = open_base_model(config, place)
        trained = train_stage(config, collect_stage(config, base_model, place), base_model, place)
        return {"artefacts": sample_all(config, base_model, trained, place)}

    _show(_in_workplace(work, preset, overrides, output, device), as_json)


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

    _show(_guarded(work, output, "cpu"), as_json)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="An output folder, one artefact, a store or an export.")],
    repair: Annotated[bool, typer.Option("--repair", help="Delete what is torn; the next run makes it anew.")] = False,
    as_json: Json = False,
) -> None:
    """Check every checksum below a folder and name what is torn. Exit code 1 if anything is."""
    from flows.stages.verify import verify as run

    try:
        result = run(folder, repair)
    except InputError as error:
        _fail(str(error))
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        for problem in result["problems"]:
            print(problem)
        for name in result["deleted"]:
            print(f"deleted {name}")
        print(f"{'ok' if result['ok'] else 'NOT ok'}: {result['artefacts']} artefacts, content {result['digest']}")
    raise typer.Exit(0 if result["ok"] else 1)


@app.command()
def presets() -> None:
    """List the shipped presets."""
    for name in preset_names():
        print(name)


def _in_workplace(
    work: Callable[[PipelineConfig, Workplace], dict[str, Any]],
    preset: str,
    overrides: list[str] | None,
    output: Path,
    device: str,
) -> dict[str, Any]:
    try:
        config = load_config(preset, overrides or ())
    except InputError as error:
        _fail(str(error))
    return _guarded(lambda place: work(config, place), output, device)


def _guarded(work: Callable[[Workplace], dict[str, Any]], output: Path, device: str) -> dict[str, Any]:
    """Run work with progress on the terminal; bad input is one line and exit code 2, a stop is exit code 130."""
    terminal = Terminal()
    try:
        with terminal:
            picked = pick_device(device)
            place = Workplace(
                writable_folder(output), picked, terminal.announce, terminal.progress, terminal.should_stop
            )
            return work(place)
    except InputError as error:
        _fail(str(error))
    except (Stopped, KeyboardInterrupt) as stop:
        print(f"agd: {stop or 'interrupted; run the same command again to resume'}", file=sys.stderr)
        raise typer.Exit(130) from None
    except (OSError, NumericError) as error:
        print(f"agd: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


def _fail(message: str) -> NoReturn:
    print(f"agd: {message}", file=sys.stderr)
    raise typer.Exit(2)


def _show(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, indent=2))
        return
    for name, path in result["artefacts"].items():
        print(f"{name}: {path}")


def _show_metrics(metrics: dict[str, Any], page: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps(metrics, indent=2))
        return
    rows: list[Row] = metrics["rows"]
    table = Table(*HEADINGS)
    for row in rows:
        table.add_row(*cells(row))
    console = Console()
    (console if console.is_terminal else Console(width=_PIPE_COLUMNS)).print(table)
    for warning in warnings(rows):
        print(f"{WARNED.strip()} {warning}")
    print(f"report: {page.resolve()}")


add_commands(app, _guarded)
add_compare_commands(app, _guarded)
add_doctor_commands(app, _guarded)
add_reference_commands(app, _guarded)
add_nightly_commands(app, _guarded)
add_lab_commands(app)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
