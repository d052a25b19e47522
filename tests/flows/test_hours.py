"""`agd doctor --time`: its counts are those of a real run, its times those of a clock that is told the time."""

import itertools
import json
from collections import Counter

import pytest
import torch
import typer
from typer.testing import CliRunner

from agd_core.evaluation.extractors import FashionFeatures
from agd_core.models.config import BaseModelConfig
from agd_core.models.schedulers import noise_level
from flows.cli import doctor as command
from flows.cli.doctor_time import in_words
from flows.presets import load_config
from flows.run import Run
from flows.stages.distill import distill
from flows.stages.hours import predict_time
from flows.stages.plan import plan_costs
from flows.stages.repeatable import Decoding, PromptEncoding, Repeatable, SamplerStep, TrainingStep
from flows.stages.repeatable_scoring import Looking, Scoring
from flows.stages.repetitions import repetitions
from flows.workplace import Workplace
from tests.conftest import SMALL

TWO_SCALES = ("sample.guidance_scales=[1.5,3]", "collect.trajectories=10", "train.batch_size=5")
TWO_METHODS = ("methods=[{kind: agd-modulated-mlp, hidden_width: 8}, {kind: agd-offset, hidden_width: 8}]",)
RULES = ("training_free=[{kind: cfg-gate}, {kind: guidance-cache}]",)
TINY_SD = ("train.steps=3", "sample.prompt_count=40", "collect.prompt_count=3", "methods=[{kind: agd-offset}]")


def config(*overrides):
    return load_config("fashion-dit", (*SMALL, *TWO_METHODS, *TWO_SCALES, *overrides))


def units(run, kind, **wanted):
    parts = [part for part in repetitions(run) if isinstance(part.work, kind)]
    return sum(part.units for part in parts if wanted.items() <= vars(part.work).items())


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """(the run, rows that went through its decoder and its extractor) of a finished distillation."""
    output, seen = tmp_path_factory.mktemp("whole"), Counter()
    run = Run(config(*RULES), Workplace(output), BaseModelConfig().build(torch.device("cpu")))
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((run.model.autoencoder, "decode"), (FashionFeatures, "extract")):
            patch.setattr(owner, name, counting(getattr(owner, name), name, seen))
        distill(run, "agd distill")
    return run, seen


def counting(function, name, seen):
    def call(*arguments):
        seen[name] += len(arguments[-1])
        return function(*arguments)

    return call


def test_network_evaluations_are_those_of_a_real_run(whole_run):
    run, _ = whole_run
    assert units(run, SamplerStep, denoiser="CFG") == run.teacher.network_evaluations
    at_two_scales, with_two_steps, along_the_teacher = 2 * 20 * (4 + 2), 20 * (2 + 1), 4 * (4 + 2)
    for name in ("CFG cache 2", "CFG gate 0.5"):
        assert units(run, SamplerStep, denoiser=name) == at_two_scales + with_two_steps + along_the_teacher
    assert units(run, SamplerStep) + units(run, TrainingStep) == run.model.network_evaluations


def test_images_are_those_of_a_real_run(whole_run):
    run, seen = whole_run
    assert units(run, Decoding) == seen["decode"]
    assert units(run, Looking) == seen["extract"]
    evaluations = len(list(run.place.output.glob("artefacts/evaluation-*/evaluation.json")))
    assert units(run, Scoring) == evaluations * run.config.sample.images


def test_training_steps_are_those_of_the_configuration(whole_run):
    run, _ = whole_run
    steps = {part.stage: part.times for part in repetitions(run) if isinstance(part.work, TrainingStep)}
    assert steps == {"train agd-modulated-mlp": 6, "train agd-offset": 6}


def test_a_rule_that_guides_at_some_steps_only_is_counted_so(teacher, tmp_path):
    high = float(noise_level(teacher.scheduler_config, torch.tensor([500.0])))
    guidance = f"guidance={{kind: interval, high: {high!r}, rule: {{kind: cfg}}}}"
    run = Run(config(guidance, "evaluate.curve_images=0"), Workplace(tmp_path), teacher)
    collecting = repetitions(run)[0]
    assert 10 * 6 < collecting.units < 2 * 10 * 6
    assert collecting.units == plan_costs(run)["network_evaluations"]
    assert collecting.work.together == 2 * collecting.work.rows


def test_what_is_left_out_is_not_counted(teacher, tmp_path):
    run = Run(config("evaluate.curve_images=0", "evaluate.extractor=none"), Workplace(tmp_path), teacher)
    assert "prediction error" not in {part.stage for part in repetitions(run)}
    assert units(run, Looking) == units(run, PromptEncoding) == 0


def test_every_round_is_really_made_and_the_clock_says_how_long(teacher, tmp_path):
    found = predict_time(Run(config(), Workplace(tmp_path), teacher), seconds=0, clock=itertools.count().__next__)
    assert {stage["seconds_each"] for stage in found["stages"]} == {1}
    assert all(stage["seconds"] == pytest.approx(stage["times"]) for stage in found["stages"])
    assert found["seconds"] == pytest.approx(sum(stage["times"] for stage in found["stages"]))
    assert found["hours"] == found["seconds"] / 3600
    assert teacher.network._forward_hooks == {}
    assert list(tmp_path.iterdir()) == []


def test_prompts_are_encoded_in_the_rounds_of_a_run(tmp_path):
    run = Run(load_config("tiny-sd", TINY_SD), Workplace(tmp_path))
    found = predict_time(run, seconds=0, clock=itertools.count().__next__)
    first = found["stages"][0]
    prompts = {*run.collected.prompts, *run.sampled.prompts}
    assert (first["stage"], first["units"], first["repeated"]) == ("encode prompts", len(prompts), "32 prompts")
    assert "features" not in {stage["stage"] for stage in found["stages"]}


def run_doctor(*arguments):
    app = typer.Typer()
    app.command()(command.doctor)
    app.command("other")(lambda: None)
    return CliRunner().invoke(app, ["doctor", "fashion-dit", *arguments, "--time", "--device", "cpu"])


def test_the_command_prints_stages_and_the_whole_run(monkeypatch):
    monkeypatch.setattr(Repeatable, "seconds_per_unit", lambda *_: 0.5)
    shown = run_doctor()
    assert shown.exit_code == 0, shown.stderr
    for part in ("collect", "train agd-offset-shared", "training step of 128 pairs", "decode samples", "the whole run"):
        assert part in shown.stdout
    found = json.loads(run_doctor("--json").stdout)
    collecting = next(stage for stage in found["stages"] if stage["stage"] == "collect")
    assert (collecting["units"], collecting["times"], collecting["seconds"]) == (64_000, 500, 32_000)
    assert next(stage["seconds"] for stage in found["stages"] if stage["stage"] == "cost") == 15


def test_a_model_that_is_not_here_is_one_line_and_exit_code_two():
    shown = run_doctor("--set", "base_model.source=./nowhere")
    assert shown.exit_code == 2
    assert "base model folder ./nowhere does not exist" in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0123, "12.3 ms"), (1.5, "1.5 s"), (119, "119 s"), (150, "2.5 minutes"), (7200, "2 hours")],
)
def test_times_have_the_unit_that_suits_them(seconds, words):
    assert in_words(seconds) == words
