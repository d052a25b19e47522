"""Which part of a stage holds the device: what computes on it, and nothing else."""

import multiprocessing
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest
from typer.testing import CliRunner

from agd_core.basics.progress import Stopped
from flows.cli.app import app
from flows.machine.device_lease import acquisitions, hold_device
from flows.presets import load_config
from flows.run import Run
from flows.stages import evaluate as evaluation
from flows.stages.collect import collect
from flows.stages.distill import distill, train_all
from flows.stages.evaluate import EVALUATION, LookedAt, evaluate
from flows.stages.sample import Cell, sample
from flows.workplace import Workplace
from tests.conftest import SMALL
from tests.leases import CPU, answer, hold, overlaps, process

ONE_ADAPTER = [*SMALL, "methods=[{kind: agd-offset}]", "sample.curve_steps=[]"]
COLLECT = [sys.executable, "-m", "flows.cli", "collect", "fashion-dit"]


@dataclass(frozen=True)
class Watched(Workplace):
    """Fails if anything could wait for an artefact while it holds the device."""

    held: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)

    def produce(self, stage, *rest, **others):
        assert self.held == self.finished, f"{stage} is asked for on the device"
        return super().produce(stage, *rest, **others)

    @contextmanager
    def on_device(self, what):
        with super().on_device(what):
            self.held.append(what)
            yield
        self.finished.append(what)


@contextmanager
def held_by_another_process():
    with process(hold, os.environ["AGD_LEASE_FOLDER"], "another run") as (holder, pipe):
        assert answer(pipe) == "holds"
        yield holder


@pytest.fixture(scope="module")
def config():
    return load_config("fashion-dit", ONE_ADAPTER)


@pytest.fixture(scope="module")
def distilled(config, tmp_path_factory):
    place = Watched(tmp_path_factory.mktemp("distilled"))
    distill(Run(config, place), "agd distill test")
    return place


@pytest.fixture(scope="module")
def sample_sets(config, teacher, distilled):
    cell = Cell(2.0, 4, "ddim")
    guided = replace(cell, guidance=config.guidance)
    place = Workplace(distilled.output, should_stop=lambda: pytest.fail("was not there"))
    return [sample(Run(config, place, teacher), one, "test") for one in (cell, guided)]


def evaluated(config, changed, teacher, sample_sets, place):
    run = Run(config.model_copy(update={"evaluate": changed}), place, teacher)
    looked = [LookedAt.by(run.instruments, samples, run.sampled, place, "test") for samples in sample_sets]
    return evaluate(run, Cell(2.0, 4, "ddim"), *looked, "test")


def test_each_stage_holds_the_device_for_its_computing_after_its_artefact(distilled):
    cells = ["no guidance", "CFG", "agd-offset"]
    assert distilled.held == distilled.finished
    assert distilled.held[:2] == ["collect 12 trajectories", "train agd-offset"]
    features = [f"features of {name}, scale 2, 4 ddim steps" for name in cells]
    curves = ["prediction error of agd-offset"]
    assert sorted(distilled.held[2:]) == sorted([*features, *curves, *(f"sample {name}" for name in cells)])
    mine = [entry for entry in acquisitions(CPU) if entry["pid"] == os.getpid()]
    assert {entry["what"] for entry in mine} >= set(distilled.held)


def test_statistics_go_on_while_another_process_holds_the_device(config, teacher, distilled, sample_sets, monkeypatch):
    computed = evaluation.evaluate_samples

    def while_held(*arguments):
        with held_by_another_process() as holder:
            assert acquisitions(CPU)[-1]["pid"] == holder.pid
            return computed(*arguments)

    monkeypatch.setattr(evaluation, "evaluate_samples", while_held)
    other = config.evaluate.model_copy(update={"distance_subsets": 9})
    place = Watched(distilled.output)
    assert (evaluated(config, other, teacher, sample_sets, place).path / EVALUATION).is_file()
    assert place.finished == []
    assert acquisitions(CPU)[-1]["what"] == "another run"


def test_without_features_an_evaluation_needs_no_device(config, teacher, distilled, sample_sets):
    bare = config.evaluate.model_copy(update={"extractor": "none"})
    place = Workplace(distilled.output, should_stop=lambda: pytest.fail("waited"))
    with held_by_another_process():
        assert (evaluated(config, bare, teacher, sample_sets, place).path / EVALUATION).is_file()


def test_finished_work_needs_no_device(config, distilled):
    place = Workplace(distilled.output, should_stop=lambda: pytest.fail("waited"))
    with held_by_another_process():
        distill(Run(config, place), "agd distill test")


def test_a_stopped_training_drops_the_device(config, teacher, distilled, tmp_path):
    settings = config.train.model_copy(update={"steps": 1000, "loader_workers": 1})
    long = config.model_copy(update={"train": settings})
    asked = []
    trajectories = collect(Run(config, distilled, teacher))
    place = Workplace(tmp_path, should_stop=lambda: asked.append(True) or len(asked) == 3)
    with pytest.raises(Stopped, match="after step 3 of 1000"):
        train_all(Run(long, place, teacher), trajectories)
    last = acquisitions(CPU)[-1]
    assert (last["event"], last["what"]) == ("released", "train agd-offset")
    assert multiprocessing.active_children() == []


def said(started, words):
    """The first line with these words on a run's terminal."""
    lines = []
    for line in started.stderr:
        lines.append(line)
        if words in line:
            return line
    pytest.fail(f"{words!r} is not in {lines}")


def test_a_real_run_waits_its_turn_and_frees_the_device_when_it_is_killed(monkeypatch, tmp_path):
    for name, value in {"AGD_LEASE_FOLDER": str(tmp_path / "leases"), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    settings = [part for override in (*SMALL, "collect.trajectories=2000") for part in ("--set", override)]
    command = [*COLLECT, *settings, "--output", tmp_path / "output"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        try:
            with hold_device(CPU, "train agd-offset"):
                line = said(run, "waiting for cpu")
                assert f"held by process {os.getpid()} since " in line
                assert "train agd-offset" in line
            while acquisitions(CPU)[-1]["pid"] != run.pid:
                assert run.poll() is None
                time.sleep(0.01)
            died = time.monotonic()
        finally:
            run.kill()
    with hold_device(CPU, "next"):
        entries = acquisitions(CPU)
    assert [entry["what"] for entry in entries] == [*["train agd-offset"] * 2, "collect 2000 trajectories", "next"]
    assert overlaps(entries, {run.pid: died}) == []


def test_an_unusable_lease_is_one_line_and_exit_code_2(monkeypatch, tmp_path):
    (tmp_path / "leases").symlink_to(tmp_path)
    monkeypatch.setenv("AGD_LEASE_FOLDER", str(tmp_path / "leases"))
    settings = [part for override in SMALL for part in ("--set", override)]
    result = CliRunner().invoke(app, ["collect", "fashion-dit", *settings, "--output", str(tmp_path / "output")])
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("agd: the device's lease ")
    assert "is a symbolic link" in result.stderr
