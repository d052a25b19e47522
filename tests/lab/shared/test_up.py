"""`agd up`, by starting it."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml
from httpx import ConnectError, ReadTimeout
from prefect.exceptions import ObjectNotFound
from typer.testing import CliRunner

from agd_core.basics.errors import InputError
from agd_core.basics.progress import never
from flows.cli.app import app
from flows.lab import deploying
from flows.lab.deploying import deploy_all, shipped
from flows.lab.lab import Lab, LabError
from flows.lab.pool import POOL, QUEUE_PRIORITIES
from flows.lab.server import ServerDied
from flows.lab.up import _await_predecessor, _Keeper, _who_is_up
from tests.lab.lab_process import free_port, outer_environment, wait_for

AUTOMATIONS = {"agd: a silent run has crashed", "agd: an adapter got worse"}
EVERYWHERE = "0.0.0.0"  # noqa: S104 nothing listens there
CRON = """
name: cron
pull:
- prefect.deployments.steps.set_working_directory: {directory: "{{ $AGD_HOME }}"}
deployments:
- name: cron
  entrypoint: FOLDER/nothing.py:nothing
  schedules: [{cron: "30 14 * * *", timezone: Europe/Berlin, slug: nightly}]
  work_pool: {name: gpu, work_queue_name: nightly}
"""
NOTHING = """
from prefect import flow

