"""`agd up` on the command line; Prefect is imported only once the command runs."""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from agd_core.basics.errors import InputError
from agd_core.basics.home import expand
from flows.lab.network import LOOPBACK_NAMES, reach_directly

_PORT = 4200
_NOTIFY_URL = "AGD_NOTIFY_URL"


def up(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the UI and the API answer.")] = _PORT,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than 127.0.0.1 let other machines in.")
    ] = "127.0.0.1",
    home: Annotated[
        Path | None, typer.Option(help="Prefect's home folder; default: PREFECT_HOME or ~/.prefect.")
    ] = None,
    notify_url: Annotated[
        str | None,
        typer.Option(help=f"Gets a POST when an adapter got worse; {_NOTIFY_URL} does the same."),
    ] = None,
    folder: Annotated[
        list[Path] | None, typer.Option(help="A further folder below which runs may write; may be given repeatedly.")
    ] = None,
    password: Annotated[
        bool, typer.Option(help="Without one every user and program of this machine may start runs.")
    ] = True,
) -> None:
    """Start the lab: Prefect server and UI, work pool, deployments and one worker. Ctrl-C stops all of it."""
    for line in reach_directly(os.environ, (*LOOPBACK_NAMES, host)):
        _say(line)
    prefect_home = _prefect_home(home)
    try:
        from flows.lab.lab import Lab, LabError
        from flows.lab.up import up as run
    except ImportError as error:
        _fail(f"the lab needs Prefect ({error}): pip install 'agd-pipeline[lab]'", 2)
    if notify_url:
        _hide_from_other_users(notify_url)
    try:
        folders = tuple(expand(further).resolve() for further in folder or ())
        lab = Lab(prefect_home.resolve(), host, port, Path.cwd(), folders, password)
        run(lab, notify_url or os.environ.get(_NOTIFY_URL), _say)
    except InputError as error:
        _fail(str(error), 2)
    except (LabError, OSError) as error:
        _fail(str(error), 1)


def _hide_from_other_users(notify_url: str) -> None:
    """Go on as the same process without this argument: the list of processes shows it to everybody."""
    words = [word for word in sys.orig_argv if word not in ("--notify-url", notify_url)]
    words = [word for word in words if word != f"--notify-url={notify_url}"]
    if len(words) < len(sys.orig_argv):
        os.execve(sys.executable, words, os.environ | {_NOTIFY_URL: notify_url})  # noqa: S606 what runs already


def _prefect_home(named: Path | None) -> Path:
    """Prefect's folder. Prefect asks for the user's own one as well: where there is none it gets the same."""
    folder = str(named or os.environ.get("PREFECT_HOME") or "~/.prefect")
    try:
        expand("~")
        return expand(folder)
    except InputError:
        if folder.startswith("~"):
            _fail("no folder for Prefect: this user has no home; set HOME or use --home", 2)
        os.environ["HOME"] = folder
        return Path(folder)


def _say(line: str) -> None:
    print(f"agd: {line}", flush=True)


def _fail(message: str, code: int) -> NoReturn:
    print(f"agd: {message}", file=sys.stderr)
    raise typer.Exit(code)
