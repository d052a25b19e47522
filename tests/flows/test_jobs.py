"""Commands, flows with their forms and deployments all come from one table; a setting goes a short way to its use."""

import json
import sys

import pytest
import typer
import yaml
from typer.testing import CliRunner

from agd_core.data import trajectory
from flows.cli import app as command_line
from flows.cli import main
from flows.cli.job_commands import add_job
from flows.jobs import JOBS, Done, Job
from flows.lab import flows as lab_flows
from flows.lab.flows import flow_of
from flows.lab.parameters import form_of
from flows.worlds import WORLDS
from tests.calls import ROOT, watch
from tests.conftest import SMALL

MOST_CALLS = 14
COUNT = Job(
    "count",
    "count-trajectories",
    ("collect", "methods"),
    lambda run, command: Done({"artefacts": {"trajectories": run.config.collect.trajectories}, "repeat": command}),
    "Count trajectories.",
)


def test_the_deployments_are_the_jobs_the_worlds_and_the_two_of_the_nights():
    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    found = {deployment["name"]: deployment["entrypoint"] for deployment in declared}
    others = {"nightly-evaluation", "evaluate-registered", *(world.flow for world in WORLDS)}
    assert others < set(found)
    assert {name: entry for name, entry in found.items() if name not in others} == {
        job.flow: f"flows.lab.flows.{job.name}_flow" for job in JOBS
    }
    for entrypoint in found.values():
        assert entrypoint.startswith("flows.lab.")


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_every_job_is_a_command_and_a_flow_with_its_sections(job):
    assert job.help in " ".join(CliRunner().invoke(command_line.app, [job.name, "--help"]).stdout.split())
    made = getattr(lab_flows, f"{job.name}_flow")
    assert made.name == job.flow
    assert {"preset", "output", "overrides", "fan_out", *job.sections} == set(form_of(job).model_fields) - {
        "config_file"
    }


def test_only_what_can_say_its_costs_is_asked_for_them():
    for job in JOBS:
        assert ("--dry-run" in CliRunner().invoke(command_line.app, [job.name, "--help"]).stdout) == bool(job.plan)


@pytest.fixture
def agd():
    app = typer.Typer()
    add_job(app, COUNT)
    app.command("other")(lambda: None)
    return lambda *words: CliRunner().invoke(app, ["count", *words])


def test_a_job_from_outside_is_a_command(agd, tmp_path):
    words = ["fashion-dit", "--set", "collect.trajectories=7", "--output", str(tmp_path)]
    assert agd(*words).stdout == "trajectories: 7\n"
    found = json.loads(agd(*words, "--json").stdout)
    assert found["repeat"] == f"agd count fashion-dit --set collect.trajectories=7 --output {tmp_path}"
    bad = agd("fashion-dit", "--set", "collect.trajectoriez=7", "--output", str(tmp_path))
    assert (bad.exit_code, bad.stderr.count("\n")) == (2, 1)


def test_a_job_from_outside_is_a_flow_with_a_form():
    flow = flow_of(COUNT)
    assert flow.name == "count-trajectories"
    assert flow.description.startswith("Count trajectories.")
    shown = json.dumps(flow.parameters.model_dump())
    assert all(name in shown for name in ("collect", "methods", "fan_out"))
    assert '"train"' not in shown


def test_a_form_says_what_the_command_line_says():
    filled = {"collect": {"trajectories": 7, "guidance_scale_max": 3}, "methods": ["agd-offset"]}
    settings = form_of(COUNT).model_validate({**filled, "overrides": ["train.steps=5"]})
    assert settings.changes() == [
        "methods=[{kind: agd-offset}]",
        "collect.trajectories=7",
        "collect.guidance_scale_max=3.0",
        "train.steps=5",
    ]
    config = settings.config()
    assert (config.collect.trajectories, config.collect.guidance_scale_max, config.train.steps) == (7, 3.0, 5)
    assert [adapter.kind for adapter in config.methods] == ["agd-offset"]


def test_a_setting_of_a_stage_is_few_calls_from_the_command_line(monkeypatch, tmp_path):
    seen = watch(monkeypatch, trajectory, "build_scheduler")
    changes = [part for change in (*SMALL, "collect.steps=5", "collect.kept_steps=2") for part in ("--set", change)]
    monkeypatch.setattr(sys, "argv", ["agd", "collect", "fashion-dit", *changes, "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    assert max(map(len, seen)) <= MOST_CALLS, max(seen, key=len)
