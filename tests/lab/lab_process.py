"""A real `agd up` for tests: started as a process, with a home, a port and a work folder of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun

from agd_core.basics.parent_death import die_with_parent
from flows.lab.lab import Lab

PATIENCE_SECONDS = 300.0
"""No test proves anything with it: it ends what hangs, on a machine that is busy with other work too."""
_SCHEDULER_SECONDS = "5"
"""How often the test labs' servers make scheduled runs; Prefect's own is a minute."""


@dataclass
class RunningLab:
    """A started `agd up`; see `Lab` for its addresses."""

    lab: Lab
    process: subprocess.Popen[bytes]
    output: Path
    """What it has printed."""

    @property
    def home(self) -> Path:
        return self.lab.home

    @property
    def work_folder(self) -> Path:
        """Where its flows run."""
        return self.lab.work_folder

    @property
    def api_url(self) -> str:
        return self.lab.api_url

    @property
    def server_log(self) -> Path:
        return self.lab.folder / "server.log"

    @property
    def worker_log(self) -> Path:
        return self.lab.folder / "worker.log"

    def client(self) -> SyncPrefectClient:
        return self.lab.client()

    def environment(self) -> dict[str, str]:
        """For child processes that are to talk to this lab, the `prefect` command for one."""
        return self.lab.environment()

    def printed(self) -> str:
        return self.output.read_text()

    def trigger(self, deployment: str, **parameters: Any) -> FlowRun:
        """Start a run of `flow/deployment`."""
        with self.client() as client:
            found = client.read_deployment_by_name(deployment)
            return client.create_flow_run_from_deployment(found.id, parameters=parameters)

    def run(self, flow_run: UUID) -> FlowRun:
        """The run as it is now."""
        with self.client() as client:
            return client.read_flow_run(flow_run)

    def state_names(self, flow_run: UUID) -> list[str]:
        """All states that a run has had, in order."""
        with self.client() as client:
            return [s.name or "" for s in sorted(client.read_flow_run_states(flow_run), key=lambda s: s.timestamp)]

    def wait_for_state(self, flow_run: UUID, *names: str, seconds: float = PATIENCE_SECONDS) -> FlowRun:
        """Wait until a run is in a state of one of these names."""
        return wait_for(lambda: run if (run := self.run(flow_run)).state_name in names else None, seconds)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ctrl-C, and its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)


@contextmanager
def running_lab(home: Path, work_folder: Path, port: int | None = None, *options: str) -> Iterator[RunningLab]:
    """Start `agd up` and wait until it is up; what is left of it at the end is stopped."""
    started = start_lab(home, work_folder, port or free_port(), *options)
    try:
        wait_for(lambda: "up: http" in started.printed() or started.process.poll() is not None, PATIENCE_SECONDS)
        assert started.process.poll() is None, started.printed()
        yield started
    finally:
        if started.process.poll() is None:
            started.process.send_signal(signal.SIGINT)
            try:
                started.process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                started.process.kill()
                started.process.wait()
                raise


def start_lab(home: Path, work_folder: Path, port: int, *options: str) -> RunningLab:
    """Start `agd up` without waiting, as a script with & would; it ends with the test process."""
    work_folder.mkdir(parents=True, exist_ok=True)
    home.mkdir(parents=True, exist_ok=True)
    output = home / f"up-{len(list(home.glob('up-*.txt')))}.txt"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "up", "--port", str(port), "--home", str(home), *options],
            cwd=work_folder,
            env=outer_environment(),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            preexec_fn=_as_from_a_script,  # noqa: PLW1509 two system calls
        )
    return RunningLab(Lab(home, "127.0.0.1", port, work_folder), process, output)


def _as_from_a_script() -> None:
    """What a shell script's & does to its children: Ctrl-C is ignored, until they say otherwise."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()


def outer_environment() -> dict[str, str]:
    """What a person's shell has, one thread per process, and of Prefect's settings the test's own only."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    quick = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": _SCHEDULER_SECONDS}
    return inherited | quick | {"OMP_NUM_THREADS": "1"}


def wait_for(found: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """What `found` returns as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (result := found()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s")
        time.sleep(0.2)
    return result


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
