"""What orchestration costs: the same distillation in process and as a run of a real lab, alternating.

In process: the stage functions alone, timed inside the process, without its imports. In the lab: Prefect's own time of
the run, from Running to Completed, which has no imports either; and, beside it, from the request to Completed.

    python benchmarks/lab_overhead.py --rounds 3 --preset fashion-dit-quick train.steps=700 sample.images=1000
"""

import argparse
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

START_SECONDS = 180.0
PASSWORD = secrets.token_urlsafe()
IN_PROCESS = """
import json, sys, time
from pathlib import Path
from flows.presets import load_config
from flows.run import Run
from flows.stages.distill import distill
from flows.workplace import Workplace, pick_device
preset, output, *overrides = sys.argv[1:]
config = load_config(preset, overrides)
started = time.perf_counter()
distill(Run(config, Workplace(Path(output), pick_device("auto"))), "benchmark")
print(json.dumps(time.perf_counter() - started))
"""


def in_process(preset: str, overrides: list[str], output: Path) -> float:
    """Seconds of the stages in a process of their own."""
    command = [sys.executable, "-c", IN_PROCESS, preset, str(output), *overrides]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def in_lab(url: str, preset: str, overrides: list[str], output: Path) -> tuple[float, float]:
    """Seconds of the run, and from the request to its end."""
    deployment = ask(f"{url}/deployments/name/distill/distill")["id"]
    settings = {"preset": preset, "overrides": overrides, "output": str(output)}
    started = time.monotonic()
    run = ask(f"{url}/deployments/{deployment}/create_flow_run", {"parameters": {"settings": settings}})["id"]
    while (now := ask(f"{url}/flow_runs/{run}"))["state_type"] not in ("COMPLETED", "FAILED", "CRASHED"):
        time.sleep(0.2)
    assert now["state_type"] == "COMPLETED", now["state"]["message"]
    return float(now["total_run_time"]), time.monotonic() - started


def ask(url: str, body: Any = None) -> Any:
    """A GET, or a POST of JSON; the answer's JSON."""
    auth = ("agd", PASSWORD)
    answer = (
        httpx.get(url, auth=auth, timeout=60) if body is None else httpx.post(url, auth=auth, json=body, timeout=60)
    )
    return answer.raise_for_status().json()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--preset", default="fashion-dit-quick")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        folder, printed = Path(scratch), Path(scratch) / "up.txt"
        with printed.open("wb") as out:
            command = [sys.executable, "-m", "flows.cli", "up", "--port", str(port), "--home", str(folder / "home")]
            environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
            environment["PREFECT_SERVER_API_AUTH_STRING"] = f"agd:{PASSWORD}"
            lab = subprocess.Popen(command, stdout=out, stderr=out, cwd=folder, env=environment)
        try:
            deadline = time.monotonic() + START_SECONDS
            while "up: http" not in printed.read_text():
                assert lab.poll() is None, printed.read_text()
                assert time.monotonic() < deadline, "not up in time"
                time.sleep(0.2)
            measure(f"http://127.0.0.1:{port}/api", arguments, folder)
        finally:
            lab.send_signal(signal.SIGINT)
            lab.wait(START_SECONDS)


def measure(url: str, arguments: argparse.Namespace, folder: Path) -> None:
    """Alternate the two sides and print medians."""
    rounds = []
    for number in range(arguments.rounds):
        ours = in_process(arguments.preset, arguments.overrides, folder / f"process-{number}")
        run, wall = in_lab(url, arguments.preset, arguments.overrides, folder / f"lab-{number}")
        cached, _ = in_lab(url, arguments.preset, arguments.overrides, folder / f"lab-{number}")
        rounds.append((ours, run, wall, cached))
        print(
            f"round {number}: in process {ours:.1f} s, run {run:.1f} s, "
            f"request to end {wall:.1f} s, again {cached:.1f} s"
        )
    ours, run, wall, cached = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(
        f"medians: in process {ours:.1f} s; run in the lab {run:.1f} s ({run - ours:+.1f} s, {run / ours - 1:+.1%}); "
        f"from request to end {wall:.1f} s; the same run again, all cached, {cached:.1f} s"
    )


if __name__ == "__main__":
    main()
