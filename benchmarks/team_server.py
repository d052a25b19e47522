"""A team's lab, really started: PostgreSQL as the server's database and a password, once by `agd up` and once by hand.

Starts a private PostgreSQL, and on it `agd up` with PREFECT_SERVER_API_AUTH_STRING set; looks that nobody gets in
without the password, collects trajectories through the pool, stops, and looks in the database. Then the same with the
plain `prefect` commands of docs/lab.md. Needs PostgreSQL's programs (`--postgres` says where) and two minutes:

    python benchmarks/team_server.py
"""

import argparse
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "team:let-me-in"  # noqa: S105 of a server that lives for two minutes
SMALL = ["collect.trajectories=12", "collect.steps=6", "collect.kept_steps=3", "collect.shard_trajectories=4"]
BY_HAND = (
    "work-pool create gpu --type process",
    "work-pool set-concurrency-limit gpu 1",
    "work-queue create interactive --pool gpu --priority 1",
    "work-queue create nightly --pool gpu --priority 10",
    "gcl create gpu --limit 1",
)
"""As in docs/lab.md."""
START_SECONDS = 180.0


@contextmanager
def process(command: Sequence[str], log: Path, stop: signal.Signals = signal.SIGINT, **options: Any) -> Iterator[Any]:
    """A process for the length of a block, then stopped."""
    with log.open("wb") as out:
        started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **options)
    try:
        yield started
    finally:
        started.send_signal(stop)
        started.wait(START_SECONDS)


@contextmanager
def postgres(programs: Path, folder: Path) -> Iterator[str]:
    """A private PostgreSQL server, and its URL for Prefect; it refuses to be root's, so root lends it another user."""
    user = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    data, port = folder / "data", free_port()
    data.mkdir(parents=True)
    if os.getuid() == 0:
        for path in (folder, data):
            os.chown(path, pwd.getpwnam(user).pw_uid, -1)
    options: dict[str, Any] = {"user": user, "cwd": folder} if os.getuid() == 0 else {"cwd": folder}
    initdb = [programs / "initdb", "--pgdata", data, "--username", "prefect", "--auth", "trust", "--no-sync"]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, **options)
    serve = [str(programs / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder), "-h", "127.0.0.1"]
    with process(serve, folder.parent / "postgres.log", **options):
        command = [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-q"]
        wait_for(lambda: subprocess.run(command, check=False).returncode == 0)
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"


def by_agd_up(home: Path, work: Path, database: str) -> dict[str, Any]:
    """`agd up` on this database with a password; what was seen."""
    port, output = free_port(), home / "up.txt"
    command = [sys.executable, "-m", "flows.cli", "up", "--port", str(port), "--home", str(home), "--host", "0.0.0.0"]  # noqa: S104
    settings = shell() | {"PREFECT_API_DATABASE_CONNECTION_URL": database, "PREFECT_SERVER_API_AUTH_STRING": PASSWORD}
    began = time.monotonic()
    with process(command, output, cwd=work, env=settings) as keeper:
        wait_for(lambda: "up: http" in output.read_text() or keeper.poll() is not None)
        seconds = time.monotonic() - began
        seen = look(f"http://127.0.0.1:{port}")
    return {
        "agd up: seconds to start": round(seconds, 1),
        **named("agd up", seen),
        "agd up: exit code": keeper.returncode,
    }


def by_hand(home: Path, work: Path, database: str) -> dict[str, Any]:
    """The same with plain `prefect` commands."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server_side = {"PREFECT_API_DATABASE_CONNECTION_URL": database, "PREFECT_SERVER_API_AUTH_STRING": PASSWORD}
    client_side = shell() | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_API_AUTH_STRING": PASSWORD,
        "AGD_HOME": str(work),
    }
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    with ExitStack() as stack:
        options = {"cwd": ROOT, "env": client_side | server_side | {"PREFECT_SERVER_API_PORT": str(port)}}
        server = [sys.executable, "-m", "flows.lab.server_process"]
        stack.enter_context(process(server, home / "server.txt", **options))
        wait_for(lambda: answer(f"{url}/api/health") == 200)
        for line in (*BY_HAND, "deploy --all"):
            subprocess.run([*prefect, *line.split()], cwd=ROOT, env=client_side, check=True, stdout=subprocess.DEVNULL)
        worker = [sys.executable, "-m", "flows.lab.worker", "worker", "start", "--pool", "gpu", "--type", "process"]
        stack.enter_context(process(worker, home / "worker.txt", cwd=ROOT, env=client_side))
        return named("by hand", look(url))


def look(url: str) -> dict[str, Any]:
    """Who gets in, and whether the pool does its work."""
    deployment = json.loads(ask(f"{url}/api/deployments/name/collect-trajectories/collect-trajectories"))["id"]
    run = json.loads(
        ask(f"{url}/api/deployments/{deployment}/create_flow_run", {"parameters": {"settings": {"overrides": SMALL}}})
    )["id"]
    state = lambda: json.loads(ask(f"{url}/api/flow_runs/{run}"))["state"]["name"]  # noqa: E731
    wait_for(lambda: state() in ("Completed", "Failed", "Crashed"))
    return {
        "health without password": answer(f"{url}/api/health"),
        "api without password": answer(f"{url}/api/flows/count", {}),
        "api with password": answer(f"{url}/api/flows/count", {}, PASSWORD),
        "UI without password": answer(f"{url}/v2/"),
        "UI with password": answer(f"{url}/v2/", password=PASSWORD),
        "run": state(),
    }


def rows(programs: Path, database: str) -> str:
    """How many flow runs PostgreSQL itself says it holds."""
    port = database.rpartition(":")[2].partition("/")[0]
    query = "select state_name || ' ' || count(*) from flow_run group by state_name order by 1"
    command = [programs / "psql", "-h", "127.0.0.1", "-p", port, "-U", "prefect", "-At", "-c", query, "postgres"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().replace("\n", ", ")


def answer(url: str, body: Any = None, password: str = "") -> int:
    """The status code of a request; 0 without an answer."""
    try:
        with urllib.request.urlopen(request(url, body, password), timeout=10) as reply:  # noqa: S310 our own server
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def ask(url: str, body: Any = None) -> bytes:
    with urllib.request.urlopen(request(url, body, PASSWORD), timeout=30) as reply:  # noqa: S310 our own server
        return bytes(reply.read())


def request(url: str, body: Any, password: str) -> urllib.request.Request:
    headers = {"Content-Type": "application/json"}
    if password:
        headers["Authorization"] = f"Basic {b64encode(password.encode()).decode()}"
    return urllib.request.Request(url, None if body is None else json.dumps(body).encode(), headers)  # noqa: S310


def named(how: str, seen: dict[str, Any]) -> dict[str, Any]:
    return {f"{how}: {name}": value for name, value in seen.items()}


def shell() -> dict[str, str]:
    """This environment without anything of Prefect."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}


def wait_for(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {START_SECONDS:g} s")
        time.sleep(0.5)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", type=Path, default=Path("/usr/lib/postgresql/15/bin"), help="folder of initdb")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        result: dict[str, Any] = {}
        for how, start in (("agd up", by_agd_up), ("by hand", by_hand)):
            home, work = folder / how / "home", folder / how / "work"
            home.mkdir(parents=True)
            work.mkdir()
            with postgres(options.postgres, folder / how / "postgres") as database:
                result |= start(home, work, database)
                result[f"{how}: runs in PostgreSQL"] = rows(options.postgres, database)
    lines = [f"{key:<40} {value}" for key, value in result.items()]
    print(json.dumps(result, indent=2) if options.json else "\n".join(lines))


if __name__ == "__main__":
    main()
