"""`agd up` on the command line; Prefect is imported only once the command runs."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from agd_core.errors import InputError

_PORT = 4200


def add_commands(app: typer.Typer) -> None:
    """Add the lab's commands to the command line."""
    app.command()(up)


def up(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the UI and the API answer.")] = _PORT,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than 127.0.0.1 need a password.")
    ] = "127.0.0.1",
    home: Annotated[
        Path | None, typer.Option(help="Prefect's home folder; default: PREFECT_HOME or ~/.prefect.")
    ] = None,
    notify_url: Annotated[str | None, typer.Option(help="Gets a POST when an adapter got worse.")] = None,
) -> None:
    """Start the lab: Prefect server and UI, work pool, deployments and one worker. Ctrl-C stops all of it."""
    try:
        from flows.lab.lab import Lab, LabError
        from flows.lab.up import up as run
    except ImportError as error:
        _fail(f"the lab needs Prefect ({error}): pip install 'agd-pipeline[lab]'", 2)
    folder = home or Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    try:
        run(Lab(folder.expanduser().resolve(), host, port, Path.cwd()), notify_url, _say)
    except InputError as error:
        _fail(str(error), 2)
    except (LabError, OSError) as error:
        _fail(str(error), 1)


def _say(line: str) -> None:
    print(f"agd: {line}", flush=True)


def _fail(message: str, code: int) -> None:
    print(f"agd: {message}", file=sys.stderr)
    raise typer.Exit(code)