@flow
def nothing(): ...
"""


def agd(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", "up", *arguments]
    environment = outer_environment() | settings
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


def deployments(lab) -> dict[str, list[datetime]]:
    """The start times of what is scheduled, by deployment."""
    with lab.client() as client:
        runs = client.read_flow_runs()
        return {
            d.name: [r.expected_start_time for r in runs if r.deployment_id == d.id] for d in client.read_deployments()
        }


def test_it_prints_where_the_ui_and_the_logs_are(lab):
    printed = lab.printed()
    assert f"agd: up: {lab.lab.url}/v2\n" in printed
    assert lab.lab.login_url in printed
    for log in (lab.server_log, lab.worker_log):
        assert str(log) in printed
        assert log.is_file()


def test_the_pool_has_one_place_and_queues_in_order(lab):
    with lab.client() as client:
        pool = client.read_work_pool(POOL)
        queues = {name: client.read_work_queue_by_name(name, POOL).priority for name in QUEUE_PRIORITIES}
        assert client.read_global_concurrency_limit_by_name("gpu").limit == 1
    assert (pool.concurrency_limit, pool.is_paused) == (1, False)
    assert queues == {"interactive": 1, "nightly": 10}
    assert pool.base_job_template["variables"]["properties"] == {}


def test_everything_in_prefect_yaml_is_deployed(lab):
    declared = {entry["name"]: entry for entry in yaml.safe_load(shipped("prefect.yaml").read_text())["deployments"]}
    with lab.client() as client:
        found = {d.name: d for d in client.read_deployments()}
    assert set(declared) <= set(found)
    for name, entry in declared.items():
        assert found[name].work_queue_name == entry["work_pool"]["work_queue_name"]
        assert found[name].tags == entry.get("tags", [])
        assert found[name].job_variables == {}


def test_the_automations_are_installed_once(lab):
    with lab.client() as client:
        assert sorted(automation.name for automation in client.read_automations()) == sorted(AUTOMATIONS)


def test_a_second_one_says_that_the_first_is_up(lab):
    second = agd("--home", str(lab.home), "--port", str(free_port()))
    assert second.returncode == 0
    assert second.stdout == f"agd: already up: {lab.lab.ui_url}\n"
    assert lab.process.poll() is None


def test_a_taken_port_is_one_line_and_nothing_is_changed(lab, tmp_path):
    refused = agd("--home", str(tmp_path), "--port", str(lab.lab.port))
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert re.fullmatch(rf"agd: 127\.0\.0\.1:{lab.lab.port} cannot be used \(.+\); try --port\n", refused.stderr)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"lock", "password"}


def test_a_server_that_does_not_start_is_told_with_the_end_of_its_log(tmp_path):
    failed = agd(
        "--home", str(tmp_path), "--port", str(free_port()),
        PREFECT_API_DATABASE_CONNECTION_URL="sqlite+aiosqlite:////nowhere/at/all.db",
    )  # fmt: skip
    assert failed.returncode == 1
    assert failed.stderr.startswith("agd: the server did not start (exit code")
    assert "unable to open database file" in failed.stderr


def test_others_are_let_in_with_a_password_only(tmp_path, monkeypatch):
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    refused = CliRunner().invoke(app, ["up", "--host", EVERYWHERE, "--no-password", "--home", str(tmp_path)])
    assert refused.exit_code == 2
    assert "lets others in" in refused.output
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "team:secret")
    lab = Lab(tmp_path, EVERYWHERE, 4200, tmp_path)
    assert lab.api_url == "http://127.0.0.1:4200/api"
    assert lab.environment()["PREFECT_API_AUTH_STRING"] == "team:secret"
    assert "secret" not in " ".join(lab.how_to_log_in())
    with pytest.raises(InputError, match="--no-password, but PREFECT_SERVER_API_AUTH_STRING"):
        Lab(tmp_path, "127.0.0.1", 4200, tmp_path, password=False)
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "secret")
    with pytest.raises(InputError, match="user:password"):
        Lab(tmp_path, "127.0.0.1", 4200, tmp_path)


def test_the_first_start_makes_a_password_that_stays(tmp_path, monkeypatch):
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    first, other = (Lab(tmp_path / name, "127.0.0.1", 4200, tmp_path) for name in ("a", "b"))
    assert first.auth is None
    for lab in (first, other):
        lab.make_folder()
    password = first.auth
    assert re.fullmatch(r"agd:[\w-]{32}", password)
    assert password != other.auth
    first.make_folder()
    assert first.auth == password
    environment = first.environment()
    assert {environment["PREFECT_API_AUTH_STRING"], environment["PREFECT_SERVER_API_AUTH_STRING"]} == {password}
    assert first.login_url == f"http://{password}@127.0.0.1:4200/login"


def test_without_a_password_nothing_of_one_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "of:another-server")
    lab = Lab(tmp_path, "127.0.0.1", 4200, tmp_path, password=False)
    lab.make_folder()
    assert (lab.auth, lab.login_url) == (None, "")
    assert not [name for name in lab.environment() if "AUTH_STRING" in name]
    assert "every user" in lab.how_to_log_in()[0]


def test_a_home_that_others_could_read_is_closed(tmp_path):
    lab = Lab(tmp_path / "home", "127.0.0.1", 4200, tmp_path)
    lab.folder.mkdir(parents=True)
    files = [lab.home / "prefect.db", lab.folder / "server.log", lab.folder / "password"]
    for path in files:
        path.write_text("an older release made it")
        path.chmod(0o644)
    (lab.home / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").touch(mode=0o644)
    (tmp_path / "elsewhere").chmod(0o644)
    lab.make_folder()
    assert {path.stat().st_mode & 0o077 for path in (lab.home, lab.folder, *files)} == {0}
    assert (tmp_path / "elsewhere").stat().st_mode & 0o777 == 0o644


def test_a_homes_files_are_its_owners(lab):
    assert lab.home.stat().st_mode & 0o777 == 0o700
    database = [path for path in lab.home.iterdir() if path.name.startswith("prefect.db")]
    assert database
    for path in (*database, lab.lab.folder / "password"):
        assert path.stat().st_mode & 0o777 == 0o600, path


def test_the_password_is_in_no_command_and_no_log(lab):
    password = lab.lab.auth.removeprefix("agd:")
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert [command for command in commands if password.encode() in command] == []
    assert [path.name for path in lab.lab.folder.glob("*.log") if password in path.read_text()] == []


def test_a_url_on_the_command_line_leaves_the_list_of_processes(tmp_path):
    """The token is gone from it before anything else happens: here the lab ends for want of its port."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        command = [sys.executable, "-m", "flows.cli", "up", "--home", str(tmp_path), "--notify-url", "http://x/token"]
        port = str(taken.getsockname()[1])
        with subprocess.Popen([*command, "--port", port], env=outer_environment(), stderr=subprocess.PIPE) as process:
            seen = wait_for(lambda: without_the_token(process), 60)
            assert process.wait(60) == 2
    assert b"--home" in seen


