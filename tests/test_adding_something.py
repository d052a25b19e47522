"""The table "Adding something" of docs/architecture.md is true: all of it is done to a copy of the project, and run.

What the table calls a file lies in `tests/throwaway` where it would lie in the project; what it calls a line is an
`Entry`. One preset names all throw-away members, and the throw-away job runs it on the throw-away task runner.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = ROOT / "tests" / "throwaway"
COPIED = ("agd_core", "storage", "flows", "deployments", "prefect.yaml")
BESIDE = {"run_throwaway.py", "real.throwaway", "agd_core/builtin/miniatures/throwaway.py"}
"""Files that are no members: what runs them, images, weights."""


@dataclass(frozen=True)
class Entry:
    """One line: where something begins in a file, `new` comes right behind."""

    file: str
    begins: str
    """A regular expression that begins with the name that the table's third column has, and a group around it."""
    new: str
    imported: str = ""
    """The import that it needs."""
    function: str = ""
    """What the table puts into the same file, ahead of this."""


RUNNER = """
def _throwaway(fan_out: FanOut) -> Any:
    print("throw-away task runner of", fan_out.workers)
    return ThreadPoolTaskRunner(max_workers=fan_out.workers)


"""
JOB = """
def _throwaway(run: Run, command: str) -> Done:
    from flows.stages.distill import distill

    done = distill(run, command)
    print("throw-away job with a", run.model.backbone.class_name)
    return Done(done.metrics, done.report)


"""
IN_FORM = r"class (FanOut)(?s:.*?)runner: Literal\["
ADDED = 'Job("throwaway", "run-throwaway", _ALL, _throwaway, "All of them."), '
DEPLOYED = "- {name: run-throwaway, entrypoint: flows.lab.flows.throwaway_flow}\n"
ENTRIES = {
    "class of networks": [
        Entry(
            "agd_core/models/backbones/__init__.py",
            r"(_KINDS).*\(",
            "ThrowawayBackbone, ",
            "from agd_core.models.backbones.throwaway import ThrowawayBackbone",
        ),
        Entry(
            "agd_core/builtin/miniatures/cache.py",
            r"(MINIATURES).*\{",
            '"tiny-throwaway": write_throwaway, ',
            "from agd_core.builtin.miniatures.throwaway import write_throwaway",
        ),
    ],
    "guidance rule": [
        Entry(
            "agd_core/guidance/__init__.py",
            r"(_Rule) = ",
            "ThrowawayGuidance | ",
            "from agd_core.guidance.throwaway import ThrowawayGuidance",
        )
    ],
    "method": [
        Entry(
            "agd_core/methods/__init__.py",
            r"(AnyMethodConfig) = Annotated\[",
            "ThrowawayConfig | ",
            "from agd_core.methods.throwaway import ThrowawayConfig",
        )
    ],
    "sampler": [
        Entry("agd_core/models/schedulers.py", r"(SchedulerName) = Literal\[", '"throwaway", '),
        Entry(
            "agd_core/models/schedulers.py", r"(_SCHEDULERS).*\{", '"throwaway": _Sampler("UniPCMultistepScheduler"), '
        ),
    ],
    "feature extractor": [
        Entry(
            "agd_core/evaluation/extractors/__init__.py",
            r"(EXTRACTORS)[^(]*\(",
            "ThrowawayFeatures, ",
            "from agd_core.evaluation.extractors.throwaway import ThrowawayFeatures",
        )
    ],
    "metric": [
        Entry(
            "agd_core/evaluation/metrics/__init__.py",
            r"(_ALL).*\(",
            "THROWAWAY, ",
            "from agd_core.evaluation.metrics.throwaway import THROWAWAY",
        )
    ],
    "kind of real images or prompts": [
        Entry(
            "storage/sources/kinds.py",
            r"(KINDS).*\{",
            '".throwaway": Kind(("*.throwaway",), images=ThrowawayImages), ',
            "from storage.sources.throwaway import ThrowawayImages",
        )
    ],
    "task runner": [
        Entry("flows/lab/fan_out.py", r"(_RUNNERS).*\{", '"throwaway": _throwaway, ', function=RUNNER),
        Entry("flows/lab/parameters.py", IN_FORM, '"throwaway", '),
    ],
    "preset": [],
    "job": [
        Entry("flows/jobs.py", r"(JOBS).*\(", ADDED, function=JOB),
        Entry("prefect.yaml", r"(deployments):\n", DEPLOYED),
    ],
}
"""By row of the table."""


