"""Registering the deployments of prefect.yaml."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import yaml

from flows.lab.child import last_lines
from flows.lab.lab import Lab, LabError

_HERE = Path(__file__).resolve().parent
_DEPLOY_SECONDS = 300


def shipped(name: str) -> Path:
    """A file of the lab: beside this one where the package is installed, in the repository otherwise.

    Args:
        name: its path in the repository.
    """
    installed = _HERE / Path(name).name
    return installed if installed.exists() else _HERE.parents[1] / name


@cache
def entrypoints() -> dict[str, str]:
    """Where the flow of every deployment that is shipped is defined, by its name: what this lab runs."""
    declared = yaml.safe_load(shipped("prefect.yaml").read_text(encoding="utf-8"))
    return {deployment["name"]: deployment["entrypoint"] for deployment in declared["deployments"]}


def deploy_all(lab: Lab, file: Path | None = None) -> None:
    """Register every deployment with its schedules; what a person paused stays paused.

    Args:
        lab: its server must answer.
        file: a prefect.yaml; None takes the one that is shipped.

    Raises:
        LabError: Prefect refused one, or took too long; the message ends with its words.
    """
    with lab.client() as client:
        paused = [deployment.id for deployment in client.read_deployments() if deployment.paused]
        _deploy(lab, file or shipped("prefect.yaml"))
        for deployment in paused:  # deploying lets a paused one go on; a paused schedule stays, see prefect.yaml
            client.pause_deployment(deployment)


def _deploy(lab: Lab, file: Path) -> None:
    log = lab.folder / "deploy.log"
    with log.open("wb") as output, _in_time(log):
        done = subprocess.run(  # noqa: S603 our own command
            [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=lab.folder,
            env=lab.environment(),
            timeout=_DEPLOY_SECONDS,
            start_new_session=True,
            check=False,
        )
    if done.returncode != 0:
        raise LabError(f"the deployments were not registered; {log} ends with\n{last_lines(log)}")


@contextmanager
def _in_time(log: Path) -> Iterator[None]:
    try:
        yield
    except subprocess.TimeoutExpired as error:
        raise LabError(
            f"the deployments were not registered within {_DEPLOY_SECONDS} s; {log} ends with\n{last_lines(log)}"
        ) from error