def without_the_token(process) -> bytes:
    """The command of a process once it is without the token."""
    command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    return b"" if b"token" in command else command


def test_a_folder_with_packages_that_hide_ours_is_refused(tmp_path):
    (tmp_path / "flows").mkdir()
    Lab(tmp_path, "127.0.0.1", 4200, tmp_path)
    (tmp_path / "flows" / "__init__.py").touch()
    with pytest.raises(Exception, match="instead of ours"):
        Lab(tmp_path, "127.0.0.1", 4200, tmp_path)


def test_a_folder_whose_name_would_be_taken_for_two_is_refused(tmp_path):
    with pytest.raises(InputError, match="a lab's folder can have no ':' in its name"):
        Lab(tmp_path, "127.0.0.1", 4200, tmp_path / "a:b").make_folder()


def test_deployments_that_are_not_registered_in_time_are_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(deploying, "_DEPLOY_SECONDS", 0.01)
    lab = Lab(tmp_path, "127.0.0.1", 4200, tmp_path)
    lab.make_folder()
    with pytest.raises(LabError, match=r"the deployments were not registered within 0\.01 s"):
        deploying._deploy(lab, shipped("prefect.yaml"))


def test_the_users_own_profile_does_not_leak_in(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "https://somewhere.else/api")
    monkeypatch.setenv("PREFECT_API_KEY", "mine")
    monkeypatch.setenv("PREFECT_SERVER_LOGGING_LEVEL", "INFO")
    environment = Lab(tmp_path, "127.0.0.1", 4321, tmp_path).environment()
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4321/api"
    assert "PREFECT_API_KEY" not in environment
    assert environment["PREFECT_SERVER_LOGGING_LEVEL"] == "INFO"
    assert not Path(environment["PREFECT_PROFILES_PATH"]).exists()


@pytest.fixture(scope="module")
def cron_file(lab, tmp_path_factory):
    path = tmp_path_factory.mktemp("cron") / "prefect.yaml"
    path.write_text(CRON.replace("FOLDER", str(path.parent)))
    (path.parent / "nothing.py").write_text(NOTHING)
    deploy_all(lab.lab, path)
    yield path
    with lab.client() as client:
        client.delete_deployment(client.read_deployment_by_name("nothing/cron").id)


def test_scheduled_runs_appear_at_the_right_hour(lab, cron_file):
    starts = wait_for(lambda: deployments(lab)["cron"])
    for start in starts:
        assert start.astimezone(ZoneInfo("Europe/Berlin")).strftime("%H:%M") == "14:30"
        assert start.astimezone(UTC).hour in (12, 13)
    assert min(starts) - datetime.now(UTC) <= timedelta(hours=25)


def test_deploying_again_keeps_what_a_person_paused(lab, cron_file):
    with lab.client() as client:
        cron = client.read_deployment_by_name("nothing/cron")
        client.update_deployment_schedule(cron.id, cron.schedules[0].id, active=False)
        client.pause_deployment(cron.id)
        deploy_all(lab.lab, cron_file)
        again = client.read_deployment_by_name("nothing/cron")
    assert (again.id, again.paused, again.schedules[0].active) == (cron.id, True, False)
    assert deployments(lab)["cron"] == []


def test_the_shipped_schedules_yield_runs(lab):
    entries = yaml.safe_load(shipped("prefect.yaml").read_text())["deployments"]
    scheduled = {entry["name"] for entry in entries if entry.get("schedules")}
    assert scheduled
    wait_for(lambda: all(deployments(lab)[name] for name in scheduled))


def test_the_port_check_sees_a_listener_and_forgives_a_closed_one(tmp_path):
    port = free_port()
    with (
        contextlib.closing(socket.create_server(("127.0.0.1", port))),
        pytest.raises(Exception, match="cannot be used"),
    ):
        Lab(tmp_path, "127.0.0.1", port, tmp_path).require_free_port()
    Lab(tmp_path, "127.0.0.1", port, tmp_path).require_free_port()