def table():
    """The cells of its rows by the first one, without what stands there in brackets."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    lines = page.partition("\n## Adding something\n")[2].partition("\n## ")[0].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]
    return {first.partition(" (")[0]: rest for first, *rest in rows}


def entered(text, entry):
    """A file's text with the line, its import and its function."""
    place = re.compile(f"^{entry.begins}", re.M)
    assert len(place.findall(text)) == 1, f"{entry.file}: {entry.begins} is there once"
    text = place.sub(lambda found: entry.function + found[0] + entry.new, text)
    if not entry.imported:
        return text
    return re.sub(r"^from (agd_core|storage)\b", rf"{entry.imported}\n\g<0>", text, count=1, flags=re.M)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The numbers of the run, its rows by name, and what it printed."""
    project, home = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("home")
    for name in COPIED:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, project / name)
    shutil.copytree(FILES, project, dirs_exist_ok=True)
    for entry in chain.from_iterable(ENTRIES.values()):
        path = project / entry.file
        path.write_text(entered(path.read_text(encoding="utf-8"), entry), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(project), "XDG_CACHE_HOME": str(home), "PREFECT_HOME": str(home)}
    command = [sys.executable, "run_throwaway.py"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    metrics = json.loads((project / "out" / "metrics.json").read_text(encoding="utf-8"))
    return metrics, {row["name"]: row for row in metrics["rows"]}, done.stdout


def test_every_row_is_done_where_it_says():
    assert sorted(table()) == sorted(ENTRIES)
    for row, (file, line) in table().items():
        names = {re.match(r".*?\((\w+)\)", entry.begins)[1] for entry in ENTRIES[row]} - {"deployments"}
        assert set(re.findall(r"`(\w+)`", line)) == names, row
        functions = {entry.file for entry in ENTRIES[row] if entry.function}
        assert functions <= set(re.findall(r"`([\w./]+)`", file)), row
    files = set(re.findall(r"`(\S+<\w+>\S+)`", " ".join(file for file, _ in table().values())))
    written = {path.relative_to(FILES).as_posix() for path in FILES.rglob("*.*") if path.is_file()}
    assert {re.sub(r"<\w+>", "throwaway", file) for file in files} | BESIDE == written


def a_class_of_networks(metrics, rows, printed):
    assert "throw-away job with a UNet2DModel" in printed
    assert rows["agd-offset"]["adapter_parameters"] > 0, "our own methods work on it"


def a_guidance_rule(metrics, rows, printed):
    assert (rows["three-pass"]["method"], rows["three-pass"]["nfe"]) == ("three-pass", 3 * 4)


def a_method(metrics, rows, printed):
    assert (rows["gain"]["method"], rows["gain"]["nfe"], rows["gain"]["adapter_parameters"]) == ("gain", 4, 4)


def a_sampler(metrics, rows, printed):
    assert {row["scheduler"] for row in rows.values()} == {"throwaway"}


def a_feature_extractor(metrics, rows, printed):
    assert all(row["protocol"]["extractor"] == "throwaway" and row["fd"] > 0 for row in rows.values())


def a_metric(metrics, rows, printed):
    assert all(0 < row["scores"]["brightness"]["value"] < 255 for row in rows.values())


def a_kind_of_real_images(metrics, rows, printed):
    assert {row["protocol"]["reference"]["images"] for row in rows.values()} == {13}


def a_task_runner(metrics, rows, printed):
    assert "throw-away task runner of 1" in printed


def a_preset(metrics, rows, printed):
    assert metrics["command"].startswith("agd throwaway throwaway ")


def a_job(metrics, rows, printed):
    assert printed.count("throw-away job") == 2, "as a deployment's flow and as a command"


CHECKS = {
    "class of networks": a_class_of_networks,
    "guidance rule": a_guidance_rule,
    "method": a_method,
    "sampler": a_sampler,
    "feature extractor": a_feature_extractor,
    "metric": a_metric,
    "kind of real images or prompts": a_kind_of_real_images,
    "task runner": a_task_runner,
    "preset": a_preset,
    "job": a_job,
}


@pytest.mark.parametrize("row", table())
def test_a_throw_away_member_does_its_work(row, ran):
    CHECKS[row](*ran)
