"""Kill -9 what a lab is made of, at random moments, and see that it comes back by itself.

    python benchmarks/kill_lab.py [--kills 20] [--servers 10] [--starts 5] [--busy 2] [--seed 0] [--folder DIR] [--json]

Flow processes: runs of a long collection, each killed as often as the limit allows, at random moments from their first
to somewhere in their work, beside busy loops. Measured: seconds until the run's next process is there. Servers: those
of a lab that is up. Starts: in a fresh home, `agd up` is killed at a random moment of its start and started again; then
the same with its server instead, which `agd up` must start again. Exit code 1 if anything stays away.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.states import Cancelling

from benchmarks.killing import command_line, show
from flows.lab.flow_processes import FlowProcess, flow_processes
from flows.lab.resume import MAX_AUTO_RESUMES
from tests.lab.lab_process import RunningLab, free_port, running_lab, start_lab, wait_for

COLLECT = "collect-trajectories/collect-trajectories"
LONG = ["collect.trajectories=20000", "collect.steps=40", "collect.shard_trajectories=100", "collect.batch_size=100"]
LIFE_SECONDS = 20.0
"""From a process's first moment, through its imports, into its work."""
PATIENCE_SECONDS = 600.0
WANTED_SECONDS = 60.0


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Processes that do nothing but take the processor."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def process_of(lab: RunningLab, run: UUID, but: int | None = None) -> FlowProcess | None:
    """The process that a run has now, if it is another one than before."""
    return next((found for found in flow_processes(lab.lab) if found.flow_run == run and found.pid != but), None)


def kill_flows(lab: RunningLab, kills: int, rng: random.Random) -> list[float]:
    """Seconds from each kill of a flow's process until its run's next process is there."""
    seconds: list[float] = []
    while len(seconds) < kills:
        settings = {"preset": "fashion-dit-quick", "overrides": LONG, "output": f"flow-{len(seconds)}"}
        run = lab.trigger(COLLECT, settings=settings).id
        process = wait_for(lambda run=run: process_of(lab, run), PATIENCE_SECONDS)
        for _ in range(min(MAX_AUTO_RESUMES, kills - len(seconds))):
            time.sleep(rng.uniform(0, LIFE_SECONDS))
            killed = time.monotonic()
            os.kill(process.pid, signal.SIGKILL)
            process = wait_for(lambda run=run, pid=process.pid: process_of(lab, run, but=pid), PATIENCE_SECONDS)
            seconds.append(round(time.monotonic() - killed, 1))
            print(f"flow {len(seconds)}: {seconds[-1]} s", flush=True)
        with lab.client() as client:
            client.set_flow_run_state(run, Cancelling())
        lab.wait_for_state(run, "Cancelled", seconds=PATIENCE_SECONDS)
    return seconds


def server_of(up: int) -> int | None:
    """The process id of the server that an `agd up` has started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode().split("\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == up and "flows.lab.server_process" in command:
            return int(folder.name)
    return None


def kill_servers(lab: RunningLab, kills: int) -> int:
    """How many of these kills the lab came back from."""
    for number in range(kills):
        os.kill(server_of(lab.process.pid) or 0, signal.SIGKILL)
        wait_for(lambda number=number: lab.printed().count("the server is up again") > number, PATIENCE_SECONDS)
        print(f"server {number + 1}: up again", flush=True)
    return kills


def killed_start(folder: Path, kill: Callable[[RunningLab], None]) -> str:
    """Start a lab, let it be killed somehow while it starts, start it again in the same home, and say what came."""
    lab = start_lab(folder / "home", folder / "work", free_port())
    kill(lab)
    if lab.process.poll() is None:
        wait_for(lambda: "up: http" in lab.printed() or lab.process.poll() is not None, PATIENCE_SECONDS)
        lines = lab.printed()
        lab.stop()
        return "up" if "up: http" in lines else lines.splitlines()[-1]
    with running_lab(folder / "home", folder / "work", lab.lab.port) as again:
        return "up" if "up: http" in again.printed() else again.printed()


def after_a_while(rng: random.Random, life: float) -> Callable[[RunningLab], None]:
    """Kill `agd up` at a random moment of its start."""

    def kill(lab: RunningLab) -> None:
        time.sleep(rng.uniform(0, life))
        lab.process.kill()
        lab.process.wait()

    return kill


def the_server(rng: random.Random, life: float) -> Callable[[RunningLab], None]:
    """Kill the server at a random moment between its own start and the lab's."""

    def kill(lab: RunningLab) -> None:
        server = wait_for(lambda: server_of(lab.process.pid), PATIENCE_SECONDS)
        time.sleep(rng.uniform(0, life))
        os.kill(server, signal.SIGKILL)

    return kill


def kill_parts(arguments: Any, folder: Path, rng: random.Random) -> dict[str, Any]:
    """Kills of the parts of a lab that is up."""
    with running_lab(folder / "home", folder / "work") as lab:
        with busy(arguments.busy):
            seconds = kill_flows(lab, arguments.kills, rng)
        servers = kill_servers(lab, arguments.servers)
    return {
        "flow kills": len(seconds),
        "resumed within 60 s": sum(value <= WANTED_SECONDS for value in seconds),
        "seconds until the next process": sorted(seconds),
        "server kills survived": servers,
    }


def kill_starts(starts: int, folder: Path, rng: random.Random) -> dict[str, Any]:
    """Kills of labs that start, at moments of a start as long as the first one."""
    began = time.monotonic()
    with running_lab(folder / "unbroken", folder / "work"):
        life = time.monotonic() - began
    outcomes = []
    for number, moment in enumerate([after_a_while(rng, life)] * starts + [the_server(rng, life / 2)] * starts):
        outcomes.append(killed_start(folder / f"start-{number}", moment))
        print(f"start {number + 1}: {outcomes[-1]}", flush=True)
    return {
        "an unbroken start, seconds": round(life, 1),
        "killed starts that came back": outcomes[:starts].count("up"),
        "starts whose server was killed that came up": outcomes[starts:].count("up"),
    }


def main() -> int:
    """Exit code 0 if everything came back."""
    parser = command_line(__doc__, kills=20)
    parser.add_argument("--servers", type=int, default=10, help="kills of the server of a lab that is up")
    parser.add_argument("--starts", type=int, default=5, help="kills while the lab starts: of it, and of its server")
    parser.add_argument("--busy", type=int, default=2, help="busy loops beside the flows")
    arguments = parser.parse_args()
    rng, result = random.Random(arguments.seed), {}  # noqa: S311
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        if arguments.kills or arguments.servers:
            result |= kill_parts(arguments, Path(folder), rng)
        if arguments.starts:
            result |= kill_starts(arguments.starts, Path(folder), rng)
    show(result, arguments.json)
    back = result.get("killed starts that came back", 0) + result.get("starts whose server was killed that came up", 0)
    in_time = result.get("resumed within 60 s", 0) == arguments.kills
    return int(not in_time or back < 2 * arguments.starts)


if __name__ == "__main__":
    sys.exit(main())