def test_five_quick_deaths_are_enough(tmp_path):
    lines = []
    keeper = _Keeper(Lab(tmp_path, "127.0.0.1", 4200, tmp_path), None, lines.append, never)
    for _ in range(4):
        keeper._count_death(keeper._worker)
    assert len(lines) == 4
    with pytest.raises(LabError, match="the worker keeps dying"):
        keeper._count_death(keeper._worker)


def ended(*command: str, kill: bool) -> subprocess.Popen:
    """A process that has just ended, or been killed; nobody has waited for it."""
    process = subprocess.Popen(command)
    if kill:
        process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    return process


@pytest.mark.parametrize(
    "error", [ServerDied("it ended"), LabError("prefect deploy failed"), ConnectError("refused")], ids=type
)
def test_a_server_that_is_killed_while_the_lab_starts_is_started_again(tmp_path, monkeypatch, error):
    lines, starts = [], []
    keeper = _Keeper(Lab(tmp_path, "127.0.0.1", 4200, tmp_path), None, lines.append, lambda: len(starts) > 1)
    keeper._server._process = ended("sleep", "60", kill=True)

    def start():
        starts.append(1)
        if len(starts) == 1:
            raise error

    monkeypatch.setattr(keeper, "_start", start)
    monkeypatch.setattr(keeper, "_drain", lambda: None)
    keeper.keep()
    assert len(starts) == 2
    assert lines == ["the server has died (SIGKILL); starting it again"]


def test_a_server_that_ends_by_itself_while_the_lab_starts_is_not(tmp_path, monkeypatch):
    keeper = _Keeper(Lab(tmp_path, "127.0.0.1", 4200, tmp_path), None, pytest.fail, never)
    keeper._server._process = ended("false", kill=False)

    def start():
        raise ServerDied("the server did not start (exit code 1)")

    monkeypatch.setattr(keeper, "_start", start)
    with pytest.raises(ServerDied, match="did not start"):
        keeper.keep()


@pytest.mark.parametrize(
    "error", [ObjectNotFound(ValueError()), ReadTimeout("slow"), ConnectError("refused")], ids=type
)
def test_a_look_at_the_runs_that_fails_does_not_end_the_lab(tmp_path, monkeypatch, error):
    keeper = _Keeper(Lab(tmp_path, "127.0.0.1", 4200, tmp_path), None, lambda line: None, never)
    looks = []

    def look(client):
        looks.append(client)
        raise error

    monkeypatch.setattr(keeper._runs, "look", look)
    monkeypatch.setattr("flows.lab.lab.SyncPrefectClient", lambda *address, **auth: nullcontext())
    keeper._look()
    keeper._look()
    assert len(looks) == 1, "the next look is not at once"


def test_a_start_that_is_killed_leaves_word_of_its_server(tmp_path, monkeypatch):
    """The next `agd up` waits for that server's end, and does not take the lab for one that is up."""
    (tmp_path / "agd").mkdir()
    lab, lines = Lab(tmp_path, "127.0.0.1", 4200, tmp_path), []
    keeper = _Keeper(lab, None, lines.append, never)
    monkeypatch.setattr("flows.lab.up.await_server", lambda *arguments: None)
    monkeypatch.setattr(keeper._server, "start", lambda: None)
    with subprocess.Popen(["sleep", "60"]) as orphan:
        keeper._server._process = orphan
        keeper._start_server()
        assert _who_is_up(lab).startswith("another `agd up` is starting")
        waiting = threading.Thread(target=_await_predecessor, args=(lab, lines.append))
        waiting.start()
        wait_for(lambda: lines == ["waiting for the server of an `agd up` that was killed"])
        assert waiting.is_alive()
        orphan.kill()
        orphan.wait()
        waiting.join()
    assert not (lab.folder / "up.json").exists()


def test_it_says_its_first_line_without_loading_what_only_flows_need():
    loaded = "import sys, flows.lab.up; print([name for name in ('torch', 'diffusers', 'zarr') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_home_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    refused = CliRunner().invoke(app, ["up", "--home", str(tmp_path / "file")])
    assert (refused.exit_code, refused.output.count("\n")) == (2, 1)
    assert "cannot be used" in refused.output
